"""The dashboard: what it finds below a folder, what it says of damage, what it computes, and whom it answers."""

import asyncio
import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dashboard
import numpy as np
import optuna
import pytest
import yaml
from aiohttp.test_utils import TestServer
from finished_runs import CLASSES, some_images, take, write_run
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.metrics import confusion_matrix, roc_auc_score

from engrec.errors import errors_in_one_line
from engrec.evidence import comparison, groups
from engrec.machine import processes
from engrec.pages.dashboard import html, records, server, trials
from engrec.pages.dashboard.answers import Details, faces_of
from engrec.pages.dashboard.records import Outputs
from engrec.runs import reading, record, status
from engrec.search import outcome
from engrec.search.space import Objective, Sweep

SCRIPT = Path(dashboard.__file__)
HISTORY = "epoch,lr,train/loss,val/auc,val/loss\n0,0.1,1.0,0.5,0.9\n1,0.1,0.8,0.75,0.6\n2,0.05,0.7,0.7,0.5\n"
MARKUP = '<img src=x onerror="document.title=1">'


def finish(folder, **more):
    """A run as train.py leaves it: result.json with scores, metrics.csv."""
    result = json.loads((folder / "result.json").read_text())
    scores = {"metrics": {"test/accuracy": 0.8, "test/auc": 0.7}, "epochs": 3, "seconds": 12.5}
    scores["validation"] = {"epoch": 1, "val/auc": 0.75, "val/loss": 0.6}
    (folder / "result.json").write_text(json.dumps(result | scores | more))
    (folder / "metrics.csv").write_text(HISTORY)
    return folder


def made(folder, images=None, **given):
    return finish(write_run(folder, some_images() if images is None else images, **given))


def looked(root):
    outputs = Outputs(root)
    outputs.scan()
    return outputs


def records_of(outputs):
    return {entry.record["path"]: entry.record for entry in outputs.runs.values()}


def key(outputs, path):
    return next(k for k, entry in outputs.runs.items() if entry.record["path"] == path)


# What is found.


def test_runs_are_found_at_any_depth_and_told_with_what_they_are(tmp_path):
    made(tmp_path / "a" / "b" / "2026", seed=3, fold=2)
    made(tmp_path / "multirun" / "0", stage="scratch", choices={"model": "cnn"})
    found = records_of(looked(tmp_path))
    assert found.keys() == {"a/b/2026", "multirun/0"}
    run = found["a/b/2026"]
    told = {name: run[name] for name in ("stage", "dataset", "model", "split", "fold", "folds", "seed", "epochs")}
    assert told == {
        "stage": "finetune", "dataset": "wacv2016", "model": "vgg_small", "split": "kfold",
        "fold": 2, "folds": 5, "seed": 3, "epochs": 3,
    }  # fmt: skip
    assert (run["val"]["auc"], run["test"]["accuracy"], run["seconds"], run["best_epoch"]) == (0.75, 0.8, 12.5, 1)
    assert run["problems"] == []


def test_the_folder_may_be_a_run_itself(tmp_path):
    outputs = looked(made(tmp_path / "one"))
    assert list(records_of(outputs)) == ["."]
    version = outputs.version
    outputs.scan()
    assert outputs.since(version, outputs.token)["runs"] == []


def test_links_hidden_folders_and_what_is_no_run_are_passed_over(tmp_path):
    elsewhere = made(tmp_path / "elsewhere" / "run")
    root = tmp_path / "outputs"
    made(root / "run")
    made(root / ".hidden")
    (root / "audit").mkdir()
    (root / "audit" / "audit.md").write_text("# nothing")
    (root / "away").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    assert records_of(looked(root)).keys() == {"run"}


def test_only_what_has_changed_is_read_again_and_told(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        made(tmp_path / name)
    outputs = looked(tmp_path)
    first = outputs.since()
    assert (first["whole"], len(first["runs"])) == (True, 3)
    read = []
    from_files = records._from_files
    monkeypatch.setattr(
        records, "_from_files", lambda folder, *more: read.append(folder.name) or from_files(folder, *more)
    )
    (tmp_path / "two" / "metrics.csv").write_text(HISTORY + "3,0.05,0.6,0.9,0.4\n")
    (tmp_path / "two" / "result.json").unlink()
    for path in (tmp_path / "three").rglob("*"):
        path.unlink()
    outputs.scan()
    told = outputs.since(first["version"], first["token"])
    assert read == ["two"]
    assert [run["path"] for run in told["runs"]] == ["two"]
    assert (told["runs"][0]["epochs"], told["runs"][0]["val"]["auc"], told["whole"]) == (4, 0.9, False)
    assert [run["path"] for run in first["runs"] if run["id"] in told["gone"]] == ["three"]
    assert outputs.since(first["version"], "of another process")["whole"]


@pytest.mark.parametrize("state", ["running", "finished", "failed", "stopped"])
def test_a_run_is_in_the_state_that_its_status_says(tmp_path, state):
    folder = made(tmp_path / "run")
    said = status.Status(state, started=100.0, ended=None if state == "running" else 160.0, error="one\nline")
    status.write(folder, said)
    run = records_of(looked(tmp_path))["run"]
    assert (run["state"], run["started"], run["error"]) == (state, 100.0, "one line")


def test_runs_without_a_status_are_finished_if_they_have_a_result(tmp_path):
    made(tmp_path / "new")
    (made(tmp_path / "old") / "result.json").unlink()
    assert {path: run["state"] for path, run in records_of(looked(tmp_path)).items()} == {
        "new": "finished",
        "old": "unknown",
    }


def test_a_run_that_dies_is_noticed_though_no_file_changes(tmp_path):
    folder = made(tmp_path / "run")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    said = {"state": "running", "started": 1.0, "ended": None, "error": None, "command": None}
    said |= {"host": socket.gethostname(), "process": processes.process(process.pid)}
    (folder / "status.json").write_text(json.dumps(said))
    (folder / "result.json").unlink()
    outputs = looked(tmp_path)
    assert records_of(outputs)["run"]["state"] == "running"
    process.kill()
    process.wait()
    outputs.scan()
    assert records_of(outputs)["run"]["state"] == "failed"


def test_a_running_run_is_called_what_finished_ones_of_its_kind_are_called(tmp_path):
    made(tmp_path / "done", choices={"model": "vgg_small", "augment": "strong"})
    (made(tmp_path / "now") / "result.json").unlink()
    (made(tmp_path / "other", settings={"model.width": 1.0}) / "result.json").unlink()
    found = records_of(looked(tmp_path))
    assert (found["now"]["model"], found["now"]["choices"]["augment"]) == ("vgg_small", "strong")
    assert found["other"]["model"] == "vgg"
    assert found["now"]["group"] == found["done"]["group"] != found["other"]["group"]


def test_runs_that_differ_in_fold_and_seed_alone_are_one_group(tmp_path):
    made(tmp_path / "a", seed=0, fold=0)
    made(tmp_path / "b", seed=1, fold=3)
    made(tmp_path / "c", settings={"optimizer.lr": 0.5})
    found = records_of(looked(tmp_path))
    assert found["a"]["group"] == found["b"]["group"] != found["c"]["group"]


@pytest.mark.parametrize(("monitor", "epoch"), [("val/auc", 1), ("val/loss", 2), ("val/none", None)])
def test_the_best_epoch_of_a_run_that_goes_on(tmp_path, monitor, epoch):
    (made(tmp_path / "run", settings={"monitor": monitor}) / "result.json").unlink()
    assert records_of(looked(tmp_path))["run"]["best_epoch"] == epoch


# What is damaged.

DAMAGE = {
    "result.json": [
        (b'{"stage": "fine', "result.json is damaged (line 1: Unterminated string starting at)"),
        (b"[1, 2]", "result.json is damaged (no list of keys)"),
        (b"{}", "result.json is not that of a run"),
        (b"\xff\xfe\x00", "result.json is no text"),
        (b"[" * 100_000, "result.json is nested more deeply than any run writes"),
        (b"1" * 5000, "result.json is damaged"),
        (b" " * (2**22 + 1), "result.json has 4 MB, which no run writes"),
    ],
    "config.yaml": [
        (b"", "config.yaml is damaged (it has no settings)"),
        (b"stage: [", "config.yaml is damaged ("),
        (b"a: 1\n", "config.yaml is not that of a run"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nstage: scratch\n", "config.yaml has aliases (*name), which no run writes"),
        (b"[" * 5000, "config.yaml is damaged ("),
        (b"stage: !!python/object/apply:os.system [ls]\n", "config.yaml is damaged ("),
    ],
    "status.json": [
        (b'{"state": ["x"], "process": null}', "status.json cannot be read: ValueError"),
        (b'{"state": "run', "status.json cannot be read"),
        (b'{"state": "finished"}', "status.json cannot be read"),
        (b"[" * 50_000, "status.json cannot be read: RecursionError"),
        (b" " * (2**16 + 1), "status.json is no plain file, or larger than any run writes"),
    ],
}


@pytest.mark.parametrize(("name", "content", "said"), [(n, *case) for n, cases in DAMAGE.items() for case in cases])
def test_a_damaged_run_is_listed_with_what_is_wrong(tmp_path, name, content, said):
    made(tmp_path / "good")
    (made(tmp_path / "bad") / name).write_bytes(content)
    found = records_of(looked(tmp_path))
    assert found["bad"]["state"] == "damaged"
    assert any(problem.startswith(said) for problem in found["bad"]["problems"])
    assert "\n" not in "".join(found["bad"]["problems"])
    assert (found["good"]["state"], found["good"]["problems"]) == ("finished", [])


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n- 2\n- 3\nc:\n  d: null\n",
        "# said\n\na: 1\n---\n",
        "a: 'one\nb: two'\nc: 3\n",
        'a: "one\n\n  b: two"\nc: 3\n',
        "a: |\n  b: 1\n\n  c: 2\nd: 4\n",
        "a: 1\n'b': 2\na: 3\n1: 4\n",
        "{a: 1, b: 2}\n",
        "- a\n- b\n",
        "a: 1\nnot a key\n",
        "a: [1,\nb: 2]\n",
        "",
    ],
)
def test_a_configuration_read_in_parts_is_that_read_as_a_whole(text):
    def said(read):
        try:
            return read(text)
        except yaml.YAMLError:
            return "damaged"

    assert said(reading.by_section) == said(yaml.safe_load)


def test_a_history_counts_up_to_where_it_is_damaged(tmp_path):
    (made(tmp_path / "run") / "metrics.csv").write_text(HISTORY + "3,0.05,0.")
    outputs = looked(tmp_path)
    assert records_of(outputs)["run"]["problems"] == ["metrics.csv, line 5: 3 cells, the header has 5"]
    assert records_of(outputs)["run"]["state"] == "finished"
    columns = Details(outputs, True).answer("history", key(outputs, "run"))["columns"]
    assert columns["val/auc"] == [0.5, 0.75, 0.7]


def test_pipes_and_links_are_never_opened(tmp_path):
    secret = tmp_path / "secret.yaml"
    secret.write_text("stage: scratch\nsecret: 1\n")
    folder = made(tmp_path / "outputs" / "run")
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(secret)
    (folder / "train.log").symlink_to(secret)
    pipe = tmp_path / "outputs" / "pipe"
    pipe.mkdir()
    for name in ("result.json", "status.json", "metrics.csv"):
        os.mkfifo(pipe / name)
    outputs = looked(tmp_path / "outputs")
    found = records_of(outputs)
    assert "config.yaml is a link, which is not followed" in found["run"]["problems"]
    assert found["pipe"]["state"] == "damaged"
    texts = Details(outputs, True).answer("texts", key(outputs, "run"))
    assert "secret: 1" not in json.dumps(texts)


def test_whatever_a_run_says_becomes_plain_json(tmp_path):
    odd = {"a": float("nan"), "b": 10**400, "c": [1, {"x": 2}], "d": "x" * 10_000, "e": [float("inf")]}
    folder = made(tmp_path / "run", settings={"odd": odd})
    finish(folder, metrics={"test/accuracy": float("nan"), "test/auc": "high", "test/f1": True, "test/loss": 1e999})
    outputs = looked(tmp_path)
    run = records_of(outputs)["run"]
    json.dumps(run, allow_nan=False)
    assert list(run["test"].values()) == [None] * 5
    assert len(run["settings"]["odd.d"]) == reading.MOST_LETTERS


def test_answers_about_damaged_predictions_say_what_is_wrong(tmp_path):
    folder = made(tmp_path / "run")
    with (folder / "predictions.csv").open("a") as file:
        file.write("half a ro")
    outputs = looked(tmp_path)
    for question in ("tested", "mistakes"):
        assert "predictions.csv, line 62: " in Details(outputs, True).answer(question, key(outputs, "run"))["why"]


# What is computed.


def test_confusion_and_roc_are_those_of_scikit_learn(tmp_path):
    images = some_images(90, class_names=("a", "b", "c"))
    made(tmp_path / "run", images)
    outputs = looked(tmp_path)
    said = Details(outputs, True).answer("tested", key(outputs, "run"))
    expected = confusion_matrix(images.labels, images.probabilities.argmax(1))
    assert said["confusion"] == expected.tolist()
    assert [curve["name"] for curve in said["curves"]] == ["a", "b", "c"]
    for k, curve in enumerate(said["curves"]):
        area = np.trapezoid(curve["true"], said["false"])
        assert area == pytest.approx(roc_auc_score(images.labels == k, images.probabilities[:, k]), abs=0.01)


def test_a_group_has_the_figures_of_the_summary(tmp_path):
    whole = some_images(seed=1)
    for seed in (0, 1):
        for fold in (0, 1):
            part = take(some_images(seed=seed), slice(fold, None, 2))
            controls = {"majority": take(whole, slice(fold, None, 2))}
            made(tmp_path / f"{seed}{fold}", part, seed=seed, fold=fold, controls=controls)
    outputs = looked(tmp_path)
    [group] = {run["group"] for run in records_of(outputs).values()}
    said = Details(outputs, True).answer("group", group)
    [block] = comparison.build(groups.read_groups(record.find_runs([tmp_path])), 2000)
    for name, figures in block.figures.items():
        for score, figure in figures.items():
            assert said["figures"][name][score]["value"] == pytest.approx(figure.value, abs=1e-6)
            assert said["figures"][name][score]["low"] == pytest.approx(figure.low, abs=1e-6)
    assert (said["repeated"], said["incomplete"]) == (0, 0)


def test_a_group_takes_the_latest_of_runs_alike_and_whole_seeds_alone(tmp_path):
    for number, (seed, fold) in enumerate([(0, 0), (0, 1), (0, 1), (1, 0)]):
        part = take(some_images(seed=number), slice(fold, None, 2))
        status.write(
            made(tmp_path / str(number), part, seed=seed, fold=fold),
            status.Status("finished", started=float(number + 1)),
        )
    outputs = looked(tmp_path)
    [group] = {run["group"] for run in records_of(outputs).values()}
    said = Details(outputs, True).answer("group", group)
    assert (said["repeated"], said["incomplete"]) == (1, 1)
    kept = [record.read_run(tmp_path / name) for name in ("0", "2")]
    [block] = comparison.build(groups.read_groups(kept), 100)
    [figures] = block.figures.values()
    [told] = said["figures"].values()
    assert told["AUC"]["value"] == pytest.approx(figures["AUC"].value, abs=1e-6)


@pytest.mark.parametrize(("people", "few"), [(1, False), (2, True), (4, True), (5, False)])
def test_intervals_over_few_people_are_marked_and_explained(tmp_path, people, few):
    """Fewer than five: with as many draws no p-value of theirs is below 0.05."""
    for name, skill in (("weak", 0.1), ("strong", 9.0)):
        made(tmp_path / name, some_images(6 * people, skill=skill), settings={"optimizer.lr": skill})
    outputs = looked(tmp_path)
    details, keys = Details(outputs, True), [key(outputs, name) for name in ("weak", "strong")]
    group = next(iter(records_of(outputs).values()))["group"]
    for said in (details.answer("group", group), pair := details.answer("pair", "+".join(keys))):
        assert said["sign"] == (" †" if few else "")
        assert said["legend"].startswith("† Over fewer than five people") is few
    assert not few or min(pair["p"].values()) > 0.05


def test_two_runs_are_compared_second_minus_first_on_the_same_images(tmp_path):
    made(tmp_path / "weak", some_images(skill=0.1))
    made(tmp_path / "strong", some_images(skill=0.8), settings={"optimizer.lr": 0.5})
    made(tmp_path / "other", take(some_images(), slice(0, 30)))
    outputs = looked(tmp_path)
    details, keys = Details(outputs, True), {name: key(outputs, name) for name in ("weak", "strong", "other")}
    said = details.answer("pair", f"{keys['weak']}+{keys['strong']}")
    ours = {name: details.answer("tested", keys[name])["scores"]["AUC"] for name in keys}
    assert said["figures"]["AUC"]["value"] == pytest.approx(ours["strong"] - ours["weak"], abs=1e-5)
    assert said["figures"]["AUC"]["value"] > 0
    assert 0 < said["figures"]["AUC"]["low"] < said["figures"]["AUC"]["value"] < said["figures"]["AUC"]["high"]
    assert "same images" in details.answer("pair", f"{keys['weak']}+{keys['other']}")["why"]


@pytest.fixture
def faces_run(tmp_path, make_faces):
    """A run on a prepared file of 60 images that are of nobody; `importer` says whether they count as drawn."""

    def faces_run(importer):
        images = some_images()
        faces = make_faces(
            60,
            sources=images.sources,
            labels=images.labels,
            class_names=CLASSES,
            recipe={"name": "x", "importer": importer},
        )
        faces.save(tmp_path / "faces.npz")
        made(
            tmp_path / "outputs" / "run",
            images,
            settings={"dataset": {"_target_": "engrec.datasets.prepared.load", "path": str(tmp_path / "faces.npz")}},
        )
        return looked(tmp_path / "outputs")

    return faces_run


def test_mistakes_are_the_images_that_are_wrong_the_surest_first(faces_run):
    outputs = faces_run("synthetic")
    said = Details(outputs, False).answer("mistakes", key(outputs, "run"))
    images = some_images()
    wrong = np.flatnonzero(images.probabilities.argmax(1) != images.labels)
    surest = wrong[images.probabilities[wrong].max(1).argmax()]
    assert (said["wrong"], said["drawn"]) == (len(wrong), True)
    assert images.sources[surest] in said["pictures"][0]["caption"]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in said["pictures"])


def test_real_faces_are_shown_only_where_they_may_be(faces_run):
    outputs = faces_run("wacv2016")
    assert "pictures" in Details(outputs, True).answer("mistakes", key(outputs, "run"))
    refused = Details(outputs, False).answer("mistakes", key(outputs, "run"))
    assert refused.keys() == {"why"}
    assert "--faces" in refused["why"]


def test_drawn_faces_are_drawn_again_and_nothing_else_that_a_run_names(tmp_path):
    drawn = {
        "dataset": {
            "_target_": "engrec.datasets.synthetic.render",
            "task": "engagement",
            "num_train": 4,
            "num_val": 4,
            "num_test": 4,
            "images_per_subject": 4,
            "seed": 1,
        }
    }
    run = record.read_run(made(tmp_path / "run", settings=drawn))
    assert faces_of(run).recipe["importer"] == "synthetic"
    many = record.read_run(made(tmp_path / "many", settings={"dataset": drawn["dataset"] | {"num_test": 10**9}}))
    with pytest.raises(ValueError, match="50,000"):
        faces_of(many)
    other = record.read_run(made(tmp_path / "other", settings={"dataset": {"_target_": "os.system", "path": "x"}}))
    with pytest.raises(ValueError, match="not a prepared file"):
        faces_of(other)


def test_logs_are_shown_without_what_was_overwritten(tmp_path):
    folder = made(tmp_path / "run")
    (folder / "train.log").write_text("begin\n 10%\r 50%\r\x1b[32m100%\x1b[0m\nend\n")
    outputs = looked(tmp_path)
    assert Details(outputs, True).answer("texts", key(outputs, "run"))["log"] == "begin\n100%\nend"
    (folder / "train.log").write_text("x" * 60 + "\n" * 3 + "line\n" * 10_000)
    outputs.scan()
    log = Details(outputs, True).answer("texts", key(outputs, "run"))["log"]
    assert len(log) <= 24_000
    assert set(log.split("\n")) == {"line"}


# Searches.


def searched(number=12, **changes):
    """sweep.json as a search writes it; the larger x, the better."""
    space = {"x": {"low": 0.001, "high": 1.0, "log": True, "step": None}, "kind": {"choices": ["a", "b"]}}
    found = [
        {
            "number": i,
            "state": "complete",
            "values": [0.1 + i / 20],
            "params": {"x": 0.001 + i / 15, "kind": "ab"[i % 2]},
            "folder": "",
            "seconds": 2.0,
            "epochs": 3,
            "error": None,
        }
        for i in range(number)
    ]
    found += [
        {**found[0], "number": number, "state": "pruned", "values": None},
        {**found[0], "number": number + 1, "state": "failed", "values": None, "error": "first\nlast line"},
    ]
    whole = {
        "name": "small",
        "state": "done",
        "command": "python scripts/sweep.py",
        "n_trials": number + 2,
        "workers": 1,
        "updated": "",
        "overrides": ["stage=scratch"],
        "search": space,
    }
    return (
        whole
        | {
            "objectives": [{"metric": "val/auc", "direction": "maximize"}],
            "folds": [],
            "sampler": {"name": "tpe"},
            "pruner": None,
            "seed": 0,
            "trials": found,
        }
        | changes
    )


def test_a_search_is_described_as_optuna_would(tmp_path):
    said = trials.described(searched())
    space = {"x": FloatDistribution(0.001, 1.0, log=True), "kind": CategoricalDistribution(["a", "b"])}
    study = optuna.create_study(direction="maximize")
    for trial in searched()["trials"][:12]:
        study.add_trial(optuna.create_trial(params=trial["params"], values=trial["values"], distributions=space))
    sweep = Sweep("small", (), space, (Objective("val/auc", "maximize"),))
    assert said["importances"] == outcome.importances(study, sweep)
    assert said["best"][0]["number"] == 11
    assert said["best"][0]["command"].endswith("stage=scratch x=0.734333 kind=b")
    assert [trial["state"] for trial in said["trials"][-2:]] == ["pruned", "failed"]


def test_a_search_of_few_trials_says_why_nothing_matters_yet():
    said = trials.described(searched(3))
    assert said["importances"] == {}
    assert "3 complete trials are too few" in said["unknown"]


def test_runs_learn_from_their_search_that_they_were_pruned(tmp_path):
    folder = tmp_path / "sweeps" / "small"
    for number in (0, 12, 13):
        made(folder / "trials" / str(number))
    made(folder / "trials" / "11" / "fold0")
    for number in (12, 13):
        (folder / "trials" / str(number) / "result.json").unlink()
    (folder / "sweep.json").write_text(json.dumps(searched()))
    outputs = looked(tmp_path)
    found = {Path(path).name: run for path, run in records_of(outputs).items()}
    assert {name: run["state"] for name, run in found.items()} == {
        "0": "finished",
        "12": "pruned",
        "13": "failed",
        "fold0": "finished",
    }
    assert found["13"]["error"] == "last line"
    assert {run["trial"] for run in found.values()} == {0, 11, 12, 13}
    [told] = outputs.since()["searches"]
    assert (told["counts"], told["best"]) == ({"complete": 12, "failed": 1, "pruned": 1}, (0.65, 11))


def test_a_search_that_writes_nothing_more_has_stopped(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(searched(state="running")))
    outputs = looked(tmp_path)
    assert outputs.since()["searches"][0]["state"] == "running"
    os.utime(path, (time.time() - 600,) * 2)
    outputs.scan()
    assert outputs.since()["searches"][0]["state"] == "stopped"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"trials": 3}', '{"trials": [{}], "objectives": []}', '{"trials": [1], "objectives": [1]}']
)
def test_a_damaged_search_is_listed_with_what_is_wrong(tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    outputs = looked(tmp_path)
    [told] = outputs.since()["searches"]
    assert told["state"] == "damaged"
    assert told["problems"][0].startswith("sweep.json is damaged")
    assert "why" in Details(outputs, True).answer("search", told["id"])


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"x": {}}},
        {"search": []},
        {"overrides": None},
        {"objectives": [{"metric": "val/auc", "direction": "up"}]},
    ],
)
def test_a_search_that_makes_no_sense_is_no_crash(tmp_path, changes):
    (tmp_path / "sweep.json").write_text(json.dumps(searched(**changes)))
    outputs = looked(tmp_path)
    [told] = outputs.since()["searches"]
    assert "damaged" in Details(outputs, True).answer("search", told["id"])["why"]


# The page.


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two runs, one of which says in every place what would be markup."""
    root = tmp_path_factory.mktemp("page")
    made(root / "run")
    end = "</script><script>document.title=1</script>"
    folder = made(root / "odd", settings={f"x{MARKUP}": MARKUP, "monitor": end}, choices={"model": MARKUP})
    (folder / "train.log").write_text(end)
    status.write(folder, status.Status("failed", error=MARKUP + end, command=end))
    outputs = looked(root)
    return "".join(html.exported(outputs, Details(outputs, False), MARKUP))


def scripts_of(page):
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)


def test_an_exported_page_fetches_nothing(page):
    outside = re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=|@import|url\(", outside.replace('href="#', ""))
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", re.search("<style>(.*?)</style>", page, re.DOTALL)[1])
    [allowed] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#x27;none&#x27;" in allowed
    assert "http" not in allowed


def test_every_script_of_an_exported_page_is_allowed_by_its_hash_and_no_other(page):
    [allowed] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    hashes = re.findall(r"sha256-([^&]+)&", allowed)
    sources = scripts_of(page)
    assert len(sources) == len(html.scripts()) == 9
    assert [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources] == hashes
    assert "unsafe-inline" not in allowed.partition("style-src")[0]


def test_text_of_files_is_nowhere_markup(page):
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "document.title=1</script>" not in page
    data = re.findall(r'<script type="application/json" id="([^"]*)">(.*?)</script>', page, flags=re.DOTALL)
    state = dict(data)["state"]
    assert "<" not in "".join(text for _, text in data)
    assert MARKUP in {run["model"] for run in json.loads(state)["runs"]}
    assert {name.partition("/")[0] for name, _ in data} == {"state", "history", "texts", "tested", "mistakes", "group"}


def test_our_scripts_make_no_markup_of_text():
    ours = "".join(html.scripts()[name] for name in html.OURS)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", ours)
    assert not re.search(r"https?://", ours)


def test_the_table_is_a_plain_script():
    source = html.scripts()["tables.js"]
    assert not re.search(r"export\s*\{", source)
    assert "window.DataTable=" in source


# The server.


async def asked_of(root, requests, host="127.0.0.1"):
    """(status, headers, body) for each request line and its headers, sent as they are."""
    serving = TestServer(server.Server(root, host, True).app())
    await serving.start_server()

    def talk():
        answers = []
        for method, path, headers in requests:
            connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": "127.0.0.1", **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            answers.append((answer.status, dict(answer.getheaders()), answer.read().decode()))
            connection.close()
        return answers

    try:
        return await asyncio.get_running_loop().run_in_executor(None, talk)
    finally:
        await serving.close()


def answers(root, *requests, **options):
    return asyncio.run(asked_of(root, [(m, p, h[0] if h else {}) for m, p, *h in requests], **options))


@pytest.mark.parametrize(
    ("header", "host", "allowed"),
    [
        ("127.0.0.1:8765", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8765", "127.0.0.1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example:8765", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("192.168.0.7", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("192.168.0.7:8765", "0.0.0.0", True),
        (socket.gethostname(), "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
    ],
)
def test_only_names_of_this_machine_are_answered(header, host, allowed):
    assert server.allowed(header, host) is allowed


def test_the_server_answers_get_of_its_own_paths_alone(tmp_path):
    made(tmp_path / "outputs" / "run")
    (tmp_path / "secret").write_text("secret")
    run = records.identity("run")
    good = [
        "/",
        "/style.css",
        "/main.js",
        "/tables.js",
        "/plotly.js",
        "/api/state",
        f"/api/texts/{run}",
        f"/api/history/{run}",
    ]
    bad = [
        "/../secret", "/%2e%2e/secret", "/..%2fsecret", "/run/config.yaml", "/outputs/run/config.yaml", "/other.js",
        "/api/texts/..%2f..%2fsecret", "/api/texts/" + "0" * 16, "/api/texts/run", "/api/secret/" + run,
        f"/api/pair/{run}", f"/api/texts/{run}+{run}", f"/api/texts/{run}/..", "//etc/passwd", "/api/answer/" + run,
    ]  # fmt: skip
    told = answers(tmp_path / "outputs", *(("GET", path) for path in good + bad))
    assert [status for status, *_ in told] == [200] * len(good) + [404] * len(bad)
    assert "secret" not in "".join(body for *_, body in told[len(good) :])
    for _, headers, _ in told[: len(good)]:
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    others = answers(tmp_path / "outputs", *((method, "/") for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")))
    assert {status for status, *_ in others} == {405}


def test_a_page_from_elsewhere_gets_nothing(tmp_path):
    made(tmp_path / "run")
    [(status, _, body)] = answers(tmp_path, ("GET", "/api/state", {"Host": "evil.example"}))
    assert status == 403
    assert "run" not in json.dumps(body.replace("dashboard", ""))


def test_the_state_is_told_once_and_then_what_is_new(tmp_path):
    made(tmp_path / "run")

    async def twice():
        serving = server.Server(tmp_path, "127.0.0.1", True)
        await serving.look()
        first = serving.outputs.since()
        return first, serving.outputs.since(first["version"], first["token"])

    first, second = asyncio.run(twice())
    assert ([run["path"] for run in first["runs"]], second["runs"]) == (["run"], [])


def test_a_folder_that_cannot_be_read_is_said_in_the_page(tmp_path):
    [(status, _, body)] = answers(tmp_path / "gone", ("GET", "/api/state"))
    assert status == 200
    assert json.loads(body)["error"].endswith("gone: No such file or directory")


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=" + "9" * 5000, "token=%ff", "since=²"])
def test_an_odd_question_is_answered_whole(tmp_path, query):
    made(tmp_path / "run")
    [(status, _, body)] = answers(tmp_path, ("GET", "/api/state?" + query.replace("²", "%C2%B2")))
    assert status == 200
    assert len(json.loads(body)["runs"]) == 1


# The command.


def command(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_the_command_prints_its_address_serves_and_ends_quietly(tmp_path):
    made(tmp_path / "run")
    process = command(tmp_path, "--port", 0)
    line = process.stdout.readline()
    address = re.search(r"http://(127\.0\.0\.1:\d+)/", line)[1]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/api/state")
    assert len(json.load(connection.getresponse())["runs"]) == 1
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(tmp_path, "--port", port)
        out, errors = done.communicate(timeout=60)
    assert (done.returncode, out) == (1, "")
    why = f"127.0.0.1:{port} cannot be served on (Address already in use)"
    assert errors == f"error: {why}: type another --port, or --port 0 for any\n"


def main(*arguments):
    with errors_in_one_line():
        dashboard.main([str(argument) for argument in arguments])


def test_an_export_is_one_file_and_real_faces_are_not_in_it(faces_run, tmp_path, capsys):
    faces_run("wacv2016")
    for options, pictures in (([], False), (["--faces"], True)):
        main(tmp_path / "outputs", "--export", tmp_path / "out" / "page.html", *options)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]
        text = (tmp_path / "out" / "page.html").read_text()
        assert ('"src":"data:image/png' in text) is pictures
    assert "page.html: 1 run, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{}/gone", "--export", "{}/page.html"],
            r"error: .*/gone is not there; python train.py",
        ),
        (["{}/file"], r"error: .*/file is no folder; python train.py"),
        (["{}/empty", "--export", "{}/page.html"], r"error: there is no run in .*/empty; python train.py"),
        (["{}", "--export", "{}/file/page.html"], r"error: \[Errno \d+\] [A-Z][a-z ]+: '.*/file'$"),
        (["{}", "--host", "nowhere.invalid", "--port", "0"], r"error: nowhere.invalid:0 cannot be served on \("),
    ],
)
def test_a_mistake_is_said_in_one_line(tmp_path, arguments, message):
    made(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=message):
        main(*(argument.format(tmp_path) for argument in arguments))


def test_the_command_starts_without_what_only_single_runs_need():
    lines = "import json, sys; import dashboard; from engrec.pages.dashboard import server; "
    lines += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    path = f"{SCRIPT.parent}{os.pathsep}{SCRIPT.parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    loaded = set(json.loads(done.stdout))
    assert {"aiohttp", "engrec", "yaml"} <= loaded
    assert not {"torch", "scipy", "sklearn", "optuna", "pandas", "pytorch_lightning", "itables"} & loaded


def test_a_thousand_runs_are_read_in_seconds_and_looked_at_again_in_less(tmp_path):
    made(tmp_path / "0")
    files = {path.name: path.read_bytes() for path in (tmp_path / "0").iterdir()}
    settings = yaml.safe_load(files["config.yaml"])
    settings["more"] = {f"key{i}": i for i in range(40)}
    files["config.yaml"] = yaml.safe_dump(settings).encode()
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    outputs = Outputs(tmp_path)
    times = [time.process_time()]
    for _ in range(2):
        outputs.scan()
        times.append(time.process_time())
    assert len(outputs.since()["runs"]) == 1000
    assert times[1] - times[0] < 10
    assert times[2] - times[1] < 1.5
