"""The command line: what it prints and writes, what it says when it cannot, and how long many runs take."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import summarize
from finished_runs import some_images, take, write_run

from engrec.errors import errors_in_one_line

SCRIPT = Path(summarize.__file__)
WRITTEN = {"summary.csv", "differences.csv", "subjects.csv", "summary.md"}


def command(*arguments):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def main(*arguments):
    """As `python scripts/summarize.py ARGUMENTS` would run; what it exits with is raised."""
    with errors_in_one_line():
        summarize.main([str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path):
    for stage in ("finetune", "scratch"):
        for fold in (0, 1):
            part = take(some_images(seed=len(stage)), slice(fold, None, 2))
            write_run(tmp_path / "runs" / stage / str(fold), part, stage=stage, fold=fold)
    return tmp_path / "runs"


def test_the_command_prints_the_summary_and_writes_it(runs, tmp_path):
    done = command(runs / "finetune", runs / "scratch", "--resamples", "100", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "out" / "summary.md").read_text()
    assert text in done.stdout
    assert "finetune vgg_small − scratch vgg_small" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} >= WRITTEN
    last = done.stdout.splitlines()[-1]
    assert last.startswith("written: ")
    assert set(last.split()[1:]) == {str(path) for path in (tmp_path / "out").iterdir()}


def test_a_folder_without_a_finished_run_is_said(runs, tmp_path, capsys):
    (tmp_path / "stopped").mkdir()
    main(runs, tmp_path / "stopped", "--resamples", 100, "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert said.err == f"warning: {tmp_path / 'stopped'} is left out: it has no finished run (result.json)\n"
    assert "finetune vgg_small" in said.out


def test_names_of_folders_and_models_may_be_odd(tmp_path):
    write_run(tmp_path / "runs" / "\x1b[31mred", some_images(), choices={"model": "\x1b[31mred"})
    folder = write_run(tmp_path / "runs" / "old", some_images(), stage="scratch")
    (folder / "metrics.csv").write_text("epoch,val/loss\n0,1\n")
    folder.rename(tmp_path / "runs" / os.fsdecode(b"not utf-8 \xff"))
    done = command(tmp_path / "runs", "--resamples", "100", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout + (tmp_path / "out" / "summary.md").read_text()
    assert r"not utf-8 \udcff" in (tmp_path / "out" / "summary.html").read_text()


def test_the_same_runs_give_the_same_files(runs, tmp_path, capsys):
    for name in ("one", "two"):
        main(runs, "--resamples", 100, "--out", tmp_path / name)
    for name in WRITTEN:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert capsys.readouterr().err == ""


def test_a_mistake_is_said_in_one_line(runs, tmp_path):
    done = command(tmp_path / "gone", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path / 'gone'}: no such folder\n"


def test_help_says_what_can_be_typed(capsys):
    with pytest.raises(SystemExit) as left:
        main("--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for word in ("python scripts/summarize.py outputs/", "--resamples", "(default: 2000)", "--out", "outputs/summary"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: folders"),
        (["runs", "--resamples", "99"], "--resamples 99: too few for an interval, at least 100"),
        (["runs", "--resamples", "many"], "argument --resamples: invalid int value: 'many'"),
    ],
)
def test_a_wrong_option_is_said(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(*arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")


def test_nothing_is_written_when_a_run_is_damaged(runs, tmp_path, capsys):
    with (runs / "scratch" / "1" / "predictions.csv").open("a") as file:
        file.write("half a ro")
    with pytest.raises(SystemExit) as left:
        main(runs, "--out", tmp_path / "out")
    said = str(left.value.code)
    assert said.startswith(f"error: {runs / 'scratch' / '1' / 'predictions.csv'}, line 32: ")
    assert "\n" not in said
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == ""


def test_a_summary_that_was_there_is_whole_when_a_new_one_fails(runs, tmp_path, monkeypatch):
    main(runs, "--resamples", 100, "--out", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    opened = Path.open

    class Full:
        """A file on a disk that is full after ten letters."""

        def __init__(self, path, *arguments, **options):
            self.file = opened(path, *arguments, **options)
            self.write = self.half if path.suffix == ".part" else self.file.write

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __iter__(self):
            return iter(self.file)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def half(self, text):
            self.file.write(text[:10])
            raise OSError("no space left on device")

    monkeypatch.setattr(Path, "open", lambda *arguments, **options: Full(*arguments, **options))
    with pytest.raises(SystemExit, match="error: no space left on device"):
        main(runs, "--resamples", 200, "--out", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_out_that_is_a_file_is_said_in_one_line(runs, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match=r"error: .*out: [A-Z][a-z ]+$"):
        main(runs, "--resamples", 100, "--out", tmp_path / "out")


def test_two_hundred_runs_take_seconds(tmp_path, capsys):
    """Four settings, ten seeds, five folds of 150 images each, with their controls."""
    people = some_images(750, per_subject=30)
    controls = dict.fromkeys(("majority", "subject_majority", "nearest_neighbour", "file_format"), people)
    order = np.random.default_rng(0).permutation(25)
    for number in range(200):
        lr, seed, fold = (0.001, 0.01, 0.1, 1.0)[number // 50], number // 5 % 10, number % 5
        inside = np.isin(np.arange(750) // 30, order[fold::5])
        write_run(
            tmp_path / "runs" / str(number),
            take(some_images(750, seed=number // 5, skill=0.2 + 0.1 * (number // 50), per_subject=30), inside),
            seed=seed,
            fold=fold,
            settings={"optimizer.lr": lr},
            temperature=1.2,
            controls={name: take(control, inside) for name, control in controls.items()},
        )
    started = time.process_time()
    main(tmp_path / "runs", "--out", tmp_path / "out")
    assert time.process_time() - started < 10
    rows = [line for line in capsys.readouterr().out.splitlines() if "| 50 " in line]
    assert [row.split("|")[1].split()[-1] for row in rows] == [f"optimizer.lr={lr}" for lr in (0.001, 0.01, 0.1, 1.0)]
