"""Soak test: kills, malformed files, full disks, requests and a long search, counted until the time is over.

    python tests/soak/soak.py --minutes 90              # everything, as in docs/reliability.md
    python tests/soak/soak.py --share 0.03 --minutes 5  # what `make test-all` runs

Each part is repeated with random moments and contents that follow from --seed (moments of kills also depend on how fast
the machine is). The table counts lost results, half-written files, tracebacks and wrong figures; all should be 0, and
the exit status is 1 where one is not. What went wrong is printed below the table.
"""

import argparse
import asyncio
import contextlib
import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import aiohttp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from commands import FEW, SMALL, Folder  # noqa: E402
from PIL import Image  # noqa: E402
from searching import Searching, assert_each_once  # noqa: E402

from engrec import checkpoint, weights_file  # noqa: E402
from engrec.datasets import prepared  # noqa: E402
from engrec.pages.dashboard.records import Outputs, identity  # noqa: E402

OLD = ROOT / "tests" / "golden" / "old_runs"
COUNTED = ("lost results", "half-written files", "tracebacks", "wrong figures")
KILLS = {"train": 90, "search": 40, "prepare": 30, "summarize": 20, "export": 20}
MALFORMED, DISKS, REQUESTS, TRIALS, SEARCH_KILLS = 2000, 30, 20_000, 300, 10


@dataclass
class Row:
    """What a part of the test did, and what it found wrong."""

    part: str
    done: int = 0
    planned: int = 0
    wrong: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def count(self, kind: str, note: str) -> None:
        self.wrong[kind] += 1
        self.notes.append(f"{self.part}: {kind}: {note}")

    def cells(self) -> list[str]:
        return [self.part, f"{self.done:,} of {self.planned:,}", *(str(self.wrong[kind]) for kind in COUNTED)]


@dataclass
class Soak:
    folder: Path
    rng: random.Random
    share: float
    end: float

    def planned(self, number: int) -> int:
        return max(1, round(self.share * number))

    @property
    def late(self) -> bool:
        return time.monotonic() > self.end

    # Kills.

    def kills(self, part: str) -> Row:
        """A command is killed with SIGKILL at random moments and given again, until it ends; then from the start."""
        row = Row(f"kill -9: {part}", planned=self.planned(KILLS[part]))
        room = self.folder / part
        room.mkdir()
        command = COMMANDS[part](room)
        started = time.monotonic()
        command.reference()
        seconds = time.monotonic() - started
        while row.done < row.planned and not self.late:
            command.renew()
            for _ in range(min(20, row.planned - row.done)):
                process = command.start()
                process.join(self.rng.uniform(0, 1.1 * seconds))
                if process.exitcode is None:
                    process.kill()
                    process.join()
                    row.done += 1
                    command.check_files(row)
                    continue
                command.check_end(row, process.exitcode)
                break
            else:
                command.check_end(row, command.finish())
        return row

    def search_kills(self, number: int, kills: int, part: str) -> Row:
        """A search whose controller is killed; each trial must be in the journal once, with one result."""
        row = Row(part, planned=self.planned(kills))
        searches = 0
        while row.done < row.planned and not self.late:
            searches += 1
            room = self.folder / f"search{number}-{searches}"
            room.mkdir()
            searching = Searching(room)
            each = row.planned if number == TRIALS else min(4, row.planned - row.done)
            for step in range(each):
                process = searching.start(f"n_trials={number}", "workers=3")
                wait_for(searching, process, (step + self.rng.random()) * number / (each + 1))
                process.kill()
                self.said(row, process.communicate()[1])
                row.done += 1
            process = searching.start(f"n_trials={number}", "workers=3")
            self.said(row, process.communicate(timeout=600)[1])
            try:
                assert_each_once(searching, number)
            except AssertionError as error:
                row.count("lost results", f"{room.name}: {error}")
            shutil.rmtree(room)
        return row

    def said(self, row: Row, stderr: str) -> None:
        if "Traceback" in stderr:
            row.count("tracebacks", stderr[-600:])

    # Malformed files.

    def malformed(self) -> Row:
        row = Row("malformed files", planned=self.planned(MALFORMED))
        room = self.folder / "malformed"
        files = malformed_files(room)
        while row.done < row.planned and not self.late:
            path, original, read = self.rng.choice(files)
            path.write_bytes(changed(original, self.rng))
            try:
                with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                    read(path)
            except (ValueError, OSError) as error:  # what is printed as one line
                if "\n" in str(error).strip():
                    row.count("tracebacks", f"{path.name}: {error}")
            except BaseException as error:
                kept = shutil.copy(path, Path(tempfile.gettempdir()) / f"malformed-{row.done}-{path.name}")
                row.count("tracebacks", f"{kept}: {type(error).__name__}: {str(error)[:200]}")
            path.write_bytes(original)
            row.done += 1
        return row

    # Full disks.

    def full_disks(self) -> Row:
        """A run on a file system that is full after so many kilobytes; then it is made larger, and the run resumed."""
        row = Row("full disk", planned=self.planned(DISKS))
        room = self.folder / "disk"
        room.mkdir()
        (self.folder / "disk-reference").mkdir()
        command = Train(self.folder / "disk-reference")
        command.reference()
        size = sum(path.stat().st_size for path in (command.room / "reference").rglob("*")) // 1024
        for number in range(row.planned):
            if self.late:
                break
            kilobytes = max(8, round(size * 1.4 * (number + self.rng.random()) / row.planned))
            if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(room)]).returncode:
                row.notes.append("full disk: not run: it needs the right to mount a file system")
                return row
            try:
                command.run = room / "run"
                process = command.start()
                process.join(300)
                row.done += 1
                stderr = command.folder.outputs[1].read_text()
                self.said(row, stderr)
                command.check_files(row)
                errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
                if process.exitcode and len(errors) != 1:
                    row.count("tracebacks", f"{kilobytes} kB: {len(errors)} lines of error: {stderr[-300:]}")
                if process.exitcode and '"running"' in text_of(command.run / "status.json"):
                    row.count("wrong figures", f"{kilobytes} kB: status.json still says running")
                subprocess.run(["mount", "-o", "remount,size=1g", str(room)], check=True)
                command.check_end(row, command.finish())
            finally:
                subprocess.run(["umount", "-l", str(room)], check=False)
        return row

    # Requests.

    def requests(self) -> Row:
        row = Row("dashboard requests", planned=self.planned(REQUESTS))
        room = self.folder / "dashboard"
        shutil.copytree(OLD, room / "outputs")
        hostile_runs(room / "outputs", self.rng)
        stderr = (room / "stderr").open("w+")
        script = ROOT / "scripts" / "dashboard.py"
        server = subprocess.Popen(
            [sys.executable, script, "outputs", "--port", "0"],
            cwd=room,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().partition(" is at ")[2].split()[0]
            asyncio.run(self.ask(address, row))
            if server.poll() is not None:
                row.count("lost results", "the server has ended")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        stderr.seek(0)
        self.said(row, stderr.read())
        return row

    async def ask(self, address: str, row: Row) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}api/state") as answer:
                state = await answer.json()
            keys = [identity(run["path"]) for run in state["runs"]]
            known = sorted(run["path"] for run in state["runs"])
            paths = ["", "style.css", "main.js", "api/state", "api/intervals/all"]
            paths += [f"api/{q}/{key}" for q in ("history", "texts", "tested", "mistakes") for key in keys]
            paths += [f"api/pair/{one}+{other}" for one, other in pairwise(keys)]
            paths += [f"api/group/{key}" for key in sorted({run["group"] for run in state["runs"]})]
            while row.done < row.planned and not self.late:
                number = min(50, row.planned - row.done)
                asked = (self.one(session, address, paths, row, index % 10 == 9) for index in range(number))
                await asyncio.gather(*asked)
                row.done += number
            async with session.get(f"{address}api/state") as answer:
                if sorted(run["path"] for run in (await answer.json())["runs"]) != known:
                    row.count("wrong figures", "the list of runs has changed")

    async def one(
        self, session: aiohttp.ClientSession, address: str, paths: list[str], row: Row, hostile: bool
    ) -> None:
        headers, path = {}, self.rng.choice(paths)
        if hostile:  # on a connection of its own: what it sends may be read as the start of the next request
            path, headers = hostile_request(path, self.rng)
            headers["Connection"] = "close"
        try:
            async with session.request(
                self.rng.choice(("GET", "POST", "HEAD", "TRACE")) if hostile else "GET",
                address + path,
                headers=headers,
                timeout=aiohttp.ClientTimeout(60),
            ) as answer:
                body = await answer.read()
                if answer.status >= 500 or b"Traceback" in body:
                    row.count("tracebacks", f"{path[:80]}: status {answer.status}")
                elif not hostile and answer.status != 200:
                    row.count("wrong figures", f"{path}: status {answer.status}")
                elif hostile and answer.status == 200 and b"root:" in body:
                    row.count("wrong figures", f"{path}: a file from elsewhere")
        except (aiohttp.ClientError, ValueError):
            if not hostile:
                row.count("lost results", f"{path}: no answer")


# The commands that are killed.


class Command:
    """A command in a folder of its own, what it writes, and what that must be in the end."""

    def __init__(self, room: Path) -> None:
        self.room, self.number = room, 0
        self.folder = Folder(room)
        self.run = room / "run"

    def words(self, run: Path) -> list[str]:
        raise NotImplementedError

    def contents(self, run: Path) -> object:
        """What must be the same however often the command was killed."""
        raise NotImplementedError

    script: str | Path = "train.py"

    def start(self):
        return self.folder.start(*self.words(self.run), script=self.script)

    def finish(self) -> int:
        process = self.start()
        process.join(300)
        return process.exitcode

    def reference(self) -> None:
        self.run = self.room / "reference"
        status = self.finish()
        assert status == 0, self.folder.outputs[1].read_text()
        self.expected = self.contents(self.run)

    def renew(self) -> None:
        if self.run.name != "reference":
            shutil.rmtree(self.run, ignore_errors=True)
        self.number += 1
        self.run = self.room / f"run{self.number}"

    def check_files(self, row: Row) -> None:
        """After a kill: each file is complete."""
        for path in sorted(self.run.rglob("*")) if self.run.exists() else []:
            if path.is_file() and (wrong := damage(path)):
                row.count("half-written files", f"{path}: {wrong}")
        if "Traceback" in (stderr := text_of(self.folder.outputs[1])):
            row.count("tracebacks", stderr[-600:])

    def check_end(self, row: Row, status: int | None) -> None:
        self.check_files(row)
        if status != 0:
            row.count("lost results", f"{self.run}: status {status}: {text_of(self.folder.outputs[1])[-300:]}")
        elif self.contents(self.run) != self.expected:
            row.count("wrong figures", f"{self.run} differs from the run that was not stopped")
        if left := [path.name for path in self.run.rglob("*.part")]:
            row.count("half-written files", f"{self.run}: {left} is left")


class Train(Command):
    def words(self, run: Path) -> list[str]:
        return [*SMALL, *FEW, "max_epochs=5", f"output_dir={run}", "ckpt_path=last"]

    def contents(self, run: Path) -> object:
        result = json.loads((run / "result.json").read_text())
        weights = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
        tables = [(run / name).read_bytes() for name in ("metrics.csv", "predictions.csv")]
        found = [result[name] for name in ("metrics", "validation", "epochs", "calibration")]
        return tables, found, {name: value.numpy().tobytes() for name, value in weights.items()}


class Prepare(Command):
    script = ROOT / "scripts" / "prepare.py"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        rng = np.random.default_rng(0)
        with (room / "fer2013.csv").open("w") as file:
            file.write("emotion,pixels,Usage\n")
            for number in range(600):
                pixels = " ".join(map(str, rng.integers(0, 256, 48 * 48)))
                part = ("Training", "PublicTest", "PrivateTest")[number % 3]
                file.write(f"{number % 7},{pixels},{part}\n")

    def words(self, run: Path) -> list[str]:
        run.mkdir(exist_ok=True)
        return ["fer2013", "fer2013.csv", "--out", str(run / "fer2013.npz")]

    def contents(self, run: Path) -> object:
        faces = prepared.load(run / "fer2013.npz")
        return faces.images.tobytes(), faces.labels.tolist(), faces.recipe


class Summarize(Command):
    script = ROOT / "scripts" / "summarize.py"

    def words(self, run: Path) -> list[str]:
        return [str(OLD), "--resamples", "100", "--out", str(run)]

    def contents(self, run: Path) -> object:
        return {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.suffix in (".csv", ".md")}


class Export(Command):
    script = ROOT / "scripts" / "dashboard.py"

    def words(self, run: Path) -> list[str]:
        run.mkdir(exist_ok=True)
        return [str(OLD), "--export", str(run / "page.html")]

    def contents(self, run: Path) -> object:
        return round((run / "page.html").stat().st_size, -3)  # the time of the export is in it


COMMANDS: dict[str, Callable[[Path], Command]] = {
    "train": Train, "prepare": Prepare, "summarize": Summarize, "export": Export,
}  # fmt: skip


def wait_for(searching: Searching, process: subprocess.Popen, trials: float) -> None:
    """Until so many trials have ended, or all."""
    while len(searching.noted("end")) < trials and process.poll() is None:
        time.sleep(0.01)


def text_of(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def damage(path: Path) -> str:
    """Why a file is not complete; empty if it is. Those still being written have another name."""
    if path.suffix == ".part":
        return ""
    try:
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".yaml":
            assert isinstance(yaml.safe_load(path.read_text()), dict)
        elif path.suffix == ".npz":
            prepared.load(path)
        elif path.suffix == ".png":
            Image.open(path).verify()
        elif path.suffix == ".csv":
            text = path.read_text()
            assert text.endswith("\n")
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# Malformed contents.


def malformed_files(room: Path) -> list[tuple[Path, bytes, Callable[[Path], object]]]:
    """Files of every kind that engrec reads, each with its valid contents and its reader."""
    shutil.copytree(OLD / "f37f79a_full", room / "run")
    for name in ("last.ckpt", "status.json"):
        shutil.copy(OLD / "f37f79a_stopped" / name, room / "run")
    saved = checkpoint.read(room / "run" / "last.ckpt")
    about = {key: saved[key] for key in weights_file.DESCRIBED if key in saved}
    (room / "model.safetensors").write_bytes(weights_file.pack(saved["state_dict"], about))
    made = Prepare(room)
    made.reference()

    def run_read(_: Path) -> object:
        outputs = Outputs(room)
        outputs.scan()
        return outputs.since()

    readers: list[tuple[Path, Callable[[Path], object]]] = [
        (room / "run" / "last.ckpt", checkpoint.read),
        (room / "model.safetensors", checkpoint.read),
        (room / "reference" / "fer2013.npz", prepared.load),
    ]
    names = ("config.yaml", "result.json", "status.json", "metrics.csv", "predictions.csv")
    readers += [(room / "run" / name, run_read) for name in names]
    return [(path, path.read_bytes(), read) for path, read in readers]


WORDS = (
    b"NaN", b"-1", b"1e999", b"null", b"[]", b"{}", b"\xff\xfe", b"\0", b"true", b'""', b"${oc.env:HOME}", b"9" * 400,
    b"&a [*a,*a]", b"[" * 3000, b"{" * 3000, b"\xf0\x9f\x98\x80", b"<script>", b"../../etc/passwd",
)  # fmt: skip


def changed(original: bytes, rng: random.Random) -> bytes:
    """The contents with one to three changes: cut off, bytes flipped, a piece replaced, moved or repeated."""
    data = bytearray(original)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 4, 20, 300)))
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at:end] = rng.choice(WORDS)
        elif kind == 3:
            data[at:end] = b""
        elif kind == 4:
            data[at:at] = data[at:end] * rng.randint(1, 5)
        else:
            values = [i for i, byte in enumerate(data[:50_000]) if byte in b":=,"]
            if values:
                at = rng.choice(values) + 1
                data[at : at + rng.randint(1, 8)] = rng.choice(WORDS)
    return bytes(data)


def hostile_runs(outputs: Path, rng: random.Random) -> None:
    """Runs beside the good ones whose files are malformed."""
    for number in range(20):
        run = outputs / f"<b>{number}'\"`|"
        shutil.copytree(OLD / "f37f79a_full", run)
        shutil.copy(OLD / "f37f79a_stopped" / "status.json", run)
        for name in ("config.yaml", "result.json", "status.json", "metrics.csv", "predictions.csv"):
            if rng.random() < 0.5:
                (run / name).write_bytes(changed((run / name).read_bytes(), rng))


def hostile_request(path: str, rng: random.Random) -> tuple[str, dict[str, str]]:
    paths = [
        "../" * rng.randint(1, 9) + "etc/passwd", "%2e%2e/" * 5 + "etc/passwd", "api/history/" + "a" * 3000,
        f"api/{path}/../../..", "api/state?since=" + "9" * 500, "api/state?since=%00&token=%ff", "api/history/all+all",
        "api/faces/0000000000000000", "x" * 6000, "%c0%ae%c0%ae/etc/passwd", "api/state?since=-1", "style.css/../..",
    ]  # fmt: skip
    headers = [
        {"Host": "evil.example"}, {"Host": ""}, {"Host": "127.0.0.1.evil.example"}, {"X-Long": "y" * 7000},
        {"Range": "bytes=-1,-2,999999999999-"}, {"Content-Length": "10"}, {"Accept-Encoding": "gzip;q=nan"}, {},
    ]  # fmt: skip
    return rng.choice(paths), rng.choice(headers)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="the test ends after so long (default: %(default)s)"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the numbers in docs/reliability.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", help="train, search, prepare, summarize, export, malformed, disk, requests, long"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored by the children of a background job
    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), random.Random(options.seed), options.share, started + 60 * options.minutes)
        parts: dict[str, Callable[[], Row]] = {
            "malformed": soak.malformed,
            "prepare": lambda: soak.kills("prepare"),
            "summarize": lambda: soak.kills("summarize"),
            "export": lambda: soak.kills("export"),
            "train": lambda: soak.kills("train"),
            "disk": soak.full_disks,
            "requests": soak.requests,
            "search": lambda: soak.search_kills(12, KILLS["search"], "kill -9: search"),
            "long": lambda: soak.search_kills(TRIALS, SEARCH_KILLS, f"a search of {TRIALS} trials, killed"),
        }
        for name, part in parts.items():
            if options.only and name not in options.only:
                continue
            began = time.monotonic()
            rows.append(part())
            cells = rows[-1].cells()
            print(
                f"{time.monotonic() - began:6.0f} s  {cells[0]}: {cells[1]}, wrong: {dict(rows[-1].wrong)}", flush=True
            )
    print(f"\nseed {options.seed}, {(time.monotonic() - started) / 60:.0f} minutes\n")
    table = [["", "done", *COUNTED], ["---"] * 6, *(row.cells() for row in rows)]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    print("".join(f"\n{note}" for row in rows for note in row.notes))
    return int(any(sum(row.wrong.values()) for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
