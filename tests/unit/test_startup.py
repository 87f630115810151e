"""What a command loads before it answers, counted in a process of its own, not timed."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import engrec.config  # noqa: F401 (stores the schema)

ROOT = Path(__file__).parents[2]
LOADED = "sorted({name.partition('.')[0] for name in sys.modules})"


def said(*lines):
    """What a new process prints last, from JSON; it starts in the repository, as train.py does."""
    code = "\n".join(("import gc, json, sys", *lines))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded():
    """Of a process that has all that a run needs before its first batch: what is loaded, what the collector does."""
    lines = ["import train", "run, frozen = train.loaded(), gc.get_freeze_count()", "garbage = [run]"]
    lines += ["garbage.append(garbage)", "again = train.loaded() is run, gc.get_freeze_count() == frozen > 0"]
    return said(*lines, f"print(json.dumps([{LOADED}, gc.isenabled(), *again]))")[1]


@pytest.mark.parametrize("question", [["--help"], ["--hydra-help"], ["--cfg", "job"]])
def test_questions_load_neither_torch_nor_numpy(question):
    lines = [
        "import runpy",
        f"sys.argv = ['train.py', *{question}]",
        "try:",
        "    runpy.run_path(sys.argv[0], None, '__main__')",
    ]
    lines += ["except SystemExit:", "    pass", f"print(json.dumps({LOADED}))"]
    answer, modules = said(*lines)
    assert "vgg_small" in answer or "basic" in answer or "batch_size: 128" in answer
    assert {"hydra", "engrec"} <= set(modules)
    assert not {"torch", "pytorch_lightning", "torchmetrics", "numpy", "scipy", "sklearn", "matplotlib"} & set(modules)


def test_a_run_does_not_load_what_only_its_end_or_another_split_needs(loaded):
    modules, *_ = loaded
    assert {"torch", "pytorch_lightning", "engrec"} <= set(modules)
    assert not {"sklearn", "skimage", "plotly", "pandas", "tensorboard", "wandb"} & set(modules)


def test_garbage_is_collected_in_a_run_and_between_the_trials_of_a_sweep(loaded):
    _, enabled, same, frozen_once = loaded
    assert enabled
    assert same
    assert frozen_once


def stored(part):
    """Every configuration in the store, as text."""
    if isinstance(part, dict):
        return {name: stored(below) for name, below in part.items()}
    return OmegaConf.to_yaml(part.node)


def test_the_config_store_is_not_copied_and_composing_leaves_it_as_it_was(compose):
    store = ConfigStore.instance()
    compose()
    before = stored(store.repo)
    assert {"schema.yaml", "hydra"} <= before.keys()
    cfg = compose("seed=1", "stage=scratch", "hydra.job.name=other", "hydra.verbose=true", "experiment=wacv2016")
    cfg.seed, cfg.batch_size = 2, 3
    assert stored(store.repo) == before
    assert deepcopy(store) is store
