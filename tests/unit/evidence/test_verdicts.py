"""What a comparison shows: which controls a model beats, which folds it lacks, what its leakage check says."""

import json
import shutil

import numpy as np
from finished_runs import comparison_of, comparisons_of, decided, majority, right_for, some_images, take, write_run

from engrec.evidence.verdicts import Verdict, judge


def verdicts(folder, share, controls=None, **run):
    """What is said of a model that is right for this share of each class, beside the majority class (two of three)."""
    images = some_images(240)
    controls = {"majority": majority(images)} if controls is None else controls
    write_run(folder / "run", right_for(images, share), controls=controls, **run)
    return without_folds(judge(comparison_of(folder)))


def without_folds(verdicts):
    """Without the remark that the one run here is not all of its folds."""
    return [verdict for verdict in verdicts if "1 of 5 folds; " not in verdict.text]


def test_folds_that_are_missing_are_said(tmp_path):
    images = some_images(240)
    for fold in range(5):
        found = judge(comparison_of(tmp_path)) if fold else []
        text = f"finetune vgg_small: {fold} of 5 folds; the people of the other folds are not tested."
        assert (Verdict("note", text) in found) == (fold > 0)
        write_run(tmp_path / str(fold), take(images, np.arange(fold, 240, 5)), fold=fold)
    assert not any("folds;" in verdict.text for verdict in judge(comparison_of(tmp_path)))


def test_people_who_are_missing_of_one_left_out_are_said(tmp_path):
    images = some_images(240)
    for fold in range(2):
        tested = take(images, np.arange(fold, 240, 5))
        run = write_run(tmp_path / str(fold), tested, fold=fold, choices={"split": "loso"})
        result = json.loads((run / "result.json").read_text())
        people = {"train": 14, "val": 2, "test": 1}
        (run / "result.json").write_text(json.dumps(result | {"num_people": people}))
    text = "finetune vgg_small: 2 of 17 folds; the people of the other folds are not tested."
    assert Verdict("note", text) in judge(comparison_of(tmp_path))


def test_a_model_that_wins_is_not_told_that_it_does_not(tmp_path):
    first = verdicts(tmp_path, 0.95)[0]
    assert first == Verdict(
        "beats",
        "finetune vgg_small beats “always the majority class” in accuracy (95.0 against 83.3) and in balanced accuracy "
        "(95.0 against 50.0).",
    )


def test_a_model_that_loses_is_told_so(tmp_path):
    first = verdicts(tmp_path, 0.4)[0]
    assert first == Verdict(
        "fails",
        "finetune vgg_small does NOT beat “always the majority class”: neither in accuracy (40.0 against 83.3) nor in "
        "balanced accuracy (40.0 against 50.0).",
    )


def test_a_model_that_wins_in_one_score_is_told_both(tmp_path):
    first = verdicts(tmp_path, 0.75)[0]
    assert first == Verdict(
        "fails",
        "finetune vgg_small beats “always the majority class” in balanced accuracy (75.0 against 50.0), but NOT in "
        "accuracy (75.0 against 83.3).",
    )


def test_being_better_by_chance_is_not_to_beat(tmp_path):
    """One image more than the majority class."""
    images = some_images(240)
    chosen = majority(images).probabilities.argmax(1)
    chosen[np.flatnonzero(images.labels == 0)[0]] = 0
    write_run(tmp_path / "run", decided(images, chosen), controls={"majority": majority(images)})
    block = comparison_of(tmp_path)
    assert (
        block.figures["finetune vgg_small"]["accuracy"].value
        > block.figures["always the majority class"]["accuracy"].value
    )
    first = judge(block)[0]
    assert (first.kind, "does NOT beat" in first.text) == ("fails", True)


def test_one_person_says_nothing_about_others(tmp_path):
    images = some_images(60, per_subject=60)
    write_run(tmp_path / "run", right_for(images, 0.95), controls={"majority": majority(images)})
    first = judge(comparison_of(tmp_path))[0]
    assert first == Verdict(
        "note",
        "finetune vgg_small against “always the majority class”: accuracy (96.7 against 83.3), balanced accuracy (98.0 "
        "against 50.0). A single test person allows no conclusion about others.",
    )


def test_the_oracle_of_each_person_is_a_control_of_its_own(tmp_path):
    images = some_images(240)
    oracle = right_for(images, 0.9, seed=1)
    lines = verdicts(tmp_path, 0.75, {"majority": majority(images), "subject_majority": oracle, "other": oracle})
    assert len(lines) == 3
    assert "does NOT beat “each person's own majority (oracle)”" in lines[1].text


def test_the_leakage_check_is_set_beside_its_model(tmp_path):
    images, leaky = some_images(240), some_images(120)
    write_run(tmp_path / "honest", right_for(images, 0.6))
    write_run(tmp_path / "random", right_for(leaky, 0.9), choices={"split": "random"})
    write_run(tmp_path / "other", right_for(leaky, 0.8), choices={"split": "random", "model": "cnn"})
    write_run(tmp_path / "scratch", right_for(images, 0.5), stage="scratch")
    write_run(tmp_path / "holdout", right_for(leaky, 0.5), stage="scratch", choices={"split": "holdout"})
    write_run(tmp_path / "first", right_for(images, 0.5), stage="pretrain")
    said = without_folds(line for block in comparisons_of(tmp_path) for line in judge(block))
    assert {verdict.kind for verdict in said} == {"note"}
    how = "To add one, run the same command with split=random, without split.fold=, into another folder."
    assert sorted(verdict.text for verdict in said) == [
        "finetune vgg_small, leakage check (split=random: the same people in train, validation and test): accuracy "
        "90.0 against 60.0, balanced accuracy 90.0 against 60.0, AUC 90.0 against 60.0 on unseen people.",
        *2 * [f"scratch vgg_small: no leakage check. {how}"],
    ]


def test_a_network_of_everyone_is_neither_judged_nor_a_leakage_check(tmp_path):
    images = some_images(240)
    write_run(tmp_path / "honest", right_for(images, 0.6))
    write_run(tmp_path / "everyone", right_for(images, 0.99), choices={"split": "everyone"})
    blocks = comparisons_of(tmp_path)
    said = without_folds(line for block in blocks for line in judge(block))
    [verdict] = said
    assert verdict.text.startswith("finetune vgg_small: no leakage check.")
    assert sorted("(on the training images, not a result)" in block.title for block in blocks) == [False, True]


def test_the_leakage_check_is_that_of_the_same_settings(tmp_path):
    images = some_images(240)
    for split, shares in (("kfold", (0.6, 0.6)), ("random", (0.8, 0.9))):
        for lr, share in zip((0.01, 0.1), shares, strict=True):
            folder = tmp_path / f"{split}{lr}"
            write_run(folder, right_for(images, share), choices={"split": split}, settings={"optimizer.lr": lr})
    said = without_folds(line for block in comparisons_of(tmp_path) for line in judge(block))
    assert [verdict.text.split("):")[1].split(",")[0] for verdict in said] == [
        " accuracy 80.0 against 60.0",
        " accuracy 90.0 against 60.0",
    ]


def given_frames(folder, images, given, start="first.ckpt"):
    model = "features" if given is None else f"features, given {given} unlabelled frames of the person"
    settings = {"baseline.name": "features", "baseline.transductive": given, "init_from": start}
    written = write_run(folder, images, stage="baseline", choices={"model": model}, settings=settings)
    result = json.loads((written / "result.json").read_text())
    (written / "result.json").write_text(json.dumps(result | {"transductive": given}))


def test_a_transductive_row_is_compared_with_the_same_model_without(tmp_path):
    images = some_images(240)
    given_frames(tmp_path / "given", right_for(images, 0.9), 20)
    about = (
        "baseline features, given 20 unlabelled frames of the person is transductive: it needs images of the very "
        "people it is tested on, though no labels."
    )
    [alone] = comparisons_of(tmp_path)
    expected = Verdict("note", f"{about} To compare, run the same command without --transductive.")
    assert judge(alone)[0] == expected
    given_frames(tmp_path / "other_start", right_for(images, 0.7, seed=1), None, "second.ckpt")
    assert judge(comparisons_of(tmp_path)[1])[0] == expected
    shutil.rmtree(tmp_path / "other_start")
    given_frames(tmp_path / "plain", right_for(images, 0.7, seed=1), None)
    write_run(tmp_path / "other", right_for(images, 0.8))
    plain, given = comparisons_of(tmp_path)
    first = judge(given)[0]
    assert first.kind == "note"
    assert first.text.startswith(f"{about} Minus baseline features, on the same images: balanced accuracy +20.0 [")
    assert not any("transductive" in verdict.text for verdict in judge(plain))


def with_result(folder, **more):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | more))


def test_what_may_know_the_test_is_said(tmp_path):
    run = write_run(tmp_path / "run", some_images(240))
    assert not any("trained before" in verdict.text for verdict in judge(comparison_of(tmp_path)))
    with_result(run, may_know_test=True)
    text = "trained before on the same data with another split; it may know people that are tested here."
    assert Verdict("note", f"finetune vgg_small: {text}") in judge(comparison_of(tmp_path))


def test_folds_of_several_versions_of_the_data_are_said(tmp_path):
    images = some_images(240)
    for fold, sha256 in enumerate(["a", "a", "b"]):
        run = write_run(tmp_path / str(fold), take(images, np.arange(fold, 240, 3)), fold=fold)
        with_result(run, dataset={"name": "mine", "sha256": sha256, "crop": {"size": 48}})
        said = [verdict.text for verdict in judge(comparison_of(tmp_path)) if "versions of the data" in verdict.text]
        assert len(said) == (fold == 2)
    assert "its runs have 2 versions of the data" in said[0]


def test_seeds_of_several_starts_are_said(tmp_path):
    images = some_images(240)
    for seed, start in enumerate(["engrec:expressions", "engrec:expressions", "engrec:ferplus"]):
        write_run(tmp_path / str(seed), images, seed=seed, settings={"init_from": start})
        said = [verdict.text for verdict in judge(comparison_of(tmp_path)) if "start from" in verdict.text]
        assert len(said) == (seed == 2)
    assert "its runs start from engrec:expressions and engrec:ferplus: seeds and folds of several recipes" in said[0]


def test_a_leakage_check_with_other_settings_names_them(tmp_path):
    images = some_images(240)
    write_run(tmp_path / "own", right_for(images, 0.7))
    known, other = {"split": "random"}, {"optimizer.lr": 0.2, "max_epochs": 60}
    write_run(tmp_path / "far", right_for(images, 0.9), choices=known, settings=other)
    [text] = [verdict.text for verdict in judge(comparisons_of(tmp_path)[0]) if "leakage check" in verdict.text]
    assert "(split=random, with another max_epochs, optimizer.lr: the same people in train" in text
    write_run(tmp_path / "near", right_for(images, 0.8), choices=known, settings={"max_epochs": 60})
    [text] = [verdict.text for verdict in judge(comparisons_of(tmp_path)[0]) if "leakage check" in verdict.text]
    assert "(split=random, with another max_epochs: the same people" in text


def test_an_undefined_score_is_no_failure(tmp_path):
    """AUC of three classes, where the test has two of them."""
    images = some_images(240, class_names=("low", "middle", "high"))
    images = take(images, images.labels > 0)
    right = decided(images, images.labels)
    controls = {name: decided(images, np.full(len(images.labels), 2)) for name in ("majority", "subject_majority")}
    write_run(tmp_path / "run", right, controls=controls)
    found = [verdict for verdict in judge(comparison_of(tmp_path)) if "beat" in verdict.text]
    assert [verdict.kind for verdict in found] == ["beats", "beats"]
    assert not any("nan" in verdict.text for verdict in found)
