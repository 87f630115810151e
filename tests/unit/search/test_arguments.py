"""The command line of scripts/sweep.py."""

import gc
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import sweep as script
from omegaconf import OmegaConf
from searches import Launcher, Made, interrupted, parsed, searched

from engrec.machine import gpus
from engrec.search import checking, space
from engrec.search.arguments import parse, sweep_file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep=smal"], r"sweep=smal is not there \(did you mean small\?\); allowed: small, "),
        (["sweep=gone.yaml"], "sweep=gone.yaml is not a file"),
        ([], "missing sweep, what is searched: sweep= with small"),
        (["sweep=small", "n_trials=0"], "n_trials=0 is not a whole number from 1"),
        (["sweep=small", "workers=two"], "workers=two is not a whole number from 1"),
        (["sweep=small", "timeout=-1"], "timeout=-1 is not a number of seconds"),
        (["sweep=small", "timeout=nan"], "timeout=nan is not a number of seconds"),
        (["sweep=small", "n_trial=3"], r"there is no n_trial \(did you mean n_trials\?\)"),
        (["sweep=small", "folds=[x]"], "allowed are different whole numbers from 0"),
        (["sweep=small", "output_dir=here"], "output_dir cannot be set in a search: .*type folder="),
        (["sweep=small", "ckpt_path=last.ckpt"], "ckpt_path cannot be set in a search"),
        (["sweep=small", "hydra.verbose=true"], "hydra.verbose cannot be set in a search"),
        (["small"], "small: every argument is KEY=VALUE"),
        (
            ["sweep=small", "launcher=slrum"],
            r"launcher=slrum is not known \(did you mean slurm\?\)",
        ),
        (["sweep=small", "slurm.mem_gb=4"], "slurm.mem_gb is for trials that are jobs of Slurm: type launcher=slurm"),
        (["sweep=small", "launcher=slurm", "slurm.men_gb=4"], r"there is no slurm.men_gb \(did you mean mem_gb\?\)"),
    ],
)
def test_what_is_mistyped_is_said(arguments, said):
    with pytest.raises(ValueError, match=said):
        parse(arguments)


def test_what_is_typed_goes_where_it_belongs():
    options = parse(["sweep=small", "n_trials=7", "workers=2", "timeout=9", "folds=[0,2]", "seed=3", "batch_size=16"])
    assert (options.n_trials, options.workers, options.timeout) == (7, 2, 9)
    assert options.sweep.folds == (0, 2)
    assert {"seed=3", "batch_size=16"} <= set(options.sweep.overrides)
    assert options.freed == ("batch_size",)
    assert options.folder == Path("outputs/sweeps/small")
    assert options.command.startswith("python scripts/sweep.py sweep=small n_trials=7")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["monitor=val/f1"], "type monitor=val/auc"),
        (["trainer.devices=2"], "type trainer.devices=1"),
        (["stage=test"], "stage=test trains nothing"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(compose, changes, said):
    sweep = space.read(sweep_file("small"))
    with pytest.raises(ValueError, match=said):
        checking.check_fits(sweep, compose(*space.merged(sweep.overrides, changes)))


def test_every_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch, tmp_path):
    def given(workers):
        """To a search of its own, as the last one's GPUs are taken."""
        monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(dir=tmp_path))
        return [slot["CUDA_VISIBLE_DEVICES"] for slot in gpus.slots("auto", workers)]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(gpus, "cores", lambda: 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.slots("auto", None) == [{"OMP_NUM_THREADS": "9"}]
    assert gpus.slots("auto", 4) == [{"OMP_NUM_THREADS": "2"}] * 4
    assert gpus.slots("auto", 20) == [{"OMP_NUM_THREADS": "1"}] * 20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f")
    assert given(None) == ["3", "GPU-8f"]
    assert given(3) == ["3", "GPU-8f", "3"]
    assert given(1) == ["3"]
    [left] = gpus.slots("auto", 1)
    assert left["CUDA_VISIBLE_DEVICES"] == "GPU-8f"
    assert "CUDA_VISIBLE_DEVICES" not in gpus.slots("cpu", 2)[0]


def test_pruning_knows_the_most_epochs_that_a_trial_may_have(tmp_path):
    cfg = OmegaConf.create({"max_epochs": 8})
    assert checking.most_epochs(parsed(tmp_path), cfg) == 8
    assert checking.most_epochs(parsed(tmp_path, search={"max_epochs": {"low": 2, "high": 20}}), cfg) == 20
    assert checking.most_epochs(parsed(tmp_path, search={"max_epochs": {"choices": [30, 5]}}), cfg) == 30


def test_the_command_itself_does_without_what_takes_long_to_load():
    """Each trial is forked from it, and a search of short trials would be mostly its start and its end."""
    heavy = {"torch", "pytorch_lightning", "torchmetrics", "sklearn", "matplotlib", "submitit"}
    code = "import sys, sweep, engrec.pages.search; from engrec.search.outcome import _get_param_importances as f; f()"
    code += f"; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=script.ROOT / "scripts", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_what_another_search_left_in_the_meantime_is_not_forgotten(tmp_path, monkeypatch):
    """It ends after this one has begun and before this one has the folder; the check then finds something wrong."""
    arguments, locked = ["sweep=small", f"folder={tmp_path}"], script.locked
    last = tmp_path / "trials" / "0" / "last.ckpt"

    def locked_later(folder):
        with pytest.raises(KeyboardInterrupt):
            searched(folder, parse(arguments).sweep, interrupted)
        last.touch()
        return locked(folder)

    def check(cfg):
        raise ValueError("the network is nowhere")

    monkeypatch.setattr(script, "locked", locked_later)
    monkeypatch.setattr(checking, "check", check)
    monkeypatch.setattr(script, "announce", lambda *_: None)
    monkeypatch.setattr(script.local, "Launcher", lambda _: Launcher(lambda o, f: Made(f, [0.5] * 9)))
    try:
        with pytest.raises(ValueError, match="the network is nowhere"):
            script.main(arguments)
    finally:
        gc.unfreeze()
    assert last.is_file()
    assert (tmp_path / "journal.log").is_file()
