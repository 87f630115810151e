"""Out-of-fold probabilities: joined by source whatever the order, and refused where they are none."""

import numpy as np
import pytest
from finished_runs import some_images, take, write_run

from engrec.datasets.prepared import Faces
from engrec.evidence.out_of_fold import out_of_fold

CLASSES = ("no", "yes")
TEACHERS = {"split._target_": "engrec.splits.Teachers"}


@pytest.fixture
def images():
    return some_images(30, CLASSES)


def faces_of(images, order=None):
    """The data set of these images, and of a tenth more that nobody predicts."""
    order = np.arange(len(images.labels)) if order is None else order
    more = np.arange(3)
    return Faces(
        images=np.zeros((len(order) + 3, 1, 4, 4), np.uint8),
        labels=np.concatenate([images.labels[order], more % 2]),
        class_names=images.class_names,
        sources=np.concatenate([images.sources[order], np.array([f"more{i}.png" for i in more])]),
        recipe={"name": "mine"},
    )


def write_folds(folder, images, num_folds=3, **settings):
    """A run for each fold, in its folder; each tests some of the images, in an order of its own."""
    rng = np.random.default_rng(7)
    for fold, part in enumerate(np.array_split(rng.permutation(len(images.labels)), num_folds)):
        given = {"choices": {"split": "teachers"}, "settings": TEACHERS, "data": "mine"} | settings
        write_run(folder / str(fold), take(images, part), **given | {"fold": fold, "stage": "pretrain"})
    return folder


def test_folds_are_pooled_and_each_image_gets_its_own_prediction(images, tmp_path):
    order = np.random.default_rng(1).permutation(30)
    found = out_of_fold([write_folds(tmp_path / "runs", images)], faces_of(images, order))
    assert sorted(found.index) == list(range(30))
    assert np.array_equal(found.probabilities, images.probabilities[order[found.index]])
    assert sorted(run.folder.name for run in found.runs) == ["0", "1", "2"]


def test_the_mean_is_over_seeds_and_networks(images, tmp_path):
    others = [some_images(30, CLASSES, seed=seed) for seed in (1, 2)]
    write_folds(tmp_path / "a", images)
    write_folds(tmp_path / "b", others[0], seed=1)
    write_folds(tmp_path / "c", others[1], num_folds=2, choices={"split": "teachers", "model": "cnn"})
    found = out_of_fold([tmp_path / name for name in "abc"], faces_of(images))
    expected = np.mean([images.probabilities, *(other.probabilities for other in others)], axis=0)
    assert found.probabilities == pytest.approx(expected[found.index])
    assert len(found.runs) == 8


def test_views_are_read_where_every_run_has_them(images, tmp_path):
    seen = some_images(30, CLASSES, seed=5)
    write_run(tmp_path / "a", images, stage="pretrain", views={"flip": seen})
    assert np.array_equal(out_of_fold([tmp_path], faces_of(images), "flip").probabilities, seen.probabilities)
    assert np.array_equal(out_of_fold([tmp_path], faces_of(images)).probabilities, images.probabilities)
    with pytest.raises(ValueError, match=r"not every run below .* has predictions_ten_crop\.csv: .*tta=ten_crop"):
        out_of_fold([tmp_path], faces_of(images), "ten_crop")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": {"split": "random"}}, r"split=random: its network knows the people"),
        ({"choices": {"split": "everyone"}}, r"split=everyone: its network knows the people"),
        ({"stage": "test"}, r"tested a checkpoint that may have been trained on these images: .*split=teachers"),
    ],
)
def test_runs_that_may_have_seen_their_test_images_are_refused(images, tmp_path, changed, message):
    write_run(tmp_path / "run", images, **{"stage": "pretrain"} | changed)
    with pytest.raises(ValueError, match=message):
        out_of_fold([tmp_path], faces_of(images))


def test_predictions_of_another_data_set_are_refused(images, tmp_path):
    write_folds(tmp_path, images)
    with pytest.raises(ValueError, match=r"have the classes no, yes, mine has a, b: set dataset\.classes"):
        out_of_fold([tmp_path], Faces(**vars(faces_of(images)) | {"class_names": ("a", "b")}))
    with pytest.raises(ValueError, match=r"predicted 2 images that mine does not have, such as image0028\.png"):
        out_of_fold([tmp_path], faces_of(images, np.arange(28)))
    labels = faces_of(images).labels.copy()
    labels[4] = 1 - labels[4]
    with pytest.raises(ValueError, match=r"as the label of image0004\.png, mine has"):
        out_of_fold([tmp_path], Faces(**vars(faces_of(images)) | {"labels": labels}))
    sources = np.array(["same.png"] * 33)
    with pytest.raises(ValueError, match="mine has two images of one source"):
        out_of_fold([tmp_path], Faces(**vars(faces_of(images)) | {"sources": sources}))


def test_an_image_that_two_folds_predict_is_refused(images, tmp_path):
    write_folds(tmp_path, images)
    again = {"choices": {"split": "teachers"}, "settings": TEACHERS, "data": "mine", "fold": 3}
    write_run(tmp_path / "3", take(images, np.arange(2)), "pretrain", **again)
    with pytest.raises(ValueError, match=r"were tested on the same images, such as image000"):
        out_of_fold([tmp_path], faces_of(images))


def test_networks_that_predict_different_images_are_refused(images, tmp_path):
    write_folds(tmp_path / "a", images)
    write_folds(tmp_path / "b", take(images, np.arange(20)), choices={"split": "teachers", "model": "cnn"})
    with pytest.raises(ValueError, match="runs of different images or labels"):
        out_of_fold([tmp_path], faces_of(images))


def test_a_folder_without_runs_and_a_damaged_file_are_named(images, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        out_of_fold([tmp_path / "nothing"], faces_of(images))
    write_folds(tmp_path / "runs", images)
    (tmp_path / "runs" / "1" / "predictions.csv").write_text("source,subject")
    with pytest.raises(ValueError, match=r"1/predictions\.csv has the columns"):
        out_of_fold([tmp_path / "runs"], faces_of(images))
