"""A metric is added in one place: what is logged, compared and shown follows from the table."""

import csv
import json
from html import unescape

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from finished_runs import some_images, write_run
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from engrec import metrics
from engrec.callbacks import History
from engrec.config import mode
from engrec.data import DataModule
from engrec.evidence import comparison
from engrec.evidence.groups import read_groups
from engrec.evidence.statistics import FAST, Draws, scores
from engrec.metrics import METRICS, Metric, confusion_matrix
from engrec.modules.engagement import EngagementModule
from engrec.pages import report, tables
from engrec.pages.dashboard.records import Outputs
from engrec.runs.reading import read_history
from engrec.runs.record import find_runs
from engrec.search.space import _objective
from engrec.splits import Split


def kappa(logits, targets):
    counts = confusion_matrix(logits, targets)
    shares = counts / counts.sum()
    by_chance = (shares.sum(0) * shares.sum(1)).sum()
    return (shares.trace() - by_chance) / (1 - by_chance)


@pytest.fixture
def with_kappa(monkeypatch):
    monkeypatch.setitem(METRICS, "kappa", Metric("Cohen's κ", kappa))


def trained(folder, make_faces, epochs=()):
    """Test metrics of a small network; epochs: what the history has already, as that of a resumed run."""
    torch.manual_seed(0)
    module = EngagementModule(
        model={"_target_": "engrec.models.vgg.VGG", "image_size": 16, "norm": "none", "width": 0.05, "dense": []},
        optimizer={"_target_": "torch.optim.SGD", "lr": 0.05},
        lr_scheduler={},
        class_names=["class0", "class1"],
        preprocessing={"channels": 1, "height": 16, "width": 16, "normalize": "image"},
        class_counts=[6, 6],
    )
    split = Split(np.arange(12), np.arange(12, 17), np.arange(17, 24))
    data = DataModule(make_faces(), split, lambda images: images, 4)
    history = History(str(folder))
    history.epochs.extend(epochs)
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, callbacks=[history], **silent)
    trainer.fit(module, data)
    return trainer.test(module, data, verbose=False)[0]


@pytest.mark.usefixtures("with_kappa")
def test_an_added_metric_is_logged_and_can_be_monitored_and_searched_for(make_faces, tmp_path, compose):
    tested = trained(tmp_path, make_faces)
    assert np.isfinite(tested["test/kappa"])
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {"train/kappa", "val/kappa"} <= rows[0].keys()
    assert compose("stage=scratch", "monitor=val/kappa").callbacks.best.mode == mode("val/kappa") == "max"
    assert _objective({"metric": "val/kappa"}).direction == "maximize"


@pytest.mark.usefixtures("with_kappa")
def test_a_run_that_was_started_without_a_metric_is_resumed_with_it(make_faces, tmp_path):
    trained(tmp_path, make_faces, [{"epoch": 0, "lr": 0.05, "val/auc": 0.5}])
    columns = read_history(tmp_path / "metrics.csv")
    assert np.isnan(columns["val/kappa"]).tolist() == [True, False, False]
    assert columns["val/auc"][0] == 0.5


@pytest.mark.usefixtures("with_kappa")
def test_an_added_metric_is_compared_and_shown(tmp_path):
    images = some_images()
    for stage, seed in (("finetune", 0), ("scratch", 1)):
        folder = write_run(tmp_path / "runs" / stage, some_images(seed=seed), stage=stage)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"metrics": {"test/kappa": 0.25}}))
        (folder / "metrics.csv").write_text("epoch,lr,val/auc,val/kappa\n0,0.1,0.5,0.125\n1,0.1,0.75,0.5\n")
    blocks = comparison.build(read_groups(find_runs([tmp_path / "runs"])), 200)
    tables.write_tables(blocks, tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["score"] == "Cohen's κ" and not row["within"]]
    expected = cohen_kappa_score(images.labels, images.probabilities.argmax(1))
    assert float(found[0]["value"]) == pytest.approx(expected, rel=1e-5)
    assert all(float(row["low"]) < float(row["value"]) < float(row["high"]) for row in found)
    assert "Cohen's κ" in (tmp_path / "out" / "summary.md").read_text()
    assert "Cohen's κ" in unescape(report.html(blocks))
    outputs = Outputs(tmp_path / "runs")
    outputs.scan()
    for entry in outputs.runs.values():
        assert (entry.record["test"]["kappa"], entry.record["val"]["kappa"]) == (0.25, 0.5)
    assert [row["label"] for row in metrics.described() if row["key"] == "kappa"] == ["Cohen's κ"]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_draw_by_draw_the_tables_functions_say_what_the_fast_ones_do(num_classes, monkeypatch):
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(num_classes, size=60), rng.dirichlet(np.ones(num_classes), 60)
    draws = Draws.sample(rng.integers(8, size=60), 50)
    fast = scores(probabilities, labels, draws, ordered=True)
    assert FAST.keys() <= METRICS.keys()
    for key in list(FAST):
        monkeypatch.delitem(FAST, key)
    slow = scores(probabilities, labels, draws, ordered=True)
    assert list(slow) == list(fast)
    for label, values in fast.items():
        np.testing.assert_allclose(slow[label], values, rtol=1e-9, atol=1e-12, err_msg=label)


def test_directions_and_names_for_people():
    directions = {"val/auc": True, "loss": False, "val/loss": False, "ece": False, "val/qwk": True, "val/mae": False}
    assert {name: metrics.higher_is_better(name) for name in directions} == directions
    names = ("val/balanced_accuracy", "train/loss", "val/auc", "f1", "lr", "val/some_thing")
    expected = ["validation balanced accuracy", "train loss", "validation AUC", "F1", "lr", "validation some thing"]
    assert [metrics.display_name(name) for name in names] == expected
    assert json.loads(json.dumps(metrics.described())) == metrics.described()


LEVELS = ("low", "middle", "high")


def as_levels(folder, name="wacv2016", **fact):
    """The run's result says so."""
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"dataset": {"name": name, **fact}}))


@pytest.mark.parametrize("fact", [{"ordered": True}, {"levels": {"1": "low"}}, {}])
def test_levels_are_compared_by_metrics_of_their_own_and_other_classes_are_not(tmp_path, fact):
    images = some_images(class_names=LEVELS)
    for stage, seed in (("finetune", 0), ("scratch", 1)):
        predictions = some_images(class_names=LEVELS, seed=seed)
        as_levels(write_run(tmp_path / "runs" / stage, predictions, stage=stage), **fact)
    blocks = comparison.build(read_groups(find_runs([tmp_path / "runs"])), 200)
    tables.write_tables(blocks, tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        found = {row["score"]: float(row["value"]) for row in reversed(list(csv.DictReader(file))) if not row["within"]}
    page, predicted = unescape(report.html(blocks)), images.probabilities.argmax(1)
    labels = [METRICS[key].label for key in ("qwk", "mae")]
    for label in labels:
        assert (label in found) == (label in page) == bool(fact), label
    if fact:
        kappa = cohen_kappa_score(images.labels, predicted, weights="quadratic")
        expected = (kappa, mean_absolute_error(images.labels, predicted))
        assert [found[label] for label in labels] == pytest.approx(expected, rel=1e-5)


def test_metrics_of_levels_are_kept_apart():
    """They may be monitored; only classes in order are logged and compared by them."""
    of_levels = [key for key, metric in METRICS.items() if metric.ordered]
    assert of_levels == ["qwk", "mae", "mse"]
    assert set(metrics.logged()) >= {*of_levels, "auc", "loss"}
    assert set(metrics.scores(ordered=True)) - set(metrics.scores()) == set(of_levels)
    labels = {METRICS[key].label for key in of_levels}
    assert metrics.compared(ordered=True).keys() - metrics.compared().keys() == labels


def test_a_label_and_a_key_name_one_metric():
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    assert [key for key, metric in METRICS.items() if metric.function is None and not metric.of_people] == ["loss"]


def test_means_over_people_are_kept_apart():
    """They take more than logits and labels, so that nothing is logged or chosen by them."""
    of_people = [key for key, metric in METRICS.items() if metric.of_people]
    assert of_people == ["auc_within", "worst_people"]
    assert not set(of_people) & {*metrics.logged(), *metrics.scores(ordered=True)}
    labels = {METRICS[key].label for key in of_people}
    assert metrics.compared(of_people=True).keys() - metrics.compared().keys() == labels
    assert list(metrics.compared(of_people=True))[-1] == "ECE"  # the only one of which less is better
