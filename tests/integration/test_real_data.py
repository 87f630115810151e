"""The importers on the data sets themselves, where they lie: ENGREC_DATA, else ../shared/data beside the repository."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import Folder

from engrec.datasets.prepared import Faces, excludable, load
from engrec.importers import er, fer2013, wacv2016

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ENGREC_DATA", ROOT.parent / "shared" / "data"))
CHALLENGE = {"angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "sad": 4830, "surprise": 3171, "neutral": 4965}
PREPARE = """
import json, os, sys, time, prepare
start = time.perf_counter()
status = prepare.main(sys.argv[1:])
seconds = time.perf_counter() - start
lines = open("/proc/self/status").readlines() if os.path.exists("/proc/self/status") else ["VmHWM: nan"]
peak = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"status": status, "seconds": seconds, "gib": peak / 2**20}))
"""


def real(name):
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in {DATA}: set ENGREC_DATA to the folder that holds it")
    return DATA / name


def run_prepare(*argv):
    """The script in a process of its own, so that its peak memory is its own; what it measured of itself."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", PREPARE, *map(str, argv)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def fer(tmp_path_factory):
    out = tmp_path_factory.mktemp("fer2013") / "fer2013.npz"
    return out, run_prepare("fer2013", real("fer2013.tar.gz"), "--out", out)


def counts(faces):
    return {
        split: dict(zip(faces.class_names, np.bincount(faces.labels[faces.splits == split]).tolist(), strict=True))
        for split in ("train", "val", "test")
    }


def test_fer2013_is_read_quickly_and_in_little_memory(fer):
    _, measured = fer
    assert measured["status"] == 0
    assert measured["seconds"] < 45  # 8 to 15 s on two quiet cores
    assert not measured["gib"] > 1.5  # nan where the system does not say


def test_fer2013_has_the_counts_of_the_challenge(fer):
    faces = load(fer[0])
    assert len(faces) == 35887
    assert {split: sum(classes.values()) for split, classes in counts(faces).items()} == {
        "train": 28709,
        "val": 3589,
        "test": 3589,
    }
    assert counts(faces)["train"] == CHALLENGE
    assert faces.images.shape == (35887, 1, 48, 48)


def test_fer2013_has_its_known_near_duplicates_and_placeholders(fer):
    faces = load(fer[0])
    assert Counter(faces.splits[faces.placeholders].tolist()) == {"train": 23, "val": 1, "test": 4}
    assert not faces.near_duplicates[faces.splits != "train"].any()
    assert excludable(faces)["near_duplicates"].sum() == 458  # exact copies aside


def test_prepared_fer2013_loads_in_a_moment(fer):
    load(fer[0])
    start = time.perf_counter()
    load(fer[0])
    assert time.perf_counter() - start < 1


@pytest.mark.slow
def test_fer2013_image_folders_agree_with_the_csv(fer):
    """Same counts, and per split and class the same mean face: neither turned, mirrored nor inverted."""
    one, other = load(fer[0]), Faces(**fer2013.read(real("fer2013_images.tar.xz")))
    assert counts(one) == counts(other)
    for split in ("train", "val", "test"):
        for label in range(7):
            means = [f.images[(f.splits == split) & (f.labels == label)].mean(0) for f in (one, other)]
            assert np.abs(means[0] - means[1]).mean() < 0.5 < np.abs(means[0] - means[1][..., ::-1]).mean()


def _by_name(votes):
    """The rows of FER+ under the number in the image's name, which is the row of this copy of FER-2013."""
    with votes.open(newline="") as file:
        rows = [(int(row["Image name"][3:10]), row) for row in csv.DictReader(file) if row["Image name"]]
    times = Counter(number for number, _ in rows)
    return {number: row for number, row in rows if times[number] == 1}


def test_ferplus_keeps_what_its_rule_keeps_and_has_the_votes_of_the_right_faces(fer, tmp_path):
    votes = real("fer2013new.csv")
    run_prepare("ferplus", real("fer2013.tar.gz"), votes, "--out", tmp_path / "ferplus.npz")
    faces = load(tmp_path / "ferplus.npz")
    rows = {f"fer2013.csv:{number + 2}": row for number, row in _by_name(votes).items()}
    for source, label in zip(faces.sources, faces.labels, strict=True):
        row = {k: int(v) for k, v in rows[source].items() if k not in ("Usage", "Image name") and int(v) > 1}
        best = max(row, key=row.__getitem__)
        assert (best, row[best] > sum(row.values()) / 2) == (faces.class_names[label], True)
    assert len(faces) > 31000
    ours = load(fer[0])
    emotion = dict(zip(ours.sources.tolist(), (ours.class_names[k] for k in ours.labels), strict=True))
    same = {"neutral": "neutral", "happiness": "happy", "surprise": "surprise", "sadness": "sad", "anger": "angry"}
    clear = [
        (emotion[s], same[faces.class_names[k]]) for s, k in zip(faces.sources, faces.labels, strict=True) if k < 5
    ]
    assert sum(a == b for a, b in clear) > 0.65 * len(clear)  # votes joined to the wrong faces agree on a fifth
    np.testing.assert_array_equal(faces.soft_labels.argmax(1), faces.labels)
    np.testing.assert_allclose(faces.soft_labels.sum(1), 1, rtol=1e-6)


def test_wacv2016_has_its_subjects_and_levels_and_no_colour():
    faces = Faces(**wacv2016.read(real("wacv2016.zip")))
    assert np.bincount(faces.labels).tolist() == [290, 2026, 1569]
    assert len(np.unique(faces.subjects)) == 17
    assert faces.images.shape == (3885, 1, 48, 48)
    assert faces.splits is None
    for source, subject in zip(faces.sources, faces.subjects, strict=True):
        misfiled = source.endswith("2/img12_1.jpg")  # shows subject 1
        assert (f"/img{int(subject.removeprefix('subject'))}_" in source) != misfiled


def test_er_sample_comes_back_to_rounding(tmp_path):
    """The sample has no engaged image, so it is refused as it stands; with one label changed it is a data set."""
    images, labels = np.load(real("er_sample") / "X_train.npy"), np.load(real("er_sample") / "Y_train.npy")
    assert labels.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="er_sample contains no image of class engaged"):
        er.read(DATA / "er_sample")
    np.save(tmp_path / "X_train.npy", images)
    np.save(tmp_path / "Y_train.npy", [0, 0, 0, 1])
    grey = er.read(tmp_path)["images"][:, 0].astype(float)
    grey -= grey.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(grey * 100 / np.linalg.norm(grey, axis=(1, 2), keepdims=True), images, atol=1e-12)


def test_the_experiments_run_on_real_faces(fer, tmp_path):
    """Expressions, then two folds of engagement, a few steps each; what they leave out, and whom they test on."""
    wacv, folder = tmp_path / "wacv2016.npz", Folder(tmp_path)
    run_prepare("wacv2016", real("wacv2016.zip"), "--out", wacv)
    few = ["model.width=0.05", "max_epochs=1", "trainer.accelerator=cpu", "+trainer.limit_train_batches=3"]
    long = ["experiment=fer2013", "model.widths=[8,8,16]", "max_epochs=3", *few[2:]]
    whole = folder.command(*long, f"dataset.path={fer[0]}", "output_dir=long")
    assert whole.status == 0, whole.stderr[-3000:]
    first = folder.command("experiment=fer2013_short", *few, f"dataset.path={fer[0]}", "output_dir=first")
    assert first.status == 0, first.stderr[-3000:]
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    assert result["num_images"]["test"] == 3589

    faces = load(fer[0])
    pixels = [image.tobytes() for image in faces.images]
    tested = {p for p, split in zip(pixels, faces.splits, strict=True) if split != "train"}
    labels = {}
    for p, label in zip(pixels, faces.labels, strict=True):
        labels.setdefault(p, set()).add(int(label))
    left_out = sum(
        split == "train" and (p in tested or image.std() < 1 or len(labels[p]) > 1)
        for p, image, split in zip(pixels, faces.images, faces.splits, strict=True)
    )
    assert result["dataset"]["excluded_from_training"]["images"] == left_out > 0
    assert result["num_images"]["train"] == 28709 - left_out

    options = ["experiment=wacv2016", long[1], "init_from=long/best.ckpt", f"dataset.path={wacv}", *few[1:]]
    second = folder.command("-m", *options, "split.fold=0,1", "hydra.sweep.dir=second")
    assert second.status == 0, second.stderr[-3000:]
    seen = []
    for fold in ("0", "1"):
        with (tmp_path / "second" / fold / "predictions.csv").open(newline="") as file:
            seen.append({row["subject"] for row in csv.DictReader(file)})
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]
