"""Nested selection with whole commands: the test people of a fold have no influence on what is chosen for it."""

import json
import shlex

import numpy as np
import pytest
from commands import PLAIN, ROOT, Folder

from engrec.datasets.prepared import Faces, load
from engrec.splits import KFold

pytestmark = pytest.mark.slow
OVERRIDES = [
    "stage=scratch", "dataset=prepared", "split=kfold", "split.num_folds=2", "model=vgg_small", "model.width=0.1",
    "trainer.accelerator=cpu", "batch_size=16", "max_epochs=1", "optimizer.lr=0.01,0.1", *PLAIN,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With mine.npz, 12 images of each of 10 people, bright faces being of class 1."""
    folder, rng = Folder(tmp_path_factory.mktemp("work")), np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    faces = Faces(
        images=rng.integers(0, 100 + 100 * labels[:, None, None, None], (120, 1, 16, 16)).astype(np.uint8),
        labels=labels,
        class_names=("no", "yes"),
        sources=np.array([f"{i:03d}.png" for i in range(120)]),
        recipe={"name": "mine", "importer": "test"},
        subjects=np.repeat([f"s{i}" for i in range(10)], 12),
    )
    faces.save(folder.path / "mine.npz")
    return folder


def nested(folder, *arguments, data="mine.npz"):
    words = [*OVERRIDES, f"dataset.path={data}", "--inner", "2", *arguments]
    done = folder.finish(folder.start(*words, script=ROOT / "scripts" / "nested.py"))
    assert done.status == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def chosen(folder):
    return nested(folder, "--out", "chosen")


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_each_fold_is_trained_with_what_was_chosen_for_it_and_pooled(chosen, folder):
    choices = json.loads((folder.path / "chosen" / "choices.json").read_text())
    assert [choice["fold"] for choice in choices] == [0, 1]
    for choice in choices:
        run = folder.path / "chosen" / "chosen" / f"seed0-fold{choice['fold']}"
        assert f" {choice['chosen'][0]} " in result(run)["command"]
        means = {one["overrides"][0]: one["mean"] for one in choice["candidates"]}
        assert means[choice["chosen"][0]] == max(means.values())
    words = ["chosen/chosen", "--resamples", "100", "--out", "summary"]
    done = folder.finish(folder.start(*words, script=ROOT / "scripts" / "summarize.py"))
    assert done.status == 0, done.stderr
    assert "120 test images of 10 people" in done.stdout


def test_the_same_command_again_runs_nothing(chosen, folder):
    again = nested(folder, "--out", "chosen")
    assert "8 of 8 runs done already" in again.stdout
    assert "2 of 2 runs done already" in again.stdout


def test_the_test_people_of_a_fold_have_no_influence_on_its_choice(chosen, folder):
    """Their images become noise: every inner result of the fold stays as it was, to the last digit."""
    faces = load(folder.path / "mine.npz")
    tested = KFold(0, 2)(faces.labels, faces.subjects, None).test
    noise = faces.images.copy()
    noise[tested] = np.random.default_rng(1).integers(0, 256, noise[tested].shape)
    Faces(**vars(faces) | {"images": noise}).save(folder.path / "noise.npz")
    printed = nested(folder, "--out", "noise", "--dry-run", data="noise.npz").stdout
    commands = [line.removeprefix("new").strip() for line in printed.splitlines() if "split.outer=0" in line]
    assert len(commands) == 4
    commands = commands[:2]  # both inner folds of one candidate; the others differ from them in the learning rate
    for command in commands:
        done = folder.printed(command)
        assert done.status == 0, done.stderr[-3000:]
        [out] = [word.partition("=")[2] for word in shlex.split(command) if word.startswith("output_dir=")]
        one, other = (result(folder.path / name / out.partition("/")[2]) for name in ("noise", "chosen"))
        assert one["metrics"] == other["metrics"]
        assert one["num_images"] == other["num_images"]
        predictions = [
            (folder.path / name / out.partition("/")[2] / "predictions.csv").read_text() for name in ("noise", "chosen")
        ]
        assert predictions[0] == predictions[1]
        sources = {line.partition(",")[0] for line in predictions[0].splitlines()[1:]}
        assert not sources & set(faces.sources[tested].tolist())
