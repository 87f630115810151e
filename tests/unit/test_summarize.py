"""Many runs become one number: the same however the test images were dealt out to runs."""

import csv
import json

import numpy as np
import pytest
import torch
from summarize import find_runs, pool, read_groups, summarize

from engrec import metrics

CLASSES = ["disengaged", "engaged"]


def write_run(folder, rows, stage="finetune", seed=0, model="vgg_small", subjects=True):
    """rows: (source, subject, label, probability of the second class)"""
    folder.mkdir(parents=True)
    choices = {"dataset": "er", "model": model, "split": "kfold", "augment": "none"}
    (folder / "result.json").write_text(json.dumps({"stage": stage, "seed": seed, "choices": choices}))
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "subject", "label", *(f"p_{name}" for name in CLASSES)])
        writer.writerows([s, who if subjects else "", CLASSES[y], f"{1 - p:.9g}", f"{p:.9g}"] for s, who, y, p in rows)


def some_rows(num_images=60, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3 > 0
    scores = np.clip(rng.uniform(0, 0.8, num_images) + 0.2 * labels + shift * labels, 0.01, 0.99)
    return [(f"image{i:03d}", f"s{i // 6}", int(labels[i]), scores[i]) for i in range(num_images)]


def figures(text, row=2):
    """The cells of accuracy, balanced accuracy, F1 and AUC in a row of the first table."""
    return [cell.strip() for cell in text.splitlines()[row].strip("| ").split("|")][5:]


def test_an_example_by_hand(tmp_path):
    """Two subjects. Right: a, b, d. Positive pairs ranked rightly: 0.9 > 0.2 0.6, 0.8 > 0.2 0.6, 0.4 > 0.2: 5 of 6.

    Balanced accuracy (2/3 + 1/2) / 2, F1 2·2 / (2·2 + 1 + 1), with the threshold at 0.5.
    """
    rows = [("a", "s1", 1, 0.9), ("b", "s1", 0, 0.2), ("c", "s1", 0, 0.6), ("d", "s2", 1, 0.8), ("e", "s2", 1, 0.4)]
    write_run(tmp_path / "run", rows)
    text = summarize(read_groups(find_runs([tmp_path])), 20)
    values = [cell.partition(" [")[0] for cell in figures(text)]
    assert values == ["60.0", f"{100 * (2 / 3 + 1 / 2) / 2:.1f}", f"{100 * 4 / 6:.1f}", f"{100 * 5 / 6:.1f}"]
    assert "| finetune | er   | vgg_small | 1    | 5 of 2 people |" in text


def test_the_figures_are_those_of_the_definitions(tmp_path):
    rows = some_rows()
    write_run(tmp_path / "run", rows)
    [group] = read_groups(find_runs([tmp_path]))
    second = torch.tensor([row[3] for row in rows], dtype=torch.float64)
    logits, labels = torch.stack([1 - second, second], 1).log(), torch.tensor([row[2] for row in rows])
    for metric in (metrics.accuracy, metrics.balanced_accuracy, metrics.f1, metrics.auc):
        assert group.score(metric, np.arange(60)) == pytest.approx(metric(logits, labels).item())


@pytest.mark.parametrize("num_folds", [2, 5])
def test_folds_pooled_are_one_run_whatever_their_order(tmp_path, num_folds):
    rows = some_rows()
    write_run(tmp_path / "one" / "run", rows)
    order = np.random.default_rng(1).permutation(len(rows))
    for fold in range(num_folds):
        write_run(tmp_path / "folds" / f"run{num_folds - fold}", [rows[i] for i in order[fold::num_folds]])
    whole, pooled = (summarize(read_groups(find_runs([tmp_path / name])), 50) for name in ("one", "folds"))
    assert figures(pooled) == figures(whole)
    assert f"| {num_folds} " in pooled.splitlines()[2]


def test_seeds_are_averaged_and_not_pooled(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"run{seed}", some_rows(seed=seed), seed=seed)
    [group] = read_groups(find_runs([tmp_path]))
    alone = [read_groups([tmp_path / f"run{seed}"])[0].score(metrics.auc, np.arange(60)) for seed in (0, 1)]
    assert alone[0] != alone[1]
    assert group.score(metrics.auc, np.arange(60)) == pytest.approx(np.mean(alone))
    assert group.num_runs == 2
    assert len(group.sources) == 60


def test_an_image_tested_twice_under_one_seed_is_refused(tmp_path):
    rows = some_rows()
    write_run(tmp_path / "a", rows[:40])
    write_run(tmp_path / "b", rows[39:])
    with pytest.raises(ValueError, match=r"b tests image039 again, which another run with seed=0 has tested"):
        read_groups(find_runs([tmp_path]))


def test_an_image_twice_in_one_file_is_refused(tmp_path):
    rows = some_rows()
    write_run(tmp_path / "a", [*rows, rows[7]])
    with pytest.raises(ValueError, match="image007"):
        read_groups(find_runs([tmp_path]))


def test_a_missing_fold_is_refused(tmp_path):
    rows = some_rows()
    write_run(tmp_path / "a0", rows[:30], seed=0)
    write_run(tmp_path / "b0", rows[30:], seed=0)
    write_run(tmp_path / "a1", rows[:30], seed=1)
    with pytest.raises(ValueError, match="finetune er vgg_small: not every seed has all folds"):
        read_groups(find_runs([tmp_path]))


def test_the_difference_is_paired(tmp_path):
    """Both predict the same but for ten images: the difference is certain to within those, unlike either figure."""
    rows = some_rows()
    better = [(s, who, y, 0.99 if y and i < 30 else p) for i, (s, who, y, p) in enumerate(rows)]
    write_run(tmp_path / "finetune", better)
    write_run(tmp_path / "scratch", rows, stage="scratch")
    text = summarize(read_groups(find_runs([tmp_path])), 400)
    [line] = [line for line in text.splitlines() if "finetune − scratch" in line]
    cells = [cell.strip() for cell in line.strip("| ").split("|")][1:]
    one, other = figures(text, 2), figures(text, 3)
    for difference, a, b in zip(cells, one, other, strict=True):
        a, b, value = (float(cell.split()[0]) for cell in (a, b, difference))
        assert value == pytest.approx(a - b, abs=0.11)  # of numbers rounded to 0.1
    low, high = (float(edge) for edge in cells[3].partition("[")[2].rstrip("]").split(","))
    assert 0 <= low <= float(cells[3].split()[0]) <= high
    widths = [
        np.ptp([float(edge) for edge in cell.partition("[")[2].rstrip("]").split(",")]) for cell in (one[3], other[3])
    ]
    assert high - low < max(widths)


def test_there_is_no_difference_between_other_test_images(tmp_path):
    write_run(tmp_path / "a", some_rows())
    write_run(tmp_path / "b", some_rows(54), stage="scratch")
    assert "difference" not in summarize(read_groups(find_runs([tmp_path])), 5)


def test_a_model_against_itself_differs_by_nothing(tmp_path):
    write_run(tmp_path / "a", some_rows())
    write_run(tmp_path / "b", some_rows(), model="vgg")
    text = summarize(read_groups(find_runs([tmp_path])), 20)
    assert text.splitlines()[-1].count("+0.0 [+0.0, +0.0]") == 4


def test_without_subjects_the_bootstrap_is_over_images(tmp_path):
    write_run(tmp_path / "with", some_rows())
    write_run(tmp_path / "without", some_rows(), subjects=False)
    groups = [read_groups([tmp_path / name])[0] for name in ("with", "without")]
    assert [group.by_subject for group in groups] == [True, False]
    assert [len(set(group.subjects)) for group in groups] == [10, 60]
    text = summarize(groups, 20)
    assert "60 of 10 people" in text
    assert "| 60  " in text


def test_confident_predictions_stay_finite(tmp_path):
    write_run(tmp_path / "run", [("a", "s1", 1, 1.0), ("b", "s1", 0, 0.0), ("c", "s2", 1, 1.0), ("d", "s2", 0, 0.0)])
    [group] = read_groups([tmp_path / "run"])
    assert group.score(metrics.auc, np.arange(4)) == 1
    assert group.logits.isfinite().all()


def test_no_finished_run_is_said(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        find_runs([tmp_path])


def test_pool_is_in_the_order_of_the_sources(tmp_path):
    rows = some_rows(12)
    write_run(tmp_path / "run", rows[::-1])
    group = pool(("finetune", "er", "vgg_small"), [(0, tmp_path / "run")])
    assert group.sources == [row[0] for row in rows]
    assert group.labels.tolist() == [row[2] for row in rows]
    assert group.subjects.tolist() == [row[1] for row in rows]
