"""Features of a frozen network against the network itself and scikit-learn; who may be centred by what."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from engrec.data import DataModule, seen
from engrec.evidence.features import CS, FrozenFeatures, centred, features_of, logistic, words
from engrec.modules.engagement import EngagementModule
from engrec.modules.expression import ExpressionModule
from engrec.splits import KFold, Split


def network(task=ExpressionModule, size=16, **more):
    torch.manual_seed(0)
    return task(
        model={"_target_": "engrec.models.vgg.VGG", "image_size": size, "norm": "batch", "width": 0.05, "dense": []},
        optimizer={"_target_": "torch.optim.SGD", "lr": 0.05},
        lr_scheduler={},
        class_names=["happy", "sad"],
        preprocessing={"channels": 1, "height": size, "width": size, "normalize": "image"},
        **more,
    )


def saved_of(module, **fields):
    name = f"{type(module).__module__}.{type(module).__name__}"
    given = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "module": name}
    return given | {"task": module.task, "dataset": "others", "seen": "0"} | fields


def frozen(given=None, seed=0, **fields):
    return FrozenFeatures("some.ckpt", saved_of(network(), **fields), given, seed)


def thirds(num_images):
    order = np.random.default_rng(1).permutation(num_images)
    return Split(*(np.sort(order[side::3]) for side in range(3)))


def test_they_are_what_the_head_is_given_in_a_test(make_faces):
    """Through the batches of a data module, the statistics of batch normalisation as they were saved."""
    module, faces = network(), make_faces(300)
    for _ in range(3):
        module.backbone.train()(torch.rand(8, 1, 16, 16))
    found = FrozenFeatures("some.ckpt", saved_of(module)).features(faces)
    module.eval()
    data = DataModule(faces, Split(*[np.arange(300)] * 3), lambda images: images, 8, eval_batch_size=7)
    with torch.inference_mode():
        batches = [data.on_after_batch_transfer(batch, 0)["images"] for batch in data.test_dataloader()]
        expected = torch.cat([module.backbone(images) for images in batches])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found, features_of(module.backbone, faces.images))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_logistic_regression_and_c_is_chosen_on_validation(make_faces, num_classes):
    faces, split = make_faces(240, num_classes), thirds(240)
    rng = np.random.default_rng(0)
    shift = np.array([1.0, 30.0, 1.0, 0.1])  # features of unlike size, which are standardised
    rows = (rng.normal(size=(240, 4)) + 0.7 * np.eye(4)[faces.labels]) * shift + 5
    mean, sd = rows[split.train].mean(0), rows[split.train].std(0)

    def probabilities(c, side):
        regression = LogisticRegression(C=c, class_weight="balanced")
        regression.fit((rows[split.train] - mean) / sd, faces.labels[split.train])
        return regression.predict_proba((rows[side] - mean) / sd)

    scores = [balanced_accuracy_score(faces.labels[split.val], probabilities(c, split.val).argmax(1)) for c in CS]
    found, chosen = logistic(faces, split, rows)
    assert chosen["c"] == CS[int(np.argmax(scores))]
    assert list(chosen["validation_balanced_accuracy"].values()) == pytest.approx(scores)
    expected = softmax(np.log(probabilities(chosen["c"], split.test)) / chosen["temperature"], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_each_person_is_centred_by_all_or_by_as_many_frames_as_are_given(make_faces):
    faces = make_faces(60, subjects=np.array([f"s{i % 4}" for i in range(60)]))
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    everyone = centred(rows, faces, "all")
    for who in range(4):
        own = np.arange(60) % 4 == who
        np.testing.assert_allclose(everyone[own], rows[own] - rows[own].mean(0), atol=1e-6)
    np.testing.assert_array_equal(centred(rows, faces, 15), centred(rows, faces, 99))  # each has 15
    np.testing.assert_allclose(centred(rows, faces, 15), everyone, atol=1e-6)
    few = centred(rows, faces, 3)
    for who in range(4):
        own = np.arange(60) % 4 == who
        moved = rows[own] - few[own]
        np.testing.assert_allclose(moved, moved[:1].repeat(15, 0), atol=1e-5)
    assert not np.allclose(few, everyone)
    np.testing.assert_array_equal(few, centred(rows, faces, 3, seed=0))
    assert not np.allclose(few, centred(rows, faces, 3, seed=1))


def test_no_label_decides_what_is_subtracted(make_faces):
    """Nor does the order of classes in a file: of the first frames in a class folder, the mean would be the class."""
    number = np.arange(80)
    faces = make_faces(80, labels=number // 40, subjects=np.full(80, "s0"))
    rows = faces.labels[:, None].astype(float)
    means = np.array([-centred(rows, faces, 20, seed)[0, 0] for seed in range(40)])
    assert abs(means.mean() - 0.5) < 0.06
    swapped = replace(faces, labels=1 - faces.labels)
    np.testing.assert_array_equal(centred(rows, swapped, 20), centred(rows, faces, 20))


def test_a_transductive_row_says_so():
    assert words("all") == "given all unlabelled frames of the person"
    assert frozen(20).row == "features, given 20 unlabelled frames of the person"
    assert frozen(1).row == "features, given 1 unlabelled frame of the person"
    assert frozen().row == "features"
    assert frozen("all").settings["transductive"] == "all"


def test_images_prepared_otherwise_are_refused(make_faces):
    with pytest.raises(ValueError, match=r"some\.ckpt was trained on images of 1×16×16.*these are 1×20×20"):
        frozen().check(make_faces(size=20), [])
    frozen().check(make_faces(), [])


def test_a_network_that_may_know_the_people_who_are_tested_is_refused(make_faces):
    faces = make_faces(60)
    splits = [KFold(fold, 3)(faces.labels, faces.subjects, None) for fold in range(3)]
    own = frozen(dataset="random", seen=seen(faces, splits[1]))
    own.check(faces, splits[1:2])
    for some in (splits, splits[:1], splits[1:]):
        with pytest.raises(
            ValueError, match="or its start was trained on random, perhaps on people who are tested here"
        ):
            own.check(faces, some)
    trained_after = frozen(
        dataset="others", before=[{"dataset": "random", "task": "expression", "seen": own.saved["seen"]}]
    )
    trained_after.check(faces, splits[1:2])
    with pytest.raises(ValueError, match="or its start was trained on random"):
        trained_after.check(faces, splits[:1])
    frozen(dataset="others", seen=seen(faces, splits[1])).check(faces, splits)


def test_synthetic_expressions_are_other_people_than_synthetic_engagement(make_faces):
    faces = make_faces(60, recipe={"name": "synthetic", "importer": "synthetic", "task": "engagement"})
    frozen(dataset="synthetic").check(faces, [thirds(60)])
    learnt = FrozenFeatures("some.ckpt", saved_of(network(EngagementModule, class_counts=[1, 1]), dataset="synthetic"))
    with pytest.raises(ValueError, match="or its start was trained on synthetic"):
        learnt.check(faces, [thirds(60)])


def test_people_without_ids_have_no_means(make_faces):
    faces = make_faces(subjects=None)
    frozen().check(faces, [])
    with pytest.raises(
        ValueError, match="random has no subject ids, so people have no means: leave out --transductive"
    ):
        frozen(20).check(faces, [])


def test_what_it_starts_from_is_asked_for_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"missing init_from, the checkpoint whose features to classify: init_from="):
        FrozenFeatures.read(None, None, 0)
    with pytest.raises(ValueError, match=r"gone\.ckpt cannot be opened"):
        FrozenFeatures.read(str(tmp_path / "gone.ckpt"), None, 0)
