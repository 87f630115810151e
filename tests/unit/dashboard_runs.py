"""Runs as the dashboard finds them, and what it makes of them."""

import json

from finished_runs import some_images, write_run

from engrec.pages.dashboard.records import Outputs

HISTORY = "epoch,lr,train/loss,val/auc,val/loss\n0,0.1,1.0,0.5,0.9\n1,0.1,0.8,0.75,0.6\n2,0.05,0.7,0.7,0.5\n"
MARKUP = '<img src=x onerror="document.title=1">'


def finish(folder, **more):
    """A run as train.py leaves it: result.json with scores, metrics.csv."""
    result = json.loads((folder / "result.json").read_text())
    scores = {"metrics": {"test/accuracy": 0.8, "test/auc": 0.7}, "epochs": 3, "seconds": 12.5}
    scores["validation"] = {"epoch": 1, "val/auc": 0.75, "val/loss": 0.6}
    (folder / "result.json").write_text(json.dumps(result | scores | more))
    (folder / "metrics.csv").write_text(HISTORY)
    return folder


def made(folder, images=None, **given):
    return finish(write_run(folder, some_images() if images is None else images, **given))


def looked(root):
    outputs = Outputs(root)
    outputs.scan()
    return outputs


def records_of(outputs):
    return {entry.record["path"]: entry.record for entry in outputs.runs.values()}


def key(outputs, path):
    return next(k for k, entry in outputs.runs.items() if entry.record["path"] == path)
