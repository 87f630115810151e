"""A clip is one observation: the mean of its frames."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from finished_runs import some_images, write_run

from engrec.evidence import comparison
from engrec.evidence.clips import clip_metrics, per_clip
from engrec.evidence.controls import OF_CLIPS, controls
from engrec.evidence.groups import Group, read_groups
from engrec.evidence.verdicts import judge
from engrec.pages import report, tables
from engrec.runs.record import find_runs, read_predictions, write_predictions
from engrec.splits import Split

FRAMES = 4


@pytest.fixture(scope="module")
def frames():
    """60 clips of 10 people, each of 4 frames with one label and predictions of their own."""

    def frames(seed=0, **changed):
        clips, every = some_images(seed=seed, **changed), np.repeat(np.arange(60), FRAMES)
        weights = clips.probabilities[every] * np.random.default_rng(seed + 100).uniform(0.2, 1, (240, 2))
        arrays = {name: getattr(clips, name)[every] for name in ("subjects", "formats", "labels")}
        return replace(
            clips,
            sources=np.array([f"clip{i // FRAMES:02d}@{i % FRAMES}.000" for i in range(240)]),
            clips=np.array([f"clip{i:02d}" for i in every]),
            probabilities=weights / weights.sum(1, keepdims=True),
            **arrays,
        )

    return frames


@pytest.fixture
def groups(frames, tmp_path):
    """Two folds and two seeds of one stage, one run of another, with controls."""

    def groups(change=lambda images: images):
        for seed in (0, 1):
            for fold in (0, 1):
                images = change(frames(seed))
                part = np.isin(images.subjects, [f"s{i:02d}" for i in range(5 * fold, 5 * fold + 5)])
                arrays = ("sources", "subjects", "formats", "labels", "probabilities", "clips")
                some = replace(images, **{name: getattr(images, name)[part] for name in arrays})
                write_run(tmp_path / f"{seed}{fold}", some, seed=seed, fold=fold, controls={"majority": some})
        return read_groups(find_runs([tmp_path]))

    return groups


def test_a_row_is_the_mean_of_the_frames_of_a_clip(groups, frames):
    [group] = groups()
    [clips] = per_clip([group])
    assert (group.unit, clips.unit, len(clips.labels)) == ("images", "clips", 60)
    for seed in (0, 1):
        images = frames(seed)
        for name in ("clip00", "clip33", "clip59"):
            row, inside = clips.sources.tolist().index(name), images.clips == name
            np.testing.assert_allclose(clips.probabilities[seed, row], images.probabilities[inside].mean(0))
            assert clips.labels[row] == images.labels[inside][0]
            assert clips.subjects[row] == images.subjects[inside][0]
    assert clips.folds.shape == (2, 60)
    assert clips.controls["majority"].shape == (60, 2)
    assert clips.runs == group.runs


def test_per_clip_stands_beside_per_frame_with_intervals_over_people(groups, tmp_path):
    found = groups()
    frames, clips = comparison.build([*found, *per_clip(found)], 200)
    assert "240 test images of 10 people" in frames.title
    assert "60 test clips of 10 people" in clips.title
    assert frames.draws.num_groups == clips.draws.num_groups == 10
    label = clips.labels[0]
    right = clips.groups[0].probabilities.argmax(2) == clips.groups[0].labels
    assert clips.figures[label]["accuracy"].value == pytest.approx(right.mean())
    assert clips.figures[label]["accuracy"].value > frames.figures[label]["accuracy"].value  # frames vote
    tables.write_tables([frames, clips], tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert {row["images"] for row in csv.DictReader(file) if not row["within"]} == {"240", "60"}
    assert "test clips" in report.html([frames, clips])
    assert judge(clips)


def test_without_subjects_clips_are_drawn(groups):
    found = groups(lambda images: images)
    found = [replace(group, subjects=np.full(240, "")) for group in found]
    frames, clips = comparison.build([*found, *per_clip(found)], 200)
    assert frames.draws.num_groups == clips.draws.num_groups == 60
    for block in (frames, clips):
        assert "from a bootstrap over clips (the data set has no subject ids)" in tables.legend(block)


def test_groups_without_clips_are_left_out(tmp_path):
    write_run(tmp_path / "run", some_images())
    assert per_clip(read_groups(find_runs([tmp_path]))) == []


def test_a_clip_with_two_labels_is_refused(groups):
    [group] = groups()
    with pytest.raises(ValueError, match="the clip clip00 has several labels"):
        per_clip([replace(group, labels=np.arange(240) % 2)])


def test_the_metrics_of_clips_are_those_of_the_field(make_faces):
    """The mean squared error of EmotiW: labels 0, 1/3, 2/3 and 1, and the expected level of the mean of a clip."""
    labels = np.repeat([0, 1, 2, 3, 3, 1], 3)
    recipe = {"name": "engagewild", "levels": {"a": 0, "b": 0.33, "c": 0.66, "d": 1}}
    faces = replace(make_faces(18, labels=labels, size=4, num_classes=4), recipe=recipe)
    order = np.random.default_rng(0).permutation(18)
    faces = replace(faces, clips=np.repeat([f"clip{i}" for i in range(6)], 3)).select(order)
    test = np.flatnonzero(np.isin(faces.clips, ["clip1", "clip3", "clip5"]))
    split = Split(np.flatnonzero(faces.clips == "clip0"), np.flatnonzero(faces.clips == "clip2"), test[::-1])
    probabilities = np.random.default_rng(1).dirichlet([1] * 4, 9)
    logits = torch.from_numpy(np.log(probabilities))
    found = clip_metrics(faces, split, logits, torch.from_numpy(faces.labels[test]))
    means = np.stack([probabilities[faces.clips[test] == name].mean(0) for name in ("clip1", "clip3", "clip5")])
    expected = np.array([1, 3, 1]) / 3
    assert float(found["mse"]) == pytest.approx(((means @ (np.arange(4) / 3) - expected) ** 2).mean())
    assert float(found["mae"]) == pytest.approx(np.abs(means.argmax(1) - [1, 3, 1]).mean())
    assert float(found["accuracy"]) == pytest.approx((means.argmax(1) == [1, 3, 1]).mean())
    assert clip_metrics(replace(faces, clips=None), split, logits, torch.from_numpy(faces.labels[test])) == {}


def test_predictions_name_the_clip_where_there_are_any(make_faces, tmp_path):
    faces = make_faces(6, labels=np.array([0, 0, 1, 1, 0, 0]), subjects=np.array(["a"] * 6), size=4)
    clips = np.array(["x", "x", "y", "y", "z", "z"])
    for name, data in {"with": replace(faces, clips=clips), "without": faces}.items():
        write_predictions(tmp_path / name, data, [1, 3, 5], [[0.5, 0.5]] * 3)
    assert read_predictions(tmp_path / "with").clips.tolist() == ["x", "y", "z"]
    assert read_predictions(tmp_path / "without").clips is None
    (tmp_path / "odd").write_text((tmp_path / "with").read_text().replace(",y,", ",,"))
    with pytest.raises(ValueError, match="odd, line 3: the clip is empty"):
        read_predictions(tmp_path / "odd")
    assert (tmp_path / "without").read_text().startswith("source,subject,format,label,p_class0")


def test_controls_of_clips_count_each_clip_once(make_faces):
    """12 people, each with 3 disengaged clips of 2 frames and 2 engaged clips of 10 frames."""
    frames = np.array([2, 2, 2, 10, 10] * 12)
    clip = np.repeat(np.arange(60), frames)
    labels, people = np.array([0, 0, 0, 1, 1] * 12)[clip], np.array([f"s{i // 5:02d}" for i in range(60)])[clip]
    clips = np.array([f"clip{i:02d}" for i in range(60)])[clip]
    faces = make_faces(len(clip), labels=labels, subjects=people, clips=clips)
    tested = np.flatnonzero(people >= "s06")
    split = Split(np.flatnonzero(people < "s05"), np.flatnonzero(people == "s05"), tested)
    found = controls(faces, split)
    assert (found["majority"].argmax(1) == 1).all()  # of frames
    assert (found[OF_CLIPS].argmax(1) == 0).all()
    group = Group(
        faces.class_names,
        faces.sources[tested],
        people[tested],
        np.full(len(tested), ""),
        labels[tested],
        found["majority"][None],
        clips=clips[tested],
        name={"stage": "finetune", "model": "some", "split": "kfold", "views": "", "settings": ""},
        runs=[],
        seeds=[0],
        calibrated=None,
        folds=np.zeros((1, len(tested)), int),
        controls=found,
    )
    [per_frame] = comparison.build([group], 200)
    [per_clips] = comparison.build(per_clip([group]), 200)
    for block, accuracy in ((per_frame, 20 / 26), (per_clips, 0.6)):
        assert sorted(block.controls) == ["majority", "nearest_neighbour", "subject_majority"]
        for name in ("always the majority class", "each person's own majority (oracle)"):
            assert block.figures[name]["accuracy"].value == pytest.approx(accuracy)
