"""Shared by the tests: random faces, and configurations composed as train.py composes them."""

import os
import signal

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from engrec.config import composed
from engrec.datasets.prepared import Faces

# Read when torch is loaded, which is later. On a busy machine two threads wait for each other, a hundred times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores Ctrl-C, and hands that on to the processes that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_wandb", "test_slurm", "test_train", "test_ddp", "test_search_slurm", "test_search_runs",
    "test_paper_table_runs", "test_launchers", "test_real_data", "test_audit_real", "test_dashboard_browser",
    "test_try_browser",
)  # fmt: skip
# What needs Slurm, PostgreSQL, a browser, GPUs or the real data sets, which few machines have: `make test-all`.
SYSTEMS = (
    "test_slurm", "test_search_slurm", "test_search_shared", "test_dashboard_browser", "test_report_browser",
    "test_try_browser", "test_launchers", "test_real_data", "test_audit_real",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Files that take long first, so that two processes end at about the same time; those of SYSTEMS are slow."""
    for item in items:
        if item.path.stem in SYSTEMS:
            item.add_marker(pytest.mark.slow)

    def rank(item):
        """LONGEST, then the rest of tests/integration, then tests/unit."""
        if item.path.parent.name != "integration":
            return len(LONGEST) + 1
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def make_faces():
    """Random images, classes in turn, three images of each subject; keywords replace a field."""

    def make_faces(num_images=24, num_classes=2, size=16, channels=1, seed=0, **fields):
        rng = np.random.default_rng(seed)
        number = np.arange(num_images)
        given = {
            "images": rng.integers(0, 256, (num_images, channels, size, size), np.uint8),
            "labels": number % num_classes,
            "class_names": tuple(f"class{k}" for k in range(num_classes)),
            "sources": np.array([f"image{i:03d}.png" for i in number]),
            "recipe": {"name": "random", "importer": "test"},
            "subjects": np.array([f"s{i // 3:02d}" for i in number]),
        }
        return Faces(**given | fields)

    return make_faces


@pytest.fixture
def compose():
    """The configuration that `python train.py OVERRIDES` would run."""

    def compose(*overrides):
        GlobalHydra.instance().clear()
        return composed(overrides)

    yield compose
    HydraConfig.instance().cfg = None
