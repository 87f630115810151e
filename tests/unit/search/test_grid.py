"""One GPU for each process of a grid sweep."""

import signal
import subprocess
import sys
import textwrap

import pytest


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
