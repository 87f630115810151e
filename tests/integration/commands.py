"""`python train.py …` as a process of its own, in a folder of its own.

Importing torch and Lightning takes seconds. `command` therefore forks from a server that has imported them already:
the child is a process with its own status, signals and outputs, and runs train.py from the top. What such a command
starts as local runs forks from itself in the same way. `python` starts a new interpreter.
"""

import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from matplotlib import get_configdir

from engrec.search import local

ROOT = Path(__file__).parents[2]
WITHOUT = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC")  # a user who is logged in nowhere
FORKS = multiprocessing.get_context("forkserver")
FORK = multiprocessing.get_context("fork")
FORKS.set_forkserver_preload(["engrec.experiment", "sklearn.model_selection", "wandb"])
# Precision and memory format are given, as "auto" takes a fifth of such a run to measure which is faster.
PLAIN = ["trainer.precision=32-true", "speed.memory_format=contiguous"]
SMALL = ["model=vgg_small", "model.width=0.1", "trainer.accelerator=cpu", "batch_size=14", *PLAIN]
FEW = ["dataset.num_train=70", "dataset.num_val=14", "dataset.num_test=21"]


@dataclass
class Done:
    status: int
    stdout: str
    stderr: str

    def line(self, start):
        """What follows the start of the one line that has it."""
        [found] = [line for line in self.stdout.splitlines() if start in line]
        return found.partition(start)[2].strip()


class Folder:
    """A folder with train.py and conf/ in it, where relative paths of a command lead."""

    def __init__(self, path):
        self.path = path
        for name in ("train.py", "conf"):
            (path / name).symlink_to(ROOT / name)
        self.env = os.environ | {"HOME": str(path), "MPLCONFIGDIR": get_configdir()}
        for name in (*WITHOUT, "HYDRA_FULL_ERROR"):
            self.env.pop(name, None)

    def with_env(self, **env):
        """The same folder, whose commands have other environment variables."""
        other = copy(self)
        other.env = self.env | env
        return other

    def start(self, *arguments, session=False, script="train.py"):
        """Start train.py or another script, perhaps in a session of its own, and return the process."""
        process, self.outputs = forked([script, *arguments], self.path, self.env, session)
        return process

    def finish(self, process, timeout=300):
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise AssertionError("the command hangs")
        return Done(process.exitcode, *(path.read_text() for path in self.outputs))

    def command(self, *arguments):
        return self.finish(self.start(*arguments))

    def printed(self, line):
        """Run a command as it was printed: `python train.py …`."""
        interpreter, script, *arguments = shlex.split(line)
        assert (interpreter, script) == ("python", "train.py")
        return self.command(*arguments)

    def python(self, *arguments, timeout=300):
        """The same in a new interpreter."""
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.path,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


def forked(words, folder, env, session=False):
    """The process of `python SCRIPT ARGUMENTS` in this folder, and the files of what it prints."""
    outputs = [Path(folder) / f".{time.monotonic_ns()}.{stream}" for stream in ("out", "err")]
    process = FORKS.Process(target=become, args=([*map(str, words)], folder, env, outputs, session))
    process.start()
    return process, outputs


def become(words, folder, env, outputs, session):
    """In the child: become `python SCRIPT ARGUMENTS` in the folder."""
    if session:
        os.setsid()
    os.chdir(folder)
    for name in WITHOUT:
        os.environ.pop(name, None)
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    for descriptor, path in zip((1, 2), outputs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
    run_script(words)


def run_script(words):
    # A shell's background job would inherit that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    local.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": started})
    sys.argv, tempfile.tempdir = words, None
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def started(command, **how):
    """As subprocess.Popen, but without a new interpreter if the command is one of engrec's."""
    _, script, *_ = command
    return Fork(command, **how) if Path(script).is_relative_to(ROOT) else subprocess.Popen(command, **how)


class Fork:
    """What the local launcher needs of subprocess.Popen."""

    def __init__(self, command, *, env, stderr, preexec_fn, **_):
        _, *words = command
        self.process = FORK.Process(target=self.run, args=(words, env, stderr, preexec_fn))
        self.process.start()
        self.pid, self.returncode = self.process.pid, None

    def run(self, words, env, stderr, preexec_fn):
        os.setsid()
        preexec_fn()
        os.environ.clear()
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr.fileno(), 2)
        run_script(words)

    def poll(self):
        self.returncode = self.process.exitcode
        return self.returncode


def wait_for(condition, process, timeout=180):
    """Until the condition holds, while the process lives."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end or not process.is_alive():
            process.kill()
            raise AssertionError("the run was over too soon, or never so far")
        time.sleep(0.005)
