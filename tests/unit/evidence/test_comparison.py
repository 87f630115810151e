"""Groups compared: figures against scikit-learn, paired differences, tables that can be read back."""

import csv
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from finished_runs import (
    comparison_of,
    comparisons_of,
    decided,
    majority,
    right_for,
    some_images,
    take,
    unknown_people,
    write_run,
)
from scipy import stats
from sklearn import metrics as sk

from engrec.evidence import comparison
from engrec.metrics import compared
from engrec.pages import tables

SEEDS = (0, 1, 2)


# Figures


def test_an_example_by_hand(tmp_path):
    """Two people; right: a, b, d. Of the six pairs (positive, negative) five are ranked rightly.

    Balanced accuracy (2/3 + 1/2) / 2, F1 2·2 / (2·2 + 1 + 1). Confidence against accuracy, bin by bin: 0.9 right,
    0.8 right twice (b, d), 0.6 wrong twice (c, e).
    """
    p = np.array([0.9, 0.2, 0.6, 0.8, 0.4])
    images = replace(
        take(some_images(), slice(0, 5)),
        subjects=np.array(["s1", "s1", "s1", "s2", "s2"]),
        labels=np.array([1, 0, 0, 1, 1]),
        probabilities=np.stack([1 - p, p], 1),
    )
    write_run(tmp_path / "run", images)
    block = comparison_of(tmp_path)
    [figures] = block.figures.values()
    expected = (3 / 5, (2 / 3 + 1 / 2) / 2, 4 / 6, 5 / 6, (0.1 + 2 * 0.2 + 2 * 0.6) / 5)
    assert [figures[score].value for score in compared()] == pytest.approx(expected)
    assert block.title == "wacv2016, disengaged / engaged: 5 test images of 2 people, split kfold"


@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c")])
def test_figures_are_the_mean_over_seeds_of_what_scikit_learn_says(tmp_path, class_names):
    for seed in SEEDS:
        write_run(tmp_path / str(seed), some_images(class_names=class_names, seed=seed), seed=seed)
    figures = comparison_of(tmp_path).figures["finetune vgg_small"]
    average = "binary" if len(class_names) == 2 else "macro"
    each = []
    for seed in SEEDS:
        images = some_images(class_names=class_names, seed=seed)
        labels, p = images.labels, images.probabilities
        area = sk.roc_auc_score(labels, p[:, 1] if len(class_names) == 2 else p, multi_class="ovr")
        predicted = p.argmax(1)
        f1 = sk.f1_score(labels, predicted, average=average)
        each.append(
            [sk.accuracy_score(labels, predicted), sk.balanced_accuracy_score(labels, predicted), f1, float(area)]
        )
    for score, values in zip(compared(), np.transpose(each), strict=False):
        figure = figures[score]
        assert (figure.value, figure.sd) == pytest.approx((np.mean(values), stats.tstd(values)))
        assert figure.low < figure.value < figure.high


def test_seeds_narrow_the_interval_less_than_more_images_would(tmp_path):
    """The people are the same under every seed: three seeds are not three times as many people."""
    for seed in range(6):
        for many in (1, 6):
            if seed < many:
                write_run(tmp_path / str(many) / str(seed), some_images(240, seed=seed, per_subject=12), seed=seed)
    one, six = (
        np.ptp([figure.low, figure.high])
        for many in (1, 6)
        for figure in [comparison_of(tmp_path / str(many)).figures["finetune vgg_small"]["accuracy"]]
    )
    assert six < one
    assert comparison_of(tmp_path / "6").draws.num_groups == 20


def test_the_interval_is_over_people_where_they_are_known_and_over_images_elsewhere(tmp_path):
    """A model that is right with half of the people and wrong with the others."""
    images = some_images(120)
    good = np.arange(120) // 6 % 2 == 0
    clustered = decided(images, np.where(good, images.labels, 1 - images.labels))
    write_run(tmp_path / "people" / "run", clustered)
    write_run(tmp_path / "images" / "run", unknown_people(clustered))
    people, unknown = comparison_of(tmp_path / "people"), comparison_of(tmp_path / "images")
    widths = [np.ptp([f.low, f.high]) for b in (people, unknown) for f in [b.figures["finetune vgg_small"]["accuracy"]]]
    assert widths[0] > 2 * widths[1]
    assert (people.draws.num_groups, unknown.draws.num_groups) == (20, 120)
    assert "bootstrap over 20 people" in tables.legend(people)
    assert "bootstrap over images (the data set has no subject ids)" in tables.legend(unknown)
    assert "of 20 people" in people.title
    assert "people" not in unknown.title
    assert unknown.subjects == []


def test_what_is_undefined_is_said(tmp_path):
    images = take(some_images(), some_images().labels == 1)
    write_run(tmp_path / "run", images)
    block = comparison_of(tmp_path)
    assert np.isnan(block.figures["finetune vgg_small"]["AUC"].value)
    [row] = tables.figure_rows(block)[1:]
    assert row[3 + list(compared()).index("AUC")] == ("undefined",)


def test_one_person_has_figures_without_intervals(tmp_path):
    write_run(tmp_path / "run", some_images(12, per_subject=12))
    block = comparison_of(tmp_path)
    _, row = tables.csv_text(tables.figure_rows(block)).splitlines()
    assert not re.search(r"\[|nan", row)
    assert "nan" not in tables.text([block])


# Labels and blocks


def test_labels_are_unique_and_say_what_differs(tmp_path):
    images = some_images()
    write_run(tmp_path / "0", images, views={"flip": images})
    write_run(tmp_path / "1", images, settings={"optimizer.lr": 0.01})
    write_run(tmp_path / "2", images, stage="scratch")
    write_run(tmp_path / "3", images, data="cropped", settings={"dataset.path": "data/cropped.npz"})
    block = comparison_of(tmp_path)
    assert sorted(block.labels) == [
        "finetune cropped vgg_small",
        "finetune wacv2016 vgg_small optimizer.lr=0.01",
        "finetune wacv2016 vgg_small optimizer.lr=0.05",
        "finetune wacv2016 vgg_small optimizer.lr=0.05 + flip",
        "scratch wacv2016 vgg_small",
    ]
    assert list(block.figures) == block.labels
    assert block.title.split(",")[0] in ("cropped and wacv2016", "wacv2016 and cropped")


def test_test_time_augmentation_is_named(tmp_path):
    write_run(tmp_path / "0", some_images(), views={"flip": some_images(seed=1), "ten_crop": some_images(seed=2)})
    expected = ["finetune vgg_small", "finetune vgg_small + flip", "finetune vgg_small + ten_crop"]
    assert comparison_of(tmp_path).labels == expected


def test_groups_on_other_images_are_blocks_of_their_own(tmp_path):
    images = some_images()
    write_run(tmp_path / "a", images)
    write_run(tmp_path / "b", images, stage="scratch")
    write_run(tmp_path / "c", take(images, slice(0, 54)), choices={"model": "cnn"})
    write_run(tmp_path / "d", images, choices={"split": "random"})
    blocks = comparisons_of(tmp_path)
    assert sorted(len(block.groups) for block in blocks) == [1, 1, 2]
    assert sum(len(block.differences) for block in blocks) == 1
    for block in blocks:
        assert len(block.groups) + len(block.others) == 4
        assert ("leakage check, not a result" in block.title) == (block.groups[0].name["split"] == "random")


# Differences


def test_a_copy_of_a_model_does_not_differ_from_it(tmp_path):
    for seed in SEEDS:
        write_run(tmp_path / f"a{seed}", some_images(seed=seed), seed=seed)
        write_run(tmp_path / f"b{seed}", some_images(seed=seed), seed=seed, choices={"model": "copy"})
    block = comparison_of(tmp_path)
    difference = block.differences[0]
    for figure, p in difference.figures.values():
        assert (figure.value, figure.low, figure.high, p) == (0, 0, 0, 1)
    assert difference.mcnemar == 1
    assert difference.cell("AUC") == ("+0.0", "[+0.0, +0.0]", "p = 1.000")


def test_differences_are_paired(tmp_path):
    """Two models that are right with half of the people, and one of them with one image more of each person: neither
    is known well, the difference is known to the last image."""
    images = some_images(120)
    right = np.arange(120) // 6 % 2 == 0
    one_more = right | (np.arange(120) % 6 == 0)
    for stage, which in (("scratch", right), ("finetune", one_more)):
        write_run(tmp_path / stage, decided(images, np.where(which, images.labels, 1 - images.labels)), stage=stage)
    block = comparison_of(tmp_path, 2000)
    names = "finetune vgg_small", "scratch vgg_small"
    figures = [block.figures[name]["accuracy"] for name in names]
    forth, back = block.difference(*names), block.difference(*names[::-1])
    figure, p = forth.figures["accuracy"]
    assert figure.value == pytest.approx(figures[0].value - figures[1].value) == pytest.approx(1 / 12)
    assert 0 < figure.low <= figure.value <= figure.high
    assert figure.high - figure.low < 0.3 * min(f.high - f.low for f in figures)
    assert p < 0.05
    mirrored, same_p = back.figures["accuracy"]
    assert (mirrored.value, mirrored.low, mirrored.high, same_p) == pytest.approx(
        (-figure.value, -figure.high, -figure.low, p)
    )
    assert forth.mcnemar == back.mcnemar == pytest.approx(2 * 0.5**10)  # ten images, all the same way


def test_every_pair_of_groups_is_compared_once(tmp_path):
    for i in range(7):
        write_run(tmp_path / str(i), some_images(seed=i), choices={"model": f"m{i}"})
    block = comparison_of(tmp_path, 100)
    assert len({frozenset((d.one, d.other)) for d in block.differences}) == 21
    assert len(tables.difference_rows(block)) == 1 + tables.MOST_DIFFERENCES
    assert f"{21 - tables.MOST_DIFFERENCES} more in differences.csv" in tables.difference_legend(block)


# Controls


def test_controls_stand_beside_the_models_in_the_usual_order(tmp_path):
    images = some_images()
    controls = {name: some_images(seed=i) for i, name in enumerate(("zebra", *reversed(comparison.CONTROLS), "ant"))}
    write_run(tmp_path / "a", images)
    write_run(tmp_path / "b", images, stage="scratch", controls=controls)
    block = comparison_of(tmp_path)
    assert list(block.figures) == [*block.labels, *comparison.CONTROLS.values(), "ant", "zebra"]
    for name, control in controls.items():
        shown = block.figures[comparison.CONTROLS.get(name, name)]["accuracy"]
        assert shown.value == sk.accuracy_score(control.labels, control.probabilities.argmax(1))
        assert np.isnan(shown.sd)


# Calibration, formats, subjects


def test_the_calibrated_error_is_that_of_the_tempered_probabilities(tmp_path):
    """One that is sure of everything and right for three of four: a high temperature makes it say so."""
    images = some_images(240)
    chosen = right_for(images, 0.75).probabilities.argmax(1)
    sure = replace(images, probabilities=np.where(np.eye(2)[chosen] > 0, 0.99, 0.01))
    temperature = np.log(0.99 / 0.01) / np.log(0.75 / 0.25)
    write_run(tmp_path / "run", sure, temperature=float(temperature))
    write_run(tmp_path / "other", sure, stage="scratch")
    block = comparison_of(tmp_path)
    assert block.figures["finetune vgg_small"]["ECE"].value == pytest.approx(0.99 - 0.75)
    assert block.calibrated == {"finetune vgg_small": pytest.approx(0, abs=1e-9)}
    header, *rows = tables.figure_rows(block)
    assert header[-1] == "ECE calibrated"
    assert {row[0]: row[-1] for row in rows} == {"finetune vgg_small": "0.0", "scratch vgg_small": ""}


def test_within_a_format_only_its_images_count(tmp_path):
    """A model that knows nothing but the format: good on the whole, at chance within each."""
    images = some_images(240)
    kinds = np.where(images.labels == 1, "PNG L 48x48", "JPEG L 48x48")
    odd = np.arange(240) % 5 == 0
    kinds[odd] = np.where(images.labels == 1, "JPEG L 50x48", "PNG L 50x48")[odd]
    chosen = np.char.startswith(kinds, "PNG").astype(int)
    write_run(tmp_path / "run", replace(decided(images, chosen), formats=kinds))
    block = comparison_of(tmp_path)
    assert block.figures["finetune vgg_small"]["balanced accuracy"].value > 0.7
    rows = block.within_formats
    assert [(label, kind) for label, kind, _, _ in rows] == [("finetune vgg_small", k) for k in ("JPEG L", "PNG L")]
    for _, kind, count, figures in rows:
        inside = np.char.startswith(kinds, kind)
        assert count == inside.sum()
        assert figures["accuracy"].value == sk.accuracy_score(images.labels[inside], chosen[inside])
        assert figures["balanced accuracy"].value == figures["AUC"].value == 0.5
    assert "Within each format" in tables.text([block])


def test_one_format_or_none_is_no_table(tmp_path):
    for name, kind in (("one", "PNG L 48x48"), ("none", "")):
        write_run(tmp_path / name / "run", replace(some_images(), formats=np.full(60, kind)))
        block = comparison_of(tmp_path / name)
        assert block.within_formats == []
        assert "Within each format" not in tables.text([block])


def test_the_table_of_subjects_by_hand(tmp_path):
    """s1 has two images and three right answers of four under two seeds; s2 one image, never right. The seeds' vote on
    the first image is a tie, which the first class has."""
    three = take(some_images(), slice(0, 3))
    three = replace(three, subjects=np.array(["s1", "s2", "s1"]), labels=np.array([1, 1, 0]))
    for seed, chosen in ((0, [1, 0, 0]), (1, [0, 0, 0])):
        control = {"majority": decided(three, [1, 1, 1])}
        write_run(tmp_path / str(seed), decided(three, chosen), seed=seed, controls=control)
    names = ("finetune vgg_small", "finetune vgg_small, vote of 2 seeds", "always the majority class")
    counts = ("subject", "images", "disengaged", "engaged")
    assert comparison_of(tmp_path).subjects == [
        dict(zip((*counts, *names), ("s1", "2", "1", "1", "75.0", "50.0", "50.0"), strict=True)),
        dict(zip((*counts, *names), ("s2", "1", "0", "1", "0.0", "0.0", "100.0"), strict=True)),
    ]


# Folds


def test_the_mean_of_the_folds_own_aucs_stands_beside_the_pooled_one(tmp_path):
    """Networks that rank perfectly, each on a scale of its own: pooled, one fold ranks above the other."""
    images = some_images()
    fold = np.arange(60) // 30
    p = np.where(fold == 0, 0.1, 0.6) + 0.3 * images.labels
    images = replace(images, probabilities=np.stack([1 - p, p], 1))
    for seed in (0, 1):
        for k in (0, 1):
            write_run(
                tmp_path / f"{seed}{k}",
                take(images, fold == k),
                seed=seed,
                fold=k,
                controls={"majority": take(images, fold == k)},
            )
    block = comparison_of(tmp_path, 100)
    assert block.fold_auc == {"finetune vgg_small": 1.0, "finetune vgg_small, vote of 2 seeds": 1.0}
    pooled = block.figures["finetune vgg_small"]["AUC"].value
    assert pooled == sk.roc_auc_score(images.labels, p) < 0.9
    header, model, vote, control = tables.figure_rows(block)
    at = header.index("AUC by fold")
    assert header[at - 1] == "AUC"
    assert (model[at], vote[at], control[at]) == ("100.0", "100.0", "")
    assert "“AUC by fold” is the mean of each fold's own AUC" in tables.legend(block)
    tables.write_tables([block], tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["mean of folds"]]
    assert [(row["name"], row["within"], row["score"], row["mean of folds"]) for row in found] == [
        ("finetune vgg_small", "", "AUC", "1"),
        ("finetune vgg_small, vote of 2 seeds", "", "AUC", "1"),
    ]


def test_a_fold_that_lacks_a_class_has_no_auc_of_its_own(tmp_path):
    images = some_images()
    ones = np.flatnonzero(images.labels == 1)[:10]
    rest = np.setdiff1d(np.arange(60), ones)
    write_run(tmp_path / "0", take(images, ones))
    write_run(tmp_path / "1", take(images, rest), fold=1)
    block = comparison_of(tmp_path, 100)
    expected = sk.roc_auc_score(images.labels[rest], images.probabilities[rest, 1])
    assert block.fold_auc["finetune vgg_small"] == pytest.approx(expected)


def test_one_fold_has_no_column_of_folds(tmp_path):
    for seed in SEEDS:
        write_run(tmp_path / str(seed), some_images(seed=seed), seed=seed)
    block = comparison_of(tmp_path, 100)
    assert block.fold_auc == {}
    assert "AUC by fold" not in tables.text([block])


# Votes


def test_a_vote_is_the_mean_of_the_probabilities_scored_as_one_predictor(tmp_path):
    for seed in SEEDS:
        write_run(tmp_path / f"a{seed}", some_images(seed=seed), seed=seed)
        write_run(tmp_path / f"b{seed}", some_images(seed=seed + 9), seed=seed, choices={"model": "cnn"})
    write_run(tmp_path / "one", some_images(seed=7), choices={"model": "alone"})
    block = comparison_of(tmp_path)
    vote, other = "finetune vgg_small, vote of 3 seeds", "finetune cnn, vote of 3 seeds"
    assert block.votes == {vote: "finetune vgg_small", other: "finetune cnn"}
    assert list(block.figures).index(vote) == list(block.figures).index("finetune vgg_small") + 1
    mean = np.mean([some_images(seed=seed).probabilities for seed in SEEDS], axis=0)
    labels, figures = some_images().labels, block.figures[vote]
    assert figures["AUC"].value == pytest.approx(sk.roc_auc_score(labels, mean[:, 1]))
    assert figures["accuracy"].value == pytest.approx(sk.accuracy_score(labels, mean.argmax(1)))
    assert figures["AUC"].low < figures["AUC"].value < figures["AUC"].high
    assert np.isnan(figures["AUC"].sd)
    pairs = [(difference.one, difference.other) for difference in block.differences]
    assert pairs[3:] == [(one, block.votes[one]) for one in block.votes] + [tuple(block.votes)]
    found = next(d for d in block.differences if (d.one, d.other) == (vote, "finetune vgg_small"))
    each = np.mean([sk.roc_auc_score(labels, some_images(seed=seed).probabilities[:, 1]) for seed in SEEDS])
    assert found.figures["AUC"][0].value == pytest.approx(figures["AUC"].value - each)
    assert "A vote is one predictor" in tables.legend(block)


def test_each_vote_on_an_image_is_of_the_run_that_tested_it(tmp_path):
    """Even where seeds divide people into other folds; then no fold's own network ranks the images of a vote."""
    for seed in (0, 1):
        images = some_images(seed=seed)
        for fold, inside in enumerate(np.array_split(np.roll(np.arange(60), 18 * seed), 3)):
            folder = tmp_path / f"{seed}{fold}"
            write_run(folder, take(images, np.sort(inside)), seed=seed, fold=fold)
    block = comparison_of(tmp_path)
    [vote] = block.votes
    expected = (some_images(seed=0).probabilities + some_images(seed=1).probabilities) / 2
    np.testing.assert_allclose(block.predictors[vote][0], expected)
    assert not block.groups[0].same_folds
    assert block.fold_auc.keys() == {"finetune vgg_small"}


# Worst people


def test_the_worst_people_are_those_of_the_nearest_neighbour_whatever_the_model(tmp_path):
    """Eight people, of whom the control is wrong about the last two, and the model about the first four."""
    images = some_images(48)
    person = np.arange(48) // 6
    control = decided(images, np.where(person >= 6, 1 - images.labels, images.labels))
    model = decided(images, np.where(person < 4, 1 - images.labels, images.labels))
    write_run(tmp_path / "run", model, controls={"nearest_neighbour": control, "majority": majority(images)})
    block = comparison_of(tmp_path)
    score = "balanced accuracy, worst people"
    values = {name: figures[score].value for name, figures in block.figures.items()}
    assert values == {
        "finetune vgg_small": 1,
        "always the majority class": 0.5,
        "nearest neighbour on pixels": 0,
    }
    assert block.worst_people == ["s06", "s07"]
    marked = {row["subject"]: row["among the worst people"] for row in block.subjects}
    assert [who for who, worst in marked.items() if worst == "yes"] == block.worst_people
    assert "mean over the 2 people, a quarter of all" in tables.legend(block)


def test_scores_of_people_are_not_there_where_people_are_not_known(tmp_path):
    images = some_images(48)
    write_run(tmp_path / "run", unknown_people(images), controls={"nearest_neighbour": unknown_people(images)})
    block = comparison_of(tmp_path)
    assert block.scores == list(compared())
    assert "person" not in tables.text([block])


# Transductive


def transductive(folder, images, given, **run):
    """A run of a baseline that was given frames of the people it is tested on."""
    written = write_run(
        folder,
        images,
        stage="baseline",
        choices={"model": f"features, given {given} unlabelled frames of the person"},
        settings={"baseline.name": "features", "baseline.transductive": given},
        **run,
    )
    result = json.loads((written / "result.json").read_text())
    (written / "result.json").write_text(json.dumps(result | {"transductive": given}))


def test_what_was_given_frames_of_the_tested_people_stands_apart(tmp_path):
    plain = {"baseline.name": "features", "baseline.transductive": None}
    write_run(tmp_path / "plain", some_images(), stage="baseline", choices={"model": "features"}, settings=plain)
    transductive(tmp_path / "all", some_images(seed=1), "all")
    transductive(tmp_path / "few", some_images(seed=2), 20)
    first, second = comparisons_of(tmp_path)
    assert first.labels == ["baseline features"]
    assert second.labels == [
        f"baseline features, given {given} unlabelled frames of the person" for given in (20, "all")
    ]
    assert "transductive" not in first.title
    assert second.title.endswith("(transductive: beside the results, not one of them)")


# Text and tables


@pytest.fixture
def varied(tmp_path):
    """Two blocks with everything in them: seeds, folds, controls, temperatures, formats, views, an odd name."""
    names = ("no|yes", 'a "b", c')
    images = some_images(class_names=names)
    for seed in (0, 1):
        for fold in (0, 1):
            for stage in ("finetune", "scratch"):
                part = slice(fold, None, 2)
                write_run(
                    tmp_path / "runs" / f"{stage}{seed}{fold}",
                    take(some_images(class_names=names, seed=seed), part),
                    stage=stage,
                    seed=seed,
                    fold=fold,
                    temperature=1.5 if stage == "finetune" else None,
                    views={"flip": take(images, part)},
                    controls={"majority": take(majority(images), part), "this|that": take(images, part)},
                )
    write_run(tmp_path / "runs" / "random", images, choices={"split": "random"})
    return comparisons_of(tmp_path / "runs")


def cells(line):
    return line.replace("\\|", "").strip("|").split("|")


def test_the_text_is_a_heading_and_whole_tables(varied):
    lines = tables.text(varied).splitlines()
    assert [line for line in lines if line.startswith("## ")] == [f"## {block.title}" for block in varied]
    found = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    whole = [table.strip().splitlines() for table in found if table.strip()]
    assert len(whole) == 2 + 1 + 2  # figures of both, differences of one, formats of both
    for table in whole:
        assert len({len(cells(line)) for line in table}) == 1
        assert len({len(line) for line in table}) == 1  # aligned
        assert set(table[1]) == {"|", "-"}
    assert "nan" not in tables.text(varied)


def test_the_tables_are_read_back_as_the_figures(varied, tmp_path):
    written = tables.write_tables(varied, tmp_path / "new" / "out")
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(path.name for path in written)
    assert (tmp_path / "new" / "out" / "summary.md").read_text() == tables.text(varied)
    read = {}
    for name in ("summary", "differences", "subjects"):
        with (tmp_path / "new" / "out" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            read[name] = list(csv.DictReader(file, strict=True))
    figures = {(row["test set"], row["name"], row["within"], row["score"]): row for row in read["summary"]}
    expected = {
        (block.title, name, within, score): (count, figure)
        for block in varied
        for name, within, count, of in [
            *((name, "", 60, of) for name, of in block.figures.items()),
            *block.within_formats,
        ]
        for score, figure in of.items()
    }
    assert figures.keys() == expected.keys()
    for key, (count, figure) in expected.items():
        row = figures[key]
        assert int(row["images"]) == count
        found = [float(row[column]) for column in ("value", "low", "high", "sd over seeds")]
        np.testing.assert_allclose(found, [figure.value, figure.low, figure.high, figure.sd], rtol=1e-5, atol=1e-12)
    differences = [(b.title, d.one, d.other, s) for b in varied for d in b.differences for s in b.scores]
    assert [(r["test set"], r["one"], r["other"], r["score"]) for r in read["differences"]] == differences
    d = varied[0].differences[0]
    figure, p = d.figures["accuracy"]
    found = [float(read["differences"][0][column]) for column in ("difference", "low", "high", "p", "mcnemar p")]
    np.testing.assert_allclose(found, [figure.value, figure.low, figure.high, p, d.mcnemar], rtol=1e-5)
    rows = [(block.title, row["subject"], row.items()) for block in varied for row in block.subjects]
    subjects = [(title, who, k, v) for title, who, items in rows for k, v in items if k != "subject"]
    assert [tuple(row.values()) for row in read["subjects"]] == subjects


def test_the_text_does_not_depend_on_the_order_of_the_runs(tmp_path):
    for order in (1, -1):
        for i, (stage, seed, fold) in enumerate(itertools.product(("finetune", "scratch"), (0, 1), (0, 1))):
            folder = tmp_path / str(order) / f"{order * i + 10:02d}"
            write_run(folder, take(some_images(seed=seed), slice(fold, None, 2)), stage=stage, seed=seed, fold=fold)
    assert tables.text(comparisons_of(tmp_path / "1")) == tables.text(comparisons_of(tmp_path / "-1"))


def test_names_have_what_differs_among_the_rows_of_one_table(tmp_path):
    """Not what divides them from the rows of another table."""
    for name, images, more in (
        ("a", some_images(120), {"optimizer.lr": 0.1}),
        ("b", some_images(120), {"optimizer.lr": 0.2}),
        ("c", some_images(60), {"optimizer.lr": 0.2, "batch_size": 8, "dataset.num_test": 60}),
    ):
        write_run(tmp_path / name, images, settings=more)
    blocks = comparisons_of(tmp_path)
    named = ["finetune vgg_small optimizer.lr=0.1", "finetune vgg_small optimizer.lr=0.2"]
    assert sorted(block.labels for block in blocks) == [["finetune vgg_small"], named]
