"""The command line of scripts/sweep.py."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import sweep as script
from omegaconf import OmegaConf
from searches import parsed

from engrec.machine import gpus
from engrec.search import checking, space
from engrec.search.arguments import parse, sweep_file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=smal"], r"sweep=smal does not exist \(did you mean small\?\); it must be one of small, "),
        (["sweep=gone.yaml"], "sweep=gone.yaml is not a file"),
        ([], "sweep= is missing: set it to small"),
        (["sweep=small", "n_trials=0"], "n_trials=0 must be a whole number from 1"),
        (["sweep=small", "workers=two"], "workers=two must be a whole number from 1"),
        (
            ["sweep=small", "workers=99999999999"],
            "99999999999 runs in parallel are too many: set workers= or --jobs to",
        ),
        (["sweep=small", "timeout=-1"], "timeout=-1 must be a number of seconds"),
        (["sweep=small", "timeout=nan"], "timeout=nan must be a number of seconds"),
        (["sweep=small", "n_trial=3"], r"there is no n_trial \(did you mean n_trials\?\)"),
        (["sweep=small", "folds=[x]"], "must be different whole numbers from 0"),
        (["sweep=small", "folds=[0,"], r"folds=\[0, must be a list such as \[0,1,2\], or null"),
        (["sweep=small", f"folds={2000 * '['}"], r"folds=\[+ must be a list"),
        (["sweep=small", "output_dir=here"], "output_dir cannot be set in a search: .*folder= is that of the search"),
        (["sweep=small", "ckpt_path=last.ckpt"], "ckpt_path cannot be set in a search"),
        (["sweep=small", "hydra.verbose=true"], "hydra.verbose cannot be set in a search"),
        (["small"], "small: every argument is KEY=VALUE"),
        (
            ["sweep=small", "launcher=slrum"],
            r"launcher=slrum is unknown \(did you mean slurm\?\)",
        ),
        (["sweep=small", "slurm.mem_gb=4"], "slurm.mem_gb needs launcher=slurm"),
        (["sweep=small", "launcher=slurm", "slurm.men_gb=4"], r"slurm.men_gb is unknown \(did you mean mem_gb\?\)"),
    ],
)
def test_wrong_arguments_are_reported(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)


def test_arguments_go_where_they_belong():
    options = parse(["sweep=small", "n_trials=7", "workers=2", "timeout=9", "folds=[0,2]", "seed=3", "batch_size=16"])
    assert (options.n_trials, options.workers, options.timeout) == (7, 2, 9)
    assert options.sweep.folds == (0, 2)
    assert {"seed=3", "batch_size=16"} <= set(options.sweep.overrides)
    assert options.fixed == ("batch_size",)
    assert options.folder == Path("outputs/sweeps/small")
    assert options.command.startswith("python scripts/sweep.py sweep=small n_trials=7")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["monitor=val/f1"], "set monitor=val/auc"),
        (["trainer.devices=2"], "set trainer.devices=1"),
        (["stage=test"], "stage=test trains nothing"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(compose, changes, message):
    sweep = space.read(sweep_file("small"))
    with pytest.raises(ValueError, match=message):
        checking.check_fits(sweep, compose(*space.merged(sweep.overrides, changes)))


def test_every_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch, tmp_path):
    def given(workers):
        """To a search of its own, as the last one's GPUs are taken."""
        monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(dir=tmp_path))
        return [slot["CUDA_VISIBLE_DEVICES"] for slot in gpus.slots("auto", workers)]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(gpus, "cores", lambda: 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="1001 runs in parallel are too many"):
        gpus.slots("cpu", 1001)
    assert len(gpus.slots("cpu", 1000)) == 1000
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


def test_the_command_itself_starts_without_what_takes_long_to_load():
    """A search of short trials would be mostly its start."""
    heavy = {"torch", "pytorch_lightning", "torchmetrics", "sklearn", "matplotlib", "submitit", "sqlalchemy"}
    code = f"import sys, sweep; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=script.ROOT / "scripts", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_a_search_that_is_refused_writes_nothing_and_starts_nothing(tmp_path, monkeypatch):
    def check(cfg):
        raise ValueError("the network is nowhere")

    monkeypatch.setattr(checking, "check", check)
    with pytest.raises(ValueError, match="the network is nowhere"):
        script.main(["sweep=small", f"folder={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_password_of_a_database_is_written_nowhere():
    options = parse(["sweep=small", "storage=postgresql://me:secret@host/trials"])
    assert options.storage == "postgresql://me:secret@host/trials"
    assert "secret" not in options.command
    assert "storage=postgresql://me:***@host/trials" in options.command


def test_a_storage_that_is_no_url_is_refused():
    with pytest.raises(ValueError, match="storage= takes the URL of a database, such as"):
        parse(["sweep=small", "storage=here.db"])
