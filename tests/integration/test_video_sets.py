"""Data sets of videos from files to results, on small stand-ins: prepare, train, summary per frame and per clip."""

import csv
import json

import numpy as np
import prepare
import pytest
import video_sets
from commands import ROOT, Folder

from engrec.importers import engagewild
from engrec.metrics import ERRORS_IN_TABLES

FEW = [
    "stage=scratch",
    "model=vgg_small",
    "model.width=0.1",
    "trainer.accelerator=cpu",
    "batch_size=16",
    "max_epochs=2",
]
NAMES = ("daisee", "engagenet")
CHOSEN = {name: [f"experiment={name}"] for name in NAMES}
CHOSEN["engagewild"] = ["dataset=engagewild", "split=kfold", "split.num_folds=3", "split.fold=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With all data sets, and a run on each."""
    folder = Folder(tmp_path_factory.mktemp("work"))
    for name, chosen in CHOSEN.items():
        source = getattr(video_sets, f"make_{name}")(folder.path / name)
        out = folder.path / "data" / f"{name}.npz"
        broken = name == "daisee"  # one of its clips
        assert prepare.main([name, str(source), "--every", "0.25", "--out", str(out)]) == int(broken)
        done = folder.command(*chosen, *FEW, f"output_dir=runs/{name}")
        assert done.status == 0, done.stderr[-3000:]
    return folder


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", NAMES)
def test_people_who_are_tested_are_those_of_the_official_split(folder, name):
    predictions = rows(folder.path / "runs" / name / "predictions.csv")
    assert {row["subject"][-1] for row in predictions} == {"7", "8"}
    assert {row["source"].partition("@")[0] for row in predictions} == {row["clip"] for row in predictions}
    assert len({row["clip"] for row in predictions}) == 4
    result = json.loads((folder.path / "runs" / name / "result.json").read_text())
    assert result["num_people"] == {"train": 4, "val": 2, "test": 2}
    assert {"test/qwk", "test/mae", "test/mse"} <= result["metrics"].keys()
    assert any("no face was found" in note for note in result["dataset"]["notes"])


@pytest.mark.parametrize("name", CHOSEN)
def test_the_error_per_clip_is_that_of_the_challenge(folder, name):
    """EmotiW's, on levels of 0, 0.33, 0.66 and 1; here they are thirds."""
    predictions = rows(folder.path / "runs" / name / "predictions.csv")
    names = [column.removeprefix("p_") for column in predictions[0] if column.startswith("p_")]
    people = {row["subject"] for row in predictions}
    assert len(people) == 2
    errors = {"thirds": [], "published": []}
    for clip in {row["clip"] for row in predictions}:
        frames = [row for row in predictions if row["clip"] == clip]
        for levels, kind in (([0, 1 / 3, 2 / 3, 1], "thirds"), (engagewild.LEVELS, "published")):
            expected = np.mean([[float(row[f"p_{name}"]) for name in names] @ np.array(levels) for row in frames])
            errors[kind].append((expected - levels[names.index(frames[0]["label"])]) ** 2)
    metrics = json.loads((folder.path / "runs" / name / "result.json").read_text())["clips"]["metrics"]
    assert metrics["test/mse"] == pytest.approx(np.mean(errors["thirds"]), abs=1e-6)
    assert metrics["test/mse"] == pytest.approx(np.mean(errors["published"]), abs=0.01)
    assert 0 <= metrics["test/mae"] <= 3


def test_the_card_has_both_per_frame_and_per_clip(folder):
    words = ("runs/daisee/best.ckpt", "exported", "--no-onnx")
    done = folder.finish(folder.start(*words, script=ROOT / "scripts" / "export.py"))
    assert done.status == 0, done.stderr[-3000:]
    card = (folder.path / "exported" / "README.md").read_text(encoding="utf-8")
    assert card.index("test images of 2 people") < card.index("4 test clips of 2 people")
    assert card.count("bootstrap over 2 people") == 1


def test_the_summary_has_both_per_frame_and_per_clip(folder):
    done = folder.finish(folder.start("runs", "--resamples", "200", script=ROOT / "scripts" / "summarize.py"))
    assert done.status == 0, done.stderr[-3000:]
    titles = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert sum("4 test clips of 2 people" in title for title in titles) == 3
    assert sum("test images of 2 people" in title for title in titles) == 3
    assert done.stdout.count(ERRORS_IN_TABLES) == 6
    found = rows(folder.path / "outputs" / "summary" / "summary.csv")
    for name in NAMES:
        predictions = rows(folder.path / "runs" / name / "predictions.csv")
        names = [column for column in predictions[0] if column.startswith("p_")]
        right = []
        for clip in {row["clip"] for row in predictions}:
            frames = [row for row in predictions if row["clip"] == clip]
            mean = np.mean([[float(row[column]) for column in names] for row in frames], axis=0)
            right.append(names[mean.argmax()] == f"p_{frames[0]['label']}")
        [value] = [
            float(row["value"])
            for row in found
            if row["images"] == "4" and row["score"] == "accuracy" and row["name"].startswith("scratch")
            if name in row["test set"]
        ]
        assert value == pytest.approx(np.mean(right))
        result = json.loads((folder.path / "runs" / name / "result.json").read_text())
        assert result["clips"]["metrics"]["test/accuracy"] == pytest.approx(value)
        assert result["clips"]["metrics"].keys() == result["metrics"].keys() - {"test/loss"}
        log = (folder.path / "runs" / name / "train.log").read_text()
        assert f"test per clip: accuracy {value:.4f}" in log
