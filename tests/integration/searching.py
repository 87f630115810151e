"""scripts/sweep.py with a stand-in for train.py that takes a twentieth of a second and records what it did."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from commands import forked
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

ROOT = Path(__file__).parents[2]
STANDIN = """
import fcntl, json, os, signal, sys, time
given = dict(word.split("=", 1) for word in sys.argv[1:])
folder, mode = given["output_dir"], os.environ.get("STANDIN", "")
if "stubborn" in mode:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ledger = open(os.environ["LEDGER"], "a")
def note(word):
    ledger.write(json.dumps([word, folder, given["optimizer.lr"], os.getpid(), os.environ["OMP_NUM_THREADS"]]) + "\\n")
    ledger.flush()
alone = open(folder + "/alone", "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("overlap")
note("start")
value = 1 - abs(float(given["optimizer.lr"]) - 0.02)
if "worse" in mode and not folder.endswith("/0"):
    value, mode = -1.0, "slow"
if "fails" in mode:
    sys.exit("Traceback (most recent call last):\\nerror: the data are nowhere")
with open(folder + "/metrics.csv.part", "w") as file:
    file.write("epoch,lr,val/auc\\n" + "".join(f"{e},0.1,{value * (e + 1) / 2}\\n" for e in range(2)))
os.replace(folder + "/metrics.csv.part", folder + "/metrics.csv")
if "brief" in mode:
    time.sleep(2)
elif "slow" in mode and "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(60)
time.sleep(0.05)
result = {"validation": {"val/auc": value}, "metrics": {"test/auc": 0.123454321}}
with open(folder + "/result.json.part", "w") as file:
    json.dump(result, file)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # either both of these or none
note("end")
os.replace(folder + "/result.json.part", folder + "/result.json")
"""
# The command's own main, with another train.py; what a real one says to the configuration is tested further below.
DRIVER = """
import os, sys
from engrec.search import checking, local, slurm
import sweep
from engrec.errors import errors_in_one_line
local.GRACE, slurm.EVERY = 0.5, 0.3
checking.check = lambda cfg: None
with errors_in_one_line():
    sweep.main(sys.argv[2:], [sys.executable, "-S", "-E", sys.argv[1]])
"""


class Started:
    """A forked process with the methods of subprocess.Popen."""

    def __init__(self, process, outputs):
        self.process, self.outputs, self.pid, self.kill = process, outputs, process.pid, process.kill

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def send_signal(self, signum):
        os.kill(self.pid, signum)

    def communicate(self, timeout=60):
        self.process.join(timeout)
        assert self.process.exitcode is not None
        return tuple(path.read_text() if path.exists() else "" for path in self.outputs)  # killed before it said a word


class Searching:
    """A folder with a stand-in and its ledger, and the command."""

    always = ()
    driver = DRIVER

    def __init__(self, path, around=os.environ):
        self.around = around
        self.path, self.folder, self.ledger = path, path / "found", path / "ledger"
        (path / "standin.py").write_text(STANDIN)
        self.ledger.touch()

    def env(self, mode=""):
        paths = f"{ROOT}:{ROOT / 'scripts'}"
        return {**self.around, "PYTHONPATH": paths, "STANDIN": mode, "LEDGER": str(self.ledger), "COLUMNS": "90"}

    def words(self, *arguments):
        driver = self.path / "driver.py"
        driver.write_text(self.driver)
        words = [driver, self.path / "standin.py", "sweep=small", f"folder={self.folder}", "workers=2"]
        return [*map(str, words), *self.always, *arguments]

    def start(self, *arguments, mode=""):
        return Started(*forked(self.words(*arguments), self.path, self.env(mode)))

    def popen(self, *arguments, mode="", stdout=subprocess.PIPE, preexec_fn=None):
        """The same in a new interpreter."""
        return subprocess.Popen(
            [sys.executable, *self.words(*arguments)],
            env=self.env(mode),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec_fn,
        )  # fmt: skip

    def run(self, *arguments, **how):
        process = self.start(*arguments, **how)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def noted(self, word):
        complete = self.ledger.read_text().rpartition("\n")[0]  # the last line may be half there yet
        lines = [json.loads(line) for line in complete.splitlines()]
        return [line[1:] for line in lines if line[0] == word]

    def until(self, condition, process):
        end = time.monotonic() + 30
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "it never came so far"
            time.sleep(0.002)

    def trials(self):
        """As Optuna itself reads the journal."""
        storage = JournalStorage(JournalFileBackend(str(self.folder / "journal.log")))
        [study] = storage.get_all_studies()
        return storage.get_all_trials(study._study_id)


def one_line(err):
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    return err


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def assert_each_once(searching, number):
    """So many results, each of other parameters, each trained to its end once, and none twice at a time."""
    trials = searching.trials()
    assert [t.number for t in trials] == list(range(number)), [(t.number, t.state.name) for t in trials]
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert len({json.dumps(trial.params, sort_keys=True) for trial in trials}) == number
    assert searching.noted("overlap") == []
    began = {}
    for folder, lr, *_ in searching.noted("start"):
        began.setdefault(folder, set()).add(lr)
    assert len(began) == number
    assert all(len(values) == 1 for values in began.values())  # whatever was started again had the same parameters
    complete = {t.number for t in trials if t.state is TrialState.COMPLETE}
    ended = [int(Path(folder).name) for folder, *_ in searching.noted("end")]
    assert complete <= set(ended)
    return trials, ended
