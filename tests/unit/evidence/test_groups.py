"""Runs read back: the same whatever their order, grouped by what differs, and each mistake named in one line."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_runs import (
    ARRAYS,
    CLASSES,
    comparisons_of,
    decided,
    some_images,
    take,
    unknown_people,
    write_predictions,
    write_run,
)

from engrec.evidence.groups import read_groups
from engrec.runs import record
from engrec.runs.record import STAGES, find_runs, read_predictions, read_run


def groups_of(folder):
    return read_groups(find_runs([folder]))


def names(groups, key="settings"):
    return [group.name[key] for group in groups]


def assert_same_images(found, expected):
    for name in ARRAYS[:-1]:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


# Reading


def test_what_a_run_writes_is_read_back(tmp_path, make_faces):
    faces = make_faces(12, 3, formats=np.array([f"PNG L {i}x9" for i in range(12)]))
    faces = replace(faces, sources=np.array([f'Zoë, "{i}" \n.png' for i in range(12)]), class_names=("a,", "p_b", "ü"))
    index, probabilities = [7, 2, 9, 11], np.random.default_rng(0).dirichlet(np.ones(3), 4)
    record.write_predictions(tmp_path / "predictions.csv", faces, index, probabilities.tolist())
    found = read_predictions(tmp_path / "predictions.csv")
    assert found.class_names == faces.class_names
    assert_same_images(found, faces.select(np.array(index)))
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-8)


def test_what_nobody_knows_is_empty(tmp_path, make_faces):
    record.write_predictions(tmp_path / "p.csv", make_faces(4, subjects=None), [0, 1], [[0.5, 0.5], [0, 1]])
    found = read_predictions(tmp_path / "p.csv")
    assert found.subjects.tolist() == found.formats.tolist() == ["", ""]


def test_files_without_a_format_column_are_read(tmp_path):
    (tmp_path / "p.csv").write_text("source,subject,label,p_a,p_b\nx.png,s1,b,0.25,0.75\n")
    found = read_predictions(tmp_path / "p.csv")
    assert (found.formats.tolist(), found.labels.tolist()) == ([""], [1])


def test_runs_are_found_once_at_any_depth(tmp_path):
    images = some_images()
    made = [write_run(tmp_path / name, images, seed=i) for i, name in enumerate(("a", "b/c/d", "b/e"))]
    (tmp_path / "unfinished").mkdir()
    assert [run.folder for run in find_runs([tmp_path, tmp_path / "b"])] == sorted(made)
    assert [run.folder for run in find_runs([tmp_path / "a"])] == [tmp_path / "a"]


# Pooling


@pytest.mark.parametrize("num_folds", [1, 7])
@pytest.mark.parametrize("order", [0, 1])
def test_folds_pooled_are_one_run_in_any_order_of_files_and_rows(tmp_path, num_folds, order):
    images = some_images(class_names=("a", "b", "c"))
    rows = np.random.default_rng(order).permutation(60)
    for fold in range(num_folds):
        folder = tmp_path / f"run{(fold * 3 + order) % 7}"
        write_run(folder, take(images, rows[fold::num_folds]), fold=fold)
    [group] = groups_of(tmp_path)
    assert_same_images(group, images)
    np.testing.assert_array_equal(group.probabilities, images.probabilities[None])
    assert (len(group.runs), group.seeds, group.class_names) == (num_folds, [0], ("a", "b", "c"))


def test_seeds_are_kept_apart_in_their_order(tmp_path):
    for folder, seed in (("a", 11), ("b", 2), ("c", 0)):
        order = np.random.default_rng(seed).permutation(60)
        write_run(tmp_path / folder, take(some_images(seed=seed), order), seed=seed)
    [group] = groups_of(tmp_path)
    assert group.seeds == [0, 2, 11]
    expected = [some_images(seed=seed).probabilities for seed in (0, 2, 11)]
    np.testing.assert_array_equal(group.probabilities, np.stack(expected))


def test_who_is_drawn(tmp_path):
    images = some_images()
    write_run(tmp_path / "known", images)
    write_run(tmp_path / "unknown", unknown_people(images), stage="scratch")
    partly = replace(images, subjects=np.where(np.arange(60) == 7, "", images.subjects))
    write_run(tmp_path / "partly", partly, stage="pretrain")
    of = {group.name["stage"]: group for group in groups_of(tmp_path)}
    pretrain, scratch, finetune = (of[stage] for stage in ("pretrain", "scratch", "finetune"))
    assert (finetune.by_subject, scratch.by_subject, pretrain.by_subject) == (True, False, False)
    np.testing.assert_array_equal(finetune.people, images.subjects)
    np.testing.assert_array_equal(scratch.people, images.sources)
    np.testing.assert_array_equal(pretrain.people, images.sources)


def test_calibrated_probabilities_follow_each_runs_temperature(tmp_path):
    images = some_images(seed=3)
    temperatures = {0: 0.4, 1: 1.0, 2: 2.5}
    expected = np.empty_like(images.probabilities)
    for fold, temperature in temperatures.items():
        write_run(tmp_path / str(2 - fold), take(images, slice(fold, None, 3)), fold=fold, temperature=temperature)
        powers = images.probabilities[fold::3] ** (1 / temperature)
        expected[fold::3] = powers / powers.sum(1, keepdims=True)
    [group] = groups_of(tmp_path)
    assert group.calibrated is not None
    np.testing.assert_allclose(group.calibrated, expected[None], rtol=1e-12)
    np.testing.assert_array_equal(group.probabilities, images.probabilities[None])


def test_certain_predictions_can_be_calibrated(tmp_path):
    images = some_images()
    write_run(tmp_path / "run", decided(images, images.labels), temperature=2.0)
    [group] = groups_of(tmp_path)
    assert group.calibrated is not None
    np.testing.assert_allclose(group.calibrated[0], np.eye(2)[images.labels], atol=1e-20)


def test_without_a_temperature_for_every_run_nothing_is_calibrated(tmp_path):
    images = some_images()
    write_run(tmp_path / "0", take(images, slice(0, 30)), temperature=2.0)
    write_run(tmp_path / "1", take(images, slice(30, 60)), fold=1)
    [group] = groups_of(tmp_path)
    assert group.calibrated is None


def test_controls_are_pooled_in_the_order_of_the_images(tmp_path):
    images, rows = some_images(), np.random.default_rng(0).permutation(60)
    controls = {name: some_images(seed=seed) for seed, name in ((7, "majority"), (8, "own"))}
    for fold in range(3):
        part = rows[fold::3]
        mixed = np.random.default_rng(fold).permutation(part)
        write_run(
            tmp_path / str(fold),
            take(images, part),
            fold=fold,
            controls={name: take(control, mixed) for name, control in controls.items() if fold or name == "majority"},
        )
    [group] = groups_of(tmp_path)
    assert list(group.controls) == ["majority"]  # the other is not there for every fold
    np.testing.assert_array_equal(group.controls["majority"], controls["majority"].probabilities)


# Groups


def test_folds_seeds_and_places_do_not_divide_runs(tmp_path):
    for seed in (0, 1):
        for fold in (0, 1):
            write_run(
                tmp_path / f"{seed}-{fold}",
                take(some_images(seed=seed), slice(30 * fold, 30 * fold + 30)),
                seed=seed,
                fold=fold,
                settings={"trainer.precision": f"{fold}-mixed", "logger.name": f"run{seed}", "monitor": "val/auc"},
            )
    [group] = groups_of(tmp_path)
    assert (len(group.runs), group.seeds, group.name["settings"]) == (4, [0, 1], "")


def test_what_every_run_says_of_itself_divides_them_in_the_order_of_the_stages(tmp_path):
    images = some_images()
    for i, stage in enumerate(("test", "finetune", "scratch", "pretrain", "baseline")):
        write_run(tmp_path / str(i), images, stage=stage)
    write_run(tmp_path / "model", images, choices={"model": "cnn"})
    write_run(tmp_path / "split", images, choices={"split": "random"})
    write_run(tmp_path / "data", images, data="other")
    found = [tuple(group.name[key] for key in ("stage", "model", "data", "split")) for group in groups_of(tmp_path)]
    stages = [name[0] for name in found]
    assert sorted(stages, key=STAGES.index) == stages
    assert set(stages) == set(STAGES)
    assert {name for name in found if name[0] == "finetune"} == {
        ("finetune", "vgg_small", "wacv2016", "kfold"),
        ("finetune", "cnn", "wacv2016", "kfold"),
        ("finetune", "vgg_small", "wacv2016", "random"),
        ("finetune", "vgg_small", "other", "kfold"),
    }


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"optimizer.lr": 0.01}, {"optimizer.lr": 0.1}, ["optimizer.lr=0.01", "optimizer.lr=0.1"]),
        ({"max_epochs": 4}, {}, ["max_epochs=12", "max_epochs=4"]),
        ({"module.class_weights": None}, {"module.class_weights": "balanced"}, None),
        ({"model.width": 0.5}, {}, ["model.width=0.25", "model.width=0.5"]),
        ({"augment.rotation": 8.0}, {}, ["augment.rotation=16.0", "augment.rotation=8.0"]),
        ({"split.num_folds": 10}, {}, ["split.num_folds=10", "split.num_folds=5"]),
        ({"split.seed": 1}, {}, ["split.seed=0", "split.seed=1"]),
        (
            {"dataset.exclude": ["blank", "conflicts"]},
            {},
            ["dataset.exclude=[blank,conflicts]", "dataset.exclude=null"],
        ),
        ({"dataset.classes": None}, {}, ["classes=all", "classes=disengaged,engaged"]),
        (
            {"dataset.classes.engaged": ["very_engaged"]},
            {},
            ["dataset.classes.engaged=[nominally_engaged,very_engaged]", "dataset.classes.engaged=[very_engaged]"],
        ),
    ],
)
def test_a_setting_that_differs_divides_runs_and_is_named(tmp_path, one, other, expected):
    """Whatever their seeds: seeds of different settings are never averaged."""
    for seeds in ((0, 0), (0, 1)):
        for folder, seed, settings in zip("ab", seeds, (one, other), strict=True):
            write_run(tmp_path / str(seeds) / folder, some_images(), seed=seed, settings=settings)
        expected = expected or ["module.class_weights=balanced", "module.class_weights=null"]
        assert names(groups_of(tmp_path / str(seeds))) == expected


def test_a_group_of_options_that_differs_is_named_alone_and_then_what_differs_inside(tmp_path):
    images, none = some_images(), {"flip": 0.0, "padding": 0}
    write_run(tmp_path / "a", images, choices={"augment": "none"}, settings={"augment": none})
    write_run(tmp_path / "b", images)
    assert names(groups_of(tmp_path)) == ["augment=none", "augment=paper"]
    write_run(tmp_path / "c", images, settings={"augment.rotation": 8.0, "optimizer.lr": 0.1})
    assert names(groups_of(tmp_path)) == [
        "augment=none optimizer.lr=0.05",
        "augment=paper augment.rotation=16.0 optimizer.lr=0.05",
        "augment=paper augment.rotation=8.0 optimizer.lr=0.1",
    ]


def test_an_option_that_a_run_of_an_older_version_does_not_name_leaves_no_gap(tmp_path):
    half = {"mixup": {"_target_": "engrec.transforms.Mixup", "alpha": 0.2}}
    write_run(tmp_path / "a", some_images(), choices={"mixup": "half"}, settings=half)
    write_run(tmp_path / "b", some_images())
    assert names(groups_of(tmp_path)) == ["", "mixup=half"]


def test_several_starts_on_the_same_folds_are_groups_of_their_own(tmp_path):
    for seed, start in ((0, "engrec:ferplus"), (1, "engrec:ferplus"), (0, "first.ckpt")):
        for fold in (0, 1):
            part = take(some_images(seed=seed), slice(30 * fold, 30 * fold + 30))
            folder = tmp_path / start / f"{seed}-{fold}"
            write_run(folder, part, seed=seed, fold=fold, settings={"init_from": start})
    one, other = groups_of(tmp_path)
    assert names([one, other], "start") == ["init_from=engrec:ferplus", "init_from=first.ckpt"]
    assert (one.seeds, len(one.runs), other.seeds, len(other.runs)) == ([0, 1], 4, [0], 2)


def test_several_checkpoints_tested_on_the_same_images_are_groups_of_their_own(tmp_path):
    for name, seed in (("a.ckpt", 0), ("b.ckpt", 0), ("b.ckpt", 1)):
        settings = {"init_from": None, "ckpt_path": name}
        write_run(tmp_path / f"{name}{seed}", some_images(seed=seed), stage="test", seed=seed, settings=settings)
    found = groups_of(tmp_path)
    assert names(found, "start") == ["ckpt_path=a.ckpt", "ckpt_path=b.ckpt"]
    assert [group.seeds for group in found] == [[0], [0, 1]]


def test_an_option_that_was_chosen_for_each_fold_is_one_group_and_named_so(tmp_path):
    for fold, name in ((0, "none"), (1, "strong")):
        part = take(some_images(), slice(30 * fold, 30 * fold + 30))
        more = {"augment.more": 1} if fold else {}
        settings = {"selected": ["augment"], **more}
        write_run(tmp_path / "chosen" / name, part, fold=fold, choices={"augment": name}, settings=settings)
    assert names(groups_of(tmp_path)) == [""]
    write_run(tmp_path / "fixed", some_images(), choices={"augment": "strong"})
    assert names(groups_of(tmp_path)) == ["augment=selected selected=[augment]", "augment=strong selected=null"]


@pytest.mark.parametrize("own", ["fold", "seed"])
def test_a_start_of_its_own_for_each_fold_or_seed_does_not_divide_runs(tmp_path, own):
    for seed in (0, 1):
        for fold in (0, 1):
            part = take(some_images(seed=seed), slice(30 * fold, 30 * fold + 30))
            start = f"{own}{fold if own == 'fold' else seed}.ckpt"
            write_run(tmp_path / f"{seed}-{fold}", part, seed=seed, fold=fold, settings={"init_from": start})
    assert names(groups_of(tmp_path)) == [""]


def test_a_fold_or_start_of_another_type_divides_runs_all_the_same(tmp_path):
    """A foreign config.yaml can have anything there."""
    for name in ("a", "b"):
        settings = {"init_from": [name], "split.fold": [0]}
        write_run(tmp_path / name, some_images(), settings=settings)
    assert names(groups_of(tmp_path), "start") == ["init_from=[a]", "init_from=[b]"]


def test_settings_are_compared_among_runs_of_one_kind_alone(tmp_path):
    write_run(tmp_path / "a", some_images(), settings={"optimizer.lr": 0.01})
    write_run(tmp_path / "b", some_images(), stage="scratch", settings={"optimizer.lr": 0.1})
    assert names(groups_of(tmp_path)) == ["", ""]


def test_runs_without_a_configuration_are_grouped_by_what_they_say(tmp_path):
    for seed in (0, 1):
        (write_run(tmp_path / str(seed), some_images(seed=seed), seed=seed) / "config.yaml").unlink()
    [group] = groups_of(tmp_path)
    assert group.seeds == [0, 1]


def test_augmented_predictions_are_a_group_of_their_own(tmp_path):
    images, flipped = some_images(), some_images(seed=1)
    for fold, views in ((0, ("flip", "ten_crop")), (1, ("flip",))):
        part = slice(fold, None, 2)
        write_run(
            tmp_path / str(fold),
            take(images, part),
            fold=fold,
            temperature=2.0,
            views={name: take(flipped, part) for name in views},
            controls={"majority": take(images, part)},
        )
    plain, flip = groups_of(tmp_path)  # the other is not there for every fold
    assert names([plain, flip], "views") == ["", "flip"]
    np.testing.assert_array_equal(plain.probabilities[0], images.probabilities)
    np.testing.assert_array_equal(flip.probabilities[0], flipped.probabilities)
    assert plain.same_images(flip)
    assert plain.calibrated is not None
    assert flip.calibrated is None  # the temperature is that of plain predictions


def test_same_images_is_what_allows_a_paired_difference(tmp_path):
    images = some_images()
    fewer, others = take(images, slice(0, 54)), replace(images, sources=np.char.add("x", images.sources))
    relabelled = replace(images, labels=1 - images.labels)
    kinds = {"same": images, "fewer": fewer, "others": others, "relabelled": relabelled}
    for name, kind in kinds.items():
        write_run(tmp_path / name, kind, choices={"model": name})
    write_run(tmp_path / "classes", some_images(class_names=("no", "yes")), choices={"model": "classes"})
    write_run(tmp_path / "again", some_images(seed=1), choices={"model": "again"})
    found = {group.name["model"]: group for group in groups_of(tmp_path)}
    assert [name for name, group in sorted(found.items()) if group.same_images(found["same"])] == ["again", "same"]


# Mistakes


def said(call):
    """What one ValueError says, on one line as it is shown."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    return str(error.value)


HEADER = "source,subject,format,label,p_disengaged,p_engaged\n"
GOOD = "a.png,s1,PNG L 1x1,engaged,0.25,0.75\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", " is empty or damaged: run it again, or remove that folder"),
        (HEADER, " has no predictions: run it again, or remove that folder"),
        ("\x00\x01\x02", " has the columns"),
        (b"\xff\xfe".decode("latin-1"), " has the columns"),
        (f"\x1b[2J,{HEADER}"[:9], r" has the columns \x1b[2J, "),
        (HEADER + '"a.png', " is empty or damaged"),
        (
            "source,label,p_a,p_b\nx,a,0.5,0.5\n",
            " has the columns source, label, p_a, p_b; needed, once each: source, ",
        ),
        ("source,subject,label,p_a\nx,,a,1\n", "; needed, once each: source, subject, label, p_CLASS, p_CLASS"),
        ("source,subject,label,p_a,p_a\nx,,a,0.5,0.5\n", "; needed, once each: "),
        (HEADER + GOOD + "b.png,s1,PNG\n", ", line 3: 3 cells, the header has 6"),
        (HEADER + GOOD + "\n", ", line 3: 0 cells, the header has 6"),
        (HEADER + GOOD + GOOD.replace("engaged", "bored"), ", line 3: label 'bored' has no column"),
        (
            HEADER + GOOD + GOOD.replace("a.png", "b.png") + GOOD,
            " lists a.png 2 times; each test image must appear once",
        ),
        (HEADER + GOOD + "b.png,s1,,engaged,0.5,half\n", ", line 3: could not convert string to float: 'half'; a prob"),
        (HEADER + GOOD + "b.png,s1,,engaged,,1\n", ", line 3: could not convert string to float: ''; a prob"),
        (HEADER + GOOD + "b.png,s1,,engaged,nan,0.5\n", ", line 3: [nan, 0.5] must be from 0 to 1 and sum to 1"),
        (HEADER + GOOD + "b.png,s1,,engaged,inf,0.5\n", ", line 3: [inf, 0.5] must be from 0 to 1 and sum to 1"),
        (HEADER + GOOD + "b.png,s1,,engaged,-0.5,1.5\n", ", line 3: [-0.5, 1.5] must be from 0 to 1 and sum to 1"),
        (HEADER + GOOD + "b.png,s1,,engaged,0.5,0.4\n", ", line 3: [0.5, 0.4] must be from 0 to 1 and sum to 1"),
    ],
)
def test_a_broken_prediction_file_is_named_with_the_line(tmp_path, text, expected):
    folder = write_run(tmp_path / "run", some_images())
    (folder / "predictions.csv").write_text(text)
    message = said(lambda: groups_of(tmp_path))
    assert message.startswith(str(folder / "predictions.csv"))
    assert expected in message
    assert "\n" not in message


def test_a_prediction_file_that_is_no_text_is_damaged(tmp_path):
    folder = write_run(tmp_path / "run", some_images())
    (folder / "predictions.csv").write_bytes(b"\xff\xfe\x80")
    assert said(lambda: groups_of(tmp_path)).startswith(f"{folder / 'predictions.csv'} is not text")


def test_predictions_may_be_a_link_and_no_pipe(tmp_path):
    folder = write_run(tmp_path / "run", some_images())
    (folder / "predictions.csv").rename(tmp_path / "kept.csv")
    (folder / "predictions.csv").symlink_to(tmp_path / "kept.csv")
    assert len(groups_of(tmp_path)) == 1
    (folder / "predictions.csv").unlink()
    os.mkfifo(folder / "predictions.csv")
    assert said(lambda: groups_of(tmp_path)).startswith(f"{folder / 'predictions.csv'} is not a plain file: run it")


def test_a_missing_prediction_file_is_named(tmp_path):
    folder = write_run(tmp_path / "run", some_images())
    (folder / "predictions.csv").unlink()
    expected = f"{folder / 'predictions.csv'} is missing: run it again, or remove that folder"
    assert said(lambda: groups_of(tmp_path)) == expected


GOOD_RESULT = {"stage": "scratch", "seed": 0, "choices": {"dataset": "d", "split": "s", "model": "m"}}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("", "is damaged (line 1: Expecting value"),
        ("{", "is damaged (line 1: Expecting property name"),
        ("[]", "is damaged (not a mapping of keys to values)"),
        ("null", "is damaged (not a mapping of keys to values)"),
        (b"\xff\xfe", "is not text"),
        (GOOD_RESULT | {"choices": []}, "is damaged (choices is a list: it must be a mapping)"),
        (GOOD_RESULT | {"dataset": "d"}, "is damaged (dataset is 'd': it must be a mapping)"),
        (GOOD_RESULT | {"dataset": {"name": ["d"]}}, "is damaged (dataset.name is a list: it must be text)"),
        (GOOD_RESULT | {"stage": "dance"}, "is damaged (stage is 'dance': it must be 'pretrain', 'finetune', "),
        (GOOD_RESULT | {"seed": "0"}, "is damaged (seed is '0': it must be a whole number)"),
        (
            GOOD_RESULT | {"calibration": {"temperature": 0}},
            "is damaged (calibration.temperature is 0: it ",
        ),
        (
            GOOD_RESULT | {"calibration": {"temperature": "1"}},
            "is damaged (calibration.temperature is '1'",
        ),
        (
            GOOD_RESULT | {"calibration": {"temperature": float("nan")}},
            "is damaged (calibration.temperature is nan",
        ),
        (
            {"stage": "scratch", "seed": 0},
            "lacks choices: another version of engrec wrote it; run it again, or remove that",
        ),
        ({"choices": {}}, "lacks seed, stage: another version of engrec wrote it"),
        (GOOD_RESULT | {"choices": {"dataset": "d"}}, "lacks model, split: another version of engrec wrote it"),
    ],
)
def test_a_broken_result_is_named(tmp_path, result, expected):
    text = result if isinstance(result, str | bytes) else json.dumps(result)
    folder = write_run(tmp_path / "run", some_images())
    (folder / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said(lambda: find_runs([tmp_path])).startswith(f"{folder / 'result.json'} {expected}")


def test_a_result_that_says_the_least_is_read(tmp_path):
    folder = write_run(tmp_path / "run", some_images())
    for more in ({}, {"calibration": None, "dataset": None}, {"calibration": {"temperature": None}}):
        (folder / "result.json").write_text(json.dumps(GOOD_RESULT | more))
        [group] = groups_of(tmp_path)
        assert group.name["data"] == "d"
        assert group.calibrated is None


@pytest.mark.parametrize("text", [b"", b"- 1", b"a: [", b"a: \xff", b"a: 2020-13-45", b"a: !!python/object:os.x {}"])
def test_a_broken_configuration_is_named(tmp_path, text):
    folder = write_run(tmp_path / "run", some_images())
    (folder / "config.yaml").write_bytes(text)
    message = said(lambda: read_run(folder))
    assert message.startswith(f"{folder / 'config.yaml'} is ")
    assert message.endswith(": run it again, or remove it")


def test_no_runs_and_no_folders_are_named(tmp_path):
    assert said(lambda: find_runs([tmp_path])) == f"no finished run (result.json) below {tmp_path}"
    gone, file = tmp_path / "gone", tmp_path / "file"
    file.touch()
    assert said(lambda: find_runs([tmp_path, gone, file])) == f"{gone}, {file}: no such folder"


def test_an_image_tested_by_two_runs_of_a_seed_is_refused_with_both_folders(tmp_path):
    images = some_images()
    one = write_run(tmp_path / "one", take(images, slice(0, 40)))
    two = write_run(tmp_path / "two", take(images, slice(39, 60)), fold=1)
    message = said(lambda: groups_of(tmp_path))
    assert message.startswith(f"{one} and {two} were tested on the same images, such as image0039.png")


def test_seeds_that_test_different_images_are_refused(tmp_path):
    images = some_images()
    for seed, folds in ((0, (0, 1)), (3, (0,))):
        for fold in folds:
            part = take(images, slice(30 * fold, 30 * fold + 30))
            write_run(tmp_path / f"{seed}-{fold}", part, seed=seed, fold=fold)
    assert said(lambda: groups_of(tmp_path)) == (
        "finetune wacv2016 kfold vgg_small: seeds 0 and 3 are tested on different images (30 differ, such as "
        "image0030.png): run the missing folds"
    )


@pytest.mark.parametrize(
    "other", [replace(some_images(), labels=1 - some_images().labels), some_images(class_names=(*CLASSES, "asleep"))]
)
def test_seeds_that_differ_in_labels_or_classes_are_refused(tmp_path, other):
    write_run(tmp_path / "0", some_images())
    write_run(tmp_path / "1", replace(other, labels=other.labels.clip(0, 1)), seed=1)
    assert said(lambda: groups_of(tmp_path)).endswith(": seeds 0 and 1 differ in classes or labels")


def test_seeds_of_other_people_are_not_averaged(tmp_path):
    write_run(tmp_path / "0", some_images())
    write_run(tmp_path / "1", some_images(per_subject=3), seed=1)
    assert "seeds 0 and 1 differ in the subjects of the images" in said(lambda: groups_of(tmp_path))


def test_rows_of_other_people_are_not_compared(tmp_path):
    """Their intervals would be over the people of whichever is first."""
    write_run(tmp_path / "0", some_images())
    write_run(tmp_path / "1", some_images(per_subject=3), stage="scratch")
    write_run(tmp_path / "2", unknown_people(some_images()), stage="test")
    assert [block.draws.num_groups for block in comparisons_of(tmp_path)] == [10, 20, 60]


def test_folds_that_differ_in_classes_are_refused(tmp_path):
    one = write_run(tmp_path / "0", take(some_images(), slice(0, 30)))
    two = write_run(tmp_path / "1", take(some_images(class_names=("no", "yes")), slice(30, 60)), fold=1)
    assert said(lambda: groups_of(tmp_path)) == f"{two} has the classes no, yes, but {one} has disengaged, engaged"


@pytest.mark.parametrize("view", ["controls/majority.csv", "predictions_flip.csv"])
def test_every_file_is_read_as_strictly(tmp_path, view):
    folder = write_run(tmp_path / "run", some_images())
    write_predictions(folder / view, some_images())
    groups_of(tmp_path)
    (folder / view).write_text(HEADER)
    assert said(lambda: groups_of(tmp_path)).startswith(f"{folder / view} has no predictions")


@pytest.mark.parametrize(
    "control",
    [
        take(some_images(), slice(0, 59)),
        replace(some_images(), labels=1 - some_images().labels),
        replace(some_images(), class_names=("no", "yes")),
    ],
)
def test_controls_of_other_images_are_refused(tmp_path, control):
    folder = write_run(tmp_path / "run", some_images(), controls={"majority": control})
    expected = f"{folder / 'controls' / 'majority.csv'} does not have the same images as predictions.csv"
    assert said(lambda: groups_of(tmp_path)) == expected


def test_a_folder_that_is_named_twice_is_read_once(tmp_path, monkeypatch):
    write_run(tmp_path / "run", some_images())
    monkeypatch.chdir(tmp_path)
    assert len(find_runs([Path(), tmp_path, tmp_path / "run"])) == 1


def test_what_chose_the_epoch_is_a_setting_and_where_it_was_written_is_not(tmp_path):
    images = some_images()
    for name, monitor in (("a", "val/auc"), ("b", "val/loss")):
        where = {"callbacks.best.dirpath": name, "callbacks.history.folder": name, "trainer.precision": name}
        write_run(tmp_path / name, images, settings={"monitor": monitor, **where})
    assert [group.name["settings"] for group in read_groups(find_runs([tmp_path]))] == [
        "monitor=val/auc",
        "monitor=val/loss",
    ]
