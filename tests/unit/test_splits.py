from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from engrec.splits import (
    LEAKING,
    Everyone,
    Holdout,
    KFold,
    LeaveOneSubjectOut,
    Nested,
    Official,
    Random,
    Split,
    Teachers,
    check,
)

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "split").glob("*.yaml"))
pytestmark = pytest.mark.filterwarnings("ignore:The least populated class")


@st.composite
def people(draw, min_subjects=5):
    """labels, subjects and official sides of people of unequal size, each of whom is seen in every class."""
    num_subjects, num_classes = draw(st.integers(min_subjects, 9)), draw(st.integers(2, 4))
    sizes = draw(st.lists(st.integers(num_classes, 12), min_size=num_subjects, max_size=num_subjects))
    group = np.repeat(np.arange(num_subjects), sizes)
    labels = np.concatenate([np.arange(size) % num_classes for size in sizes])
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(group))
    names = np.array([f"p{number}" for number in range(num_subjects)])
    official = np.where(group < num_subjects - 1, "train", "test")
    return labels[order], names[group][order], official[order]


def ways(seed=0):
    return [Official(seed=seed), Holdout(seed=seed), KFold(1, seed=seed), LeaveOneSubjectOut(2, seed=seed), Random()]


@settings(max_examples=30, deadline=None)
@given(people(min_subjects=8), st.integers(0, 5))
def test_of_few_people_in_training_the_rest_are_in_no_part(data, seed):
    labels, subjects, _ = data
    whole = KFold(1, seed=seed)(labels, subjects, None)
    everyone = set(subjects[whole.train])
    known = set()
    for number in range(1, len(everyone) + 1):
        split = KFold(1, seed=seed, train_people=number)(labels, subjects, None)
        few = set(subjects[split.train])
        assert len(few) == number
        assert known < few <= everyone  # each of them has every class, so more are the same and others
        np.testing.assert_array_equal(split.train, whole.train[np.isin(subjects[whole.train], list(few))])
        np.testing.assert_array_equal(split.val, whole.val)
        np.testing.assert_array_equal(split.test, whole.test)
        check(split, labels, subjects, labels.max() + 1, False)
        known = few
    with pytest.raises(ValueError, match=rf"train_people={len(everyone) + 1} must be from 1 to {len(everyone)}, the p"):
        KFold(1, seed=seed, train_people=len(everyone) + 1)(labels, subjects, None)


def test_few_people_have_every_class_if_that_can_be():
    subjects = np.repeat(np.arange(12), 6)
    labels = np.where(subjects < 4, np.arange(72) % 2, 0)  # eight people are always of one class
    for seed in range(20):
        for fold in range(2):
            split = KFold(fold, 2, seed=seed, train_people=1)(labels, subjects, None)
            assert set(labels[split.train]) == {0, 1}


@settings(max_examples=30, deadline=None)
@given(people(), st.integers(0, 5))
def test_every_way_uses_every_image_once_and_passes_the_check(data, seed):
    labels, subjects, official = data
    for way in ways(seed):
        split = way(labels, subjects, official)
        for side in (split.train, split.val, split.test):
            assert side.dtype == np.int64
            assert np.array_equal(side, np.unique(side))
        every = np.concatenate((split.train, split.val, split.test))
        assert np.array_equal(np.sort(every), np.arange(len(labels)))
        check(split, labels, subjects, labels.max() + 1, way.leaks)


@settings(max_examples=20, deadline=None)
@given(people(min_subjects=8), st.integers(0, 5), st.booleans())
def test_nested_folds_divide_the_people_whom_the_outer_fold_does_not_test(data, seed, loso):
    labels, subjects, _ = data
    outer = LeaveOneSubjectOut(1) if loso else KFold(1, 4, seed=seed)
    tested = set(subjects[outer(labels, subjects, None).test])
    try:
        inner = [Nested(1, fold, None if loso else 4, 2, 0.3, seed)(labels, subjects, None) for fold in range(2)]
    except ValueError as error:  # where one person has so many images that a fold is that person
        assume("alone cannot be divided into two parts" not in str(error))
        raise
    for split in inner:
        seen = [set(subjects[side]) for side in (split.train, split.val, split.test)]
        assert set.union(*seen) == set(subjects) - tested
        assert sum(map(len, seen)) == len(set.union(*seen))
    assert set(subjects[inner[0].test]) | set(subjects[inner[1].test]) == set(subjects) - tested
    # As if the others were not in the data set at all.
    kept = np.flatnonzero(~np.isin(subjects, list(tested)))
    alone = KFold(0, 2, 0.3, seed)(labels[kept], subjects[kept], None)
    for side in ("train", "val", "test"):
        assert np.array_equal(kept[getattr(alone, side)], getattr(inner[0], side))


@settings(max_examples=20, deadline=None)
@given(people(min_subjects=8), st.integers(0, 5))
def test_teachers_test_each_official_training_image_once_and_use_no_other(data, seed):
    labels, groups, official = data
    official = np.where(groups == "p0", "val", official)
    train = np.flatnonzero(official == "train")
    folds = [Teachers(fold, 3, 0.3, seed)(labels, groups, official) for fold in range(3)]
    assert np.array_equal(np.sort(np.concatenate([split.test for split in folds])), train)
    for split in folds:
        assert np.array_equal(np.sort(np.concatenate((split.train, split.val, split.test))), train)
        seen = [set(groups[side]) for side in (split.train, split.val, split.test)]
        assert sum(map(len, seen)) == len(set.union(*seen))
        check(split, labels, groups, labels.max() + 1, leaks=False)


@settings(max_examples=10, deadline=None)
@given(people(min_subjects=8), st.integers(0, 5))
def test_labels_of_official_validation_and_test_images_do_not_move_a_teachers_fold(data, seed):
    labels, groups, official = data
    others = np.where(official == "train", labels, 1 - labels.clip(0, 1))
    one, two = (Teachers(1, 3, 0.3, seed)(given, groups, official) for given in (labels, others))
    for side in ("train", "val", "test"):
        assert np.array_equal(getattr(one, side), getattr(two, side))


@settings(max_examples=20, deadline=None)
@given(people(), st.integers(0, 5))
def test_same_seed_same_people_in_whatever_order_the_rows_are(data, seed):
    labels, subjects, official = data
    order = np.random.default_rng(0).permutation(len(labels))
    for way in ways(seed)[:-1]:
        one, two = way(labels, subjects, official), way(labels[order], subjects[order], official[order])
        for side in ("train", "val", "test"):
            assert set(subjects[getattr(one, side)]) == set(subjects[order][getattr(two, side)])
    for side in ("train", "val", "test"):
        one, two = (getattr(Random(seed=seed)(labels, subjects, official), side) for _ in range(2))
        assert np.array_equal(one, two)


@settings(max_examples=15, deadline=None)
@given(people(), st.integers(2, 5))
def test_folds_test_on_every_subject_once(data, num_folds):
    labels, subjects, _ = data
    tested = [np.unique(subjects[KFold(i, num_folds)(labels, subjects, None).test]) for i in range(num_folds)]
    assert sorted(np.concatenate(tested)) == sorted(set(subjects))
    names = np.unique(subjects)
    for fold, name in enumerate(names):
        split = LeaveOneSubjectOut(fold)(labels, subjects, None)
        assert np.array_equal(split.test, np.flatnonzero(subjects == name))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=80), st.floats(0.1, 0.5), st.integers(0, 5))
def test_random_deals_each_class_out_in_proportion(labels, fraction, seed):
    labels = np.array(labels)
    split = Random(fraction, 0.3, seed)(labels, None, None)
    for label, total in zip(*np.unique(labels, return_counts=True), strict=True):
        held, left = (labels[split.test] == label).sum(), (labels[split.train] == label).sum()
        assert abs(held - fraction * total) <= 1
        assert left > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(8, 30), st.integers(0, 5), st.floats(0.1, 0.5))
def test_holdout_takes_the_nearest_number_of_equal_subjects(num_subjects, seed, fraction):
    subjects, labels = np.repeat(np.arange(num_subjects), 4), np.tile([0, 0, 1, 2], num_subjects)
    split = Holdout(fraction, 0.2, seed)(labels, subjects, None)
    assert abs(len(split.test) / 4 - fraction * num_subjects) <= 0.5 + 1e-9 or len(split.test) == 4


def test_a_rare_class_stays_in_train():
    """Class 1 is seen in three of ten people: one each must train, validate and test."""
    subjects = np.repeat(np.arange(10), 10)
    labels = np.where((subjects < 3) & (np.arange(100) % 10 < 2), 1, 0)
    for seed in range(5):
        split = Holdout(seed=seed)(labels, subjects, None)
        assert [set(labels[side]) for side in (split.train, split.val, split.test)] == [{0, 1}] * 3


def test_classes_are_in_proportion_as_far_as_subjects_allow():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(40), 25)
    labels = (rng.random(1000) < rng.beta(1, 1, 40)[subjects]).astype(int)
    for seed in range(5):
        split = Holdout(seed=seed)(labels, subjects, None)
        for side in (split.train, split.val, split.test):
            assert abs(labels[side].mean() - labels.mean()) < 0.03


def test_seeds_choose_different_people():
    subjects, labels = np.repeat(np.arange(20), 4), np.tile([0, 1], 40)
    chosen = {tuple(np.unique(subjects[Holdout(seed=seed)(labels, subjects, None).test])) for seed in range(6)}
    assert len(chosen) > 3


def test_the_official_split_is_kept_and_completed():
    labels = np.tile([0, 1], 12)
    official = np.repeat(["train", "val", "test"], 8)
    split = Official()(labels, None, official)
    assert [side.tolist() for side in (split.train, split.val, split.test)] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 24)),
    ]
    split = Official(val_fraction=0.25)(labels, None, np.where(official == "val", "train", official))
    assert (len(split.train), len(split.val), split.test.tolist()) == (12, 4, list(range(16, 24)))


def test_only_random_leaks_and_its_split_is_refused_without_saying_so():
    labels, subjects = np.tile([0, 1], 50), np.repeat(np.arange(10), 10)
    assert [way.leaks for way in ways()] == [False] * 4 + [True]
    with pytest.raises(ValueError, match=r"train and val share subjects \(\d+, such as \d\): .*split=kfold"):
        check(Random()(labels, subjects, None), labels, subjects, 2, leaks=False)


@settings(max_examples=10, deadline=None)
@given(people())
def test_everyone_is_in_each_part_and_this_split_alone_may_use_an_image_twice(data):
    labels, subjects, official = data
    split = Everyone()(labels, subjects, official)
    for side in (split.train, split.val, split.test):
        assert np.array_equal(side, np.arange(len(labels)))
    check(split, labels, subjects, labels.max() + 1, Everyone.leaks)
    check(Everyone()(labels, None, None), labels, None, labels.max() + 1, Everyone.leaks)
    with pytest.raises(ValueError, match="train and val share subjects"):
        check(split, labels, subjects, labels.max() + 1, leaks=False)
    with pytest.raises(ValueError, match="image 0 is used 3 times"):
        check(Split(split.train, split.val, split.test), labels, subjects, labels.max() + 1, leaks=True)


def test_a_split_that_leaks_says_why_its_scores_are_no_result():
    for name, way in LEAKING.items():
        assert way.leaks
        assert way.caution.startswith(f"split={name} ")
        assert "not a result" in way.mark
    found = {path.stem: OmegaConf.load(path)["_target_"].rpartition(".")[2] for path in CONFIGS}
    assert {name: found[name] for name in LEAKING} == {name: way.__name__ for name, way in LEAKING.items()}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_splits(path):
    labels, subjects = np.tile([0, 1], 50), np.repeat(np.arange(10), 10)
    node = OmegaConf.load(path)
    way = instantiate(OmegaConf.merge(node, {"fold": 0}) if "fold" in list(node) else node)
    split = way(labels, subjects, np.where(subjects < 7, "train", "test"))
    check(split, labels, subjects, 2, way.leaks)


@pytest.mark.parametrize(
    ("way", "subjects", "message"),
    [
        (Official(), "p", r"no official split; set split=kfold split\.fold=0"),
        (Holdout(), None, r"has no subjects; prepare it with --subject-regex, .*split=random .*estimates"),
        (KFold(0), None, "the data set has no subjects"),
        (LeaveOneSubjectOut(0), None, "the data set has no subjects"),
        (KFold(5), "p", r"split\.fold=5 must be from 0 to 4"),
        (KFold(-1), "p", r"split\.fold=-1 must be from"),
        (KFold(0, num_folds=11), "p", r"split\.num_folds=11 for 10 subjects must be from 2 to 10"),
        (Teachers(0), "p", r"no official split, whose training images split=teachers divides; set split=kfold"),
        (LeaveOneSubjectOut(10), "p", r"split\.fold=10 must be from 0 to 9"),
        (Holdout(test_fraction=1.0), "p", r"split\.test_fraction=1\.0 must be above 0 and below 1"),
        (Random(val_fraction=0), "p", r"split\.val_fraction=0 must be above 0"),
        (LeaveOneSubjectOut(0), "two", "three or more subjects"),
    ],
)
def test_mistakes_are_named(way, subjects, message):
    labels, number = np.tile([0, 1], 20), {"p": 10, "two": 2, None: 0}[subjects]
    with pytest.raises(ValueError, match=message):
        way(labels, np.arange(40) % number if number else None, None)


def test_an_official_split_without_a_test_side_is_refused():
    with pytest.raises(ValueError, match="official split has no test; set split=holdout"):
        Official()(np.array([0, 1]), None, np.array(["train", "val"]))


def sides(train, val, test):
    return Split(*(np.array(side, dtype=np.int64) for side in (train, val, test)))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (sides([0, 1, 2, 3], [], [4, 5]), "no image in val"),
        (sides([0, 1, 2, 2], [4, 5], [6, 7]), "image 2 is used 2 times"),
        (sides([0, 1, 2, 3], [3, 4, 5], [6, 7]), "image 3 is used 2 times"),
        (sides([0, 1, 2], [4, 5], [3, 6, 7]), r"train and test share subjects \(1, such as p1\)"),
        (sides([0, 2], [4, 5], [6, 7]), "no image of class 1 in train"),
        (sides([0, 1], [4], [6, 7]), r"val has images of class 0 only, 1 in all.*larger split\.val_fraction"),
        (sides([0, 1], [2, 3], [4, 6]), r"test has images of class 0 only, 2 in all"),
    ],
)
def test_check_refuses(split, message):
    labels, subjects = np.tile([0, 1], 4), np.repeat(["p0", "p1", "p2", "p3"], 2)
    with pytest.raises(ValueError, match=message):
        check(split, labels, subjects, 2, leaks=False)


def test_one_test_subject_of_one_class_only_warns():
    labels, subjects = np.array([0, 1, 0, 1, 0, 0]), np.repeat(["p0", "p1", "p2"], 2)
    with pytest.warns(UserWarning, match="test has images of class 0 only, .*: AUC is undefined there; pool"):
        check(sides([0, 1], [2, 3], [4, 5]), labels, subjects, 2, leaks=False)
