"""A grid sweep: what is checked before its first run, and one GPU for each process."""

import signal
import subprocess
import sys
import textwrap

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from engrec.errors import CONF
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


@pytest.mark.parametrize("empty", ["seed=range(0)", "seed=glob(*)", "model=glob(zzz*)", "+x=shuffle(range(2,2))"])
def test_a_key_without_values_is_refused(empty):
    config = OmegaConf.create({"hydra": {"overrides": {"task": ["stage=scratch", empty, "batch_size=8,16"]}}})
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(SystemExit) as stopped:
        grid.Checked().on_multirun_start(config)
    assert stopped.value.code.startswith(f"error: {empty} names no run: set at least one value")


def test_the_options_of_a_group_are_checked():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        runs = list(grid.runs_to_check(["stage=scratch", "split=glob(k*)"]))
    assert runs == [["stage=scratch", "split=kfold"]]


@pytest.mark.parametrize(
    "wrong", ["split=loso split.fold=-1", "split=nested split.outer=5", "split=nested split.fold=3"]
)
def test_a_fold_that_no_data_set_has_is_refused(compose, wrong):
    with pytest.raises(ValueError, match=f"{wrong.split()[1]} must be "):
        grid.check_run(["stage=scratch", "ckpt_path=last", *wrong.split()])
    grid.check_run(["stage=scratch", "ckpt_path=last", "split=nested", "split.outer=9", "split.num_outer=null"])


def test_the_last_fold_of_leave_one_subject_out_is_known_from_the_data(compose):
    people = ["stage=scratch", "split=loso", "dataset.num_train=20", "dataset.num_val=8", "dataset.num_test=8"]
    last = grid.num_subjects(compose(*people, "split.fold=0").dataset) - 1
    grid.check_run([*people, f"split.fold={last}"])
    with pytest.raises(ValueError, match=rf"split.fold=99999 must be from 0 to {last}, "):
        grid.check_run([*people, "split.fold=99999"])
    with pytest.raises(ValueError, match=r"missing dataset\.path, the prepared file"):
        grid.check_fold(compose("stage=scratch", "split=loso", "split.fold=1", "dataset=prepared"))


def test_a_run_that_would_be_refused_is_refused(compose):
    good = ["stage=scratch", "split=kfold", "split.fold=4", "ckpt_path=last"]
    grid.check_run(good)
    for wrong in ("split.fold=5", "seed=-1", "monitor=val/loss2"):
        with pytest.raises(ValueError, match=wrong):
            grid.check_run([*good, wrong])
