"""Self-distillation by the very commands of docs/training.md: teachers, a student, and suspicious labels."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
import torch
from commands import ROOT, Folder
from omegaconf import OmegaConf

from engrec.datasets.prepared import Faces, load

pytestmark = pytest.mark.slow
SMALL = [
    "model=vgg_small", "model.width=0.1", "augment=none", "batch_size=8", "max_epochs=5", "callbacks.ema.decay=0.5",
    "trainer=plain", "trainer.accelerator=cpu",
]  # fmt: skip
MISLABELLED = (4, 9, 30, 41)  # of the 60 pictures, each of which is in the training images twice
ODD = 120  # a training image that is a copy of a test image, and so left out


def documented(page, script):
    """The arguments of the commands in the section on self-distillation that start this script."""
    section = (ROOT / "docs" / page).read_text().partition("\n## Self-distillation\n")[2].partition("\n## ")[0]
    found = [shlex.split(line)[1:] for line in re.findall(r"^python .*$", section, re.MULTILINE)]
    return [words[1:] for words in found if words[0] == script]


def stripes(labels, rng):
    """Noisy stripes (N, 1, 16, 16), down in the first class and across in the second."""
    wave = np.where(np.arange(16) % 4 < 2, 60, 190)
    clean = np.where(labels[:, None, None] == 0, wave[None, None], wave[None, :, None])[:, None]
    return np.clip(clean + rng.normal(0, 40, (len(labels), 1, 16, 16)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With data/fer2013.npz: 60 pictures and their mirror images as training images, four of them mislabelled, one copy
    of a test image, and 20 validation and test images."""
    folder, rng = Folder(tmp_path_factory.mktemp("work")), np.random.default_rng(0)
    pictures, held = np.arange(60) % 2, np.arange(40) % 2
    images = np.concatenate([stripes(pictures, rng), stripes(held, rng)])
    given = np.where(np.isin(np.arange(60), MISLABELLED), 1 - pictures, pictures)
    (folder.path / "data").mkdir()
    Faces(
        images=np.concatenate([images[:60], images[:60, :, :, ::-1], images[-1:], images[60:]]),
        labels=np.concatenate([given, given, held[-1:], held]),
        class_names=("down", "across"),
        sources=np.array([f"{i:03d}.png" for i in range(161)]),
        recipe={"name": "fer2013", "importer": "test"},
        splits=np.array(["train"] * 121 + ["val"] * 20 + ["test"] * 20),
    ).save(folder.path / "data" / "fer2013.npz")
    return folder


def run(folder, *arguments):
    done = folder.command(*arguments)
    assert done.status == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def teachers(folder):
    command, _ = documented("training.md", "train.py")
    run(folder, *command, *SMALL)
    return folder.path / "outputs" / "teachers"


@pytest.fixture(scope="module")
def student(folder, teachers):
    _, command = documented("training.md", "train.py")
    run(folder, *command, *SMALL)
    return folder.path / "outputs" / "student"


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def probabilities(run):
    return np.array([float(row["p_down"]) for row in rows(run / "predictions.csv")])


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_folds_test_each_training_image_once_and_a_mirror_image_with_its_like(teachers):
    tested = [{int(row["source"][:3]) for row in rows(teachers / str(fold) / "predictions.csv")} for fold in range(5)]
    assert sorted(number for fold in tested for number in fold) == list(range(120))
    for fold in tested:
        assert fold == {(number + 60) % 120 for number in fold}
    assert all(result(teachers / str(fold))["metrics"]["test/accuracy"] > 0.7 for fold in range(5))


def test_the_student_has_learned_from_the_teachers_and_says_so(student, teachers):
    about = result(student)["dataset"]["distillation"]
    assert about["runs"] == [f"outputs/teachers/{fold}" for fold in range(5)]
    assert about["images"] == 120
    assert result(student)["num_images"] == {"train": 120, "val": 20, "test": 20}
    config = OmegaConf.load(student / "config.yaml")
    assert (config.distill.runs, config.distill.share) == ("outputs/teachers", 0.5)
    assert config.module.soft_labels is True
    assert "soft labels: share 0.5 of 5 teachers' probabilities" in (student / "train.log").read_text()
    saved = torch.load(student / "best.ckpt", weights_only=True)  # refuses all but plain values and tensors
    assert saved["hyper_parameters"]["soft_labels"] is True


def test_the_share_of_the_teachers_matters(folder, student):
    _, command = documented("training.md", "train.py")
    given = [word for word in command if not word.startswith("output_dir=")]
    run(folder, *given, *SMALL, "distill.share=1", "output_dir=outputs/all")
    one, other = (probabilities(path) for path in (student, folder.path / "outputs" / "all"))
    assert not np.allclose(one, other)


def test_the_same_command_again_finds_the_run_finished(folder, student):
    _, command = documented("training.md", "train.py")
    assert "is finished already" in run(folder, *command, *SMALL).stdout


def test_the_audit_ranks_the_mislabelled_images_first(folder, teachers):
    [command] = documented("training.md", "scripts/audit.py")
    done = folder.python(ROOT / "scripts" / "audit.py", *command, "--out", "audit")
    assert done.status == 0, done.stderr[-3000:]
    listed = rows(folder.path / "audit" / "suspicious.csv")
    assert len(listed) == 120
    first = {int(row["source"][:3]) % 60 for row in listed[: 2 * len(MISLABELLED)]}
    assert first == set(MISLABELLED)
    assert sum(row["suspicious"] == "yes" for row in listed[: 2 * len(MISLABELLED)]) >= len(MISLABELLED)
    assert "## Suspicious labels" in done.stdout
    page = (folder.path / "audit" / "audit.html").read_text()
    assert "Labelled down: " in page


def test_a_student_on_other_training_images_is_refused_in_one_line(folder, teachers):
    """Of all of them one has no teacher; on another split it tests images that its teachers know."""
    _, command = documented("training.md", "train.py")
    given = [word for word in command if not word.startswith("output_dir=")]
    done = folder.command(*given, *SMALL, "dataset.exclude=[]", "output_dir=outputs/refused")
    assert done.status == 1
    assert f"1 of 121 training images have no teacher, such as {ODD}.png" in done.stderr
    done = folder.command(*given, *SMALL, "split=random", "output_dir=outputs/refused")
    assert done.status == 1
    assert "that training leaves out here, such as" in done.stderr
    assert not (folder.path / "outputs" / "refused").exists()


def test_official_validation_and_test_images_have_no_influence_on_a_teacher(folder):
    """They become noise under other labels: all predictions stay as they were, to the last digit."""
    faces = load(folder.path / "data" / "fer2013.npz")
    held = faces.splits != "train"
    images, labels = faces.images.copy(), faces.labels.copy()
    images[held] = np.random.default_rng(1).integers(0, 256, images[held].shape)
    labels[held] = 1 - labels[held]
    Faces(**vars(faces) | {"images": images, "labels": labels}).save(folder.path / "data" / "noise.npz")
    for name in ("fer2013", "noise"):
        fold = ["experiment=fer2013", "split=teachers", "split.fold=1", "dataset.exclude=[]"]
        run(folder, *fold, *SMALL, "max_epochs=1", f"dataset.path=data/{name}.npz", f"output_dir={name}")
    one, other = ((folder.path / name / "predictions.csv").read_text() for name in ("fer2013", "noise"))
    assert one == other
