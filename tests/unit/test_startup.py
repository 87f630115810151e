"""What a command loads before it answers, counted in a process of its own, not timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = "sorted({name.partition('.')[0] for name in sys.modules})"


def said(*lines):
    """What a new process prints last, from JSON; it starts in the repository, as train.py does."""
    code = "\n".join(("import json, sys", *lines))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


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


def test_a_run_does_not_load_what_only_its_end_or_another_split_needs():
    _, modules = said("import train", "from engrec.experiment import run", f"print(json.dumps({LOADED}))")
    assert {"torch", "pytorch_lightning", "engrec"} <= set(modules)
    assert not {"sklearn", "skimage", "plotly", "pandas", "tensorboard", "wandb"} & set(modules)
