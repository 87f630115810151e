"""The audit on the data sets themselves, where they lie: what is known to be wrong with them is found."""

import csv
import time
from collections import Counter
from dataclasses import replace

import audit as script
import numpy as np
import pytest
from scipy.stats.contingency import association
from test_real_data import real, run_prepare

from engrec.datasets.prepared import Faces, load
from engrec.evidence.audit import audit
from engrec.importers import wacv2016


@pytest.fixture(scope="module")
def fer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    run_prepare("fer2013", real("fer2013.tar.gz"), "--out", folder / "fer2013.npz")
    start = time.process_time()
    script.main(["dataset=fer2013", f"dataset.path={folder / 'fer2013.npz'}", "--out", str(folder / "out")])
    return load(folder / "fer2013.npz"), folder / "out", time.process_time() - start


def test_fer2013_is_audited_in_less_than_two_minutes_of_one_thread(fer):
    _, out, seconds = fer
    assert seconds < 120  # 15 to 20 s
    assert (out / "audit.html").stat().st_size < 8e6


def test_fer2013_has_its_known_faults(fer):
    """Counted here once more from the bytes of the images, and held against the numbers as they were first counted."""
    faces, out, _ = fer
    by_pixels = {}
    for i, image in enumerate(faces.images):
        by_pixels.setdefault(image.tobytes(), []).append(i)
    groups = [group for group in by_pixels.values() if len(group) > 1]
    sides = Counter(frozenset(faces.splits[group].tolist()) for group in groups)
    with (out / "faults.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = (out / "audit.md").read_text()
    found = audit(faces)
    same = found.identical
    assert len(same) == len(groups) == 1503
    assert len(same.images) - len(same) == sum(map(len, groups)) - len(groups) == 1840
    assert "3,343 images in 1,503 groups: 1,840 superfluous" in text
    assert same.across_splits.sum() == sum(n for side, n in sides.items() if len(side) > 1) == 546
    assert same.joined["train", "test"] == sum(n for side, n in sides.items() if {"train", "test"} <= side) == 275
    assert same.joined == {("train", "val"): 264, ("train", "test"): 275, ("val", "test"): 41}
    assert same.conflicts.sum() == sum(len(set(faces.labels[group])) > 1 for group in groups) == 57
    assert found.near_leaks == found.excludable["near_duplicates"] == 458
    assert found.excludable["placeholders"] == 23
    assert len(found.blank) == sum(image.std() < 1 for image in faces.images) == 13
    assert Counter(row["fault"].removesuffix("_conflict") for row in rows)["identical"] == 3343


@pytest.mark.slow
def test_no_near_duplicate_of_a_sample_of_fer2013_is_missed(fer):
    """Against all correlations of 300 images that are in a pair and 700 others with all images."""
    faces, _, _ = fer
    found, rng = audit(faces), np.random.default_rng(0)
    others = np.setdiff1d(np.arange(len(faces)), np.concatenate((found.near.images, found.blank)))
    sample = np.concatenate((rng.choice(np.unique(found.near.images), 300, False), rng.choice(others, 700, False)))
    flat = faces.images.reshape(len(faces), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    scores = flat[sample] @ flat.T
    expected = set()
    for i, j in zip(*np.nonzero(scores >= found.near_from), strict=True):
        if not np.array_equal(faces.images[sample[i]], faces.images[j]):
            expected.add((min(sample[i], j).item(), max(sample[i], j).item()))
    pairs = found.near.images.reshape(-1, 2)
    assert expected == set(map(tuple, pairs[np.isin(pairs, sample).any(1)].tolist()))
    assert len(expected) > 300


def test_wacv2016_shows_an_image_under_the_wrong_person_and_formats_that_tell():
    """img12_1 is a frame of subject 1, where the importer puts it; colour files are commoner among the disengaged."""
    faces = Faces(**wacv2016.read(real("wacv2016.zip")))
    found = audit(faces)
    assert not found.near.across_subjects.any()
    filed = np.where(faces.sources == "dataset/2/img12_1.jpg", "subject12", faces.subjects)
    astray = audit(replace(faces, subjects=filed)).near
    strangers = astray.images.reshape(-1, 2)[astray.across_subjects]
    assert len(strangers) > 0
    assert {filed[i] for i in strangers.ravel()} == {"subject01", "subject12"}
    assert all("dataset/2/img12_1.jpg" in faces.sources[pair] for pair in strangers)
    kind = found.confounds[0]
    colour = np.array([" RGB " in f for f in faces.formats]).astype(int)
    table = np.zeros((2, 3), dtype=int)
    np.add.at(table, (colour, faces.labels), 1)
    assert kind.values == ("JPEG L", "JPEG RGB")
    assert kind.cramers_v == pytest.approx(association(table, method="cramer"))
    assert len(audit(replace(faces, subjects=None)).near) == len(found.near)
