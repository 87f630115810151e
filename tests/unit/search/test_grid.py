"""A grid sweep: what is checked before its first run, and one GPU for each process."""

import signal
import subprocess
import sys
import textwrap

import pytest

from engrec.search import grid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_with_the_process_that_launched_it(how, busy):
    """A worker that is busy stops its trial, as signals_end_the_run has it, and does not begin another."""
    stopped = "signals_end_the_run()" if busy else "nullcontext()"
    worker = f"""
        import os, time
        from contextlib import nullcontext
        from engrec.search import grid
        from engrec.machine.signals import signals_end_the_run
        launcher = grid.OneGpu()
        launcher.launcher = os.getppid()
        try:
            launcher.on_job_start(None)
            with {stopped}:
                print("begun", flush=True)
                time.sleep(60)
        except SystemExit as stopped:
            print("stopped", stopped.code, flush=True)
        launcher.on_job_start(None)
        print("another", flush=True)
    """
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {textwrap.dedent(worker)!r}])"
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(how)
    assert process.stdout.read() == ("stopped 143\n" if busy else "")  # to its end: the worker has gone
    process.wait()


def test_each_value_of_each_key_is_checked_once():
    typed = ["stage=scratch", "split.fold=0,1,7", "model=cnn,vgg", "+x='a b'", "seed=range(1000)"]
    runs = list(grid.runs_to_check(typed))
    assert runs[2] == ["stage=scratch", "+x='a b'", "model=cnn", "seed=0", "split.fold=7"]
    assert runs[4] == ["stage=scratch", "+x='a b'", "split.fold=0", "seed=0", "model=vgg"]
    assert len(runs) == 3 + 2 + grid.MOST


def test_a_run_that_would_be_refused_is_refused(compose):
    good = ["stage=scratch", "split=kfold", "split.fold=4", "ckpt_path=last"]
    grid.check_run(good)
    for wrong in ("split.fold=5", "seed=-1", "monitor=val/loss2"):
        with pytest.raises(ValueError, match=wrong):
            grid.check_run([*good, wrong])
