"""What the dashboard finds below a folder, and what it says of damage."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dashboard_runs import HISTORY, finish, key, looked, made, records_of

from engrec.machine import processes
from engrec.metrics import logged
from engrec.pages.dashboard import records
from engrec.pages.dashboard.answers import Details
from engrec.pages.dashboard.records import Outputs
from engrec.runs import reading, status

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
    assert (first["complete"], len(first["runs"])) == (True, 3)
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
    assert (told["runs"][0]["epochs"], told["runs"][0]["val"]["auc"], told["complete"]) == (4, 0.9, False)
    assert [run["path"] for run in first["runs"] if run["id"] in told["gone"]] == ["three"]
    assert outputs.since(first["version"], "of another process")["complete"]


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


def test_a_running_run_is_called_what_its_status_says(tmp_path):
    """config.yaml holds the class that is built, not the name of the option."""
    folder = made(tmp_path / "now")
    (folder / "result.json").unlink()
    options = {"model": "vgg_small", "dataset": "wacv2016", "split": "kfold", "augment": "strong"}
    status.write(folder, status.Status("running", started=100.0, choices=options))
    [run] = records_of(looked(tmp_path)).values()
    assert (run["state"], run["model"], run["choices"]) == ("running", "vgg_small", options)


@pytest.mark.parametrize("choices", [["vgg"], "vgg", {"model": 3}, {"model": ["x"]}])
def test_odd_choices_are_damage(tmp_path, choices):
    folder = made(tmp_path / "now")
    status.write(folder, status.Status("running", started=100.0, choices=choices))
    [run] = records_of(looked(tmp_path)).values()
    assert [(problem["kind"], problem["file"]) for problem in run["problems"]] == [("damaged", "status.json")]
    assert (run["state"], run["model"]) == ("damaged", "vgg_small")


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
        (b"[1, 2]", "result.json is damaged (not a mapping of keys to values)"),
        (b"{}", "result.json is not that of a run"),
        (b"\xff\xfe\x00", "result.json is not text"),
        (b"[" * 100_000, "result.json is nested more deeply than any run writes"),
        (b"1" * 5000, "result.json is damaged"),
        (rb'{"dataset": {"name": "\ud800"}}', r"result.json is damaged ('\ud800' is half of a character)"),
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
        (b'{"state": ["x"], "process": null}', "status.json is damaged (state is a list: it must be 'running', 'fini"),
        (b'{"state": "run', "status.json is damaged (line 1: "),
        (b'{"state": "finished"}', "status.json is damaged (it lacks process)"),
        (b"[" * 50_000, "status.json is nested more deeply than any run writes"),
        (b" " * (2**16 + 1), "status.json has 0 MB, which no run writes"),
    ],
}


@pytest.mark.parametrize(("name", "content", "said"), [(n, *case) for n, cases in DAMAGE.items() for case in cases])
def test_a_damaged_run_is_listed_with_what_is_wrong(tmp_path, name, content, said):
    made(tmp_path / "good")
    (made(tmp_path / "bad") / name).write_bytes(content)
    found = records_of(looked(tmp_path))
    assert found["bad"]["state"] == "damaged"
    problems = found["bad"]["problems"]
    assert any(problem["text"].startswith(said) and problem["file"] == name for problem in problems)
    assert {problem["kind"] for problem in problems} <= {"damaged", "refused"}
    assert "\n" not in "".join(problem["text"] for problem in problems)
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
    problem = {"kind": "damaged", "file": "metrics.csv", "text": "metrics.csv, line 5: 3 cells, the header has 5"}
    assert records_of(outputs)["run"]["problems"] == [problem]
    assert records_of(outputs)["run"]["state"] == "finished"
    answer = Details(outputs, True).answer("history", key(outputs, "run"))
    assert answer["curves"]["auc"]["traces"][0]["y"] == [50, 75, 70]
    assert answer["wrong"] == "metrics.csv, line 5: 3 cells, the header has 5"


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
    assert "config.yaml is a link, which is not followed" in [p["text"] for p in found["run"]["problems"]]
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
    assert list(run["test"].values()) == [None] * len(logged())
    assert len(run["settings"]["odd.d"]) == reading.MOST_LETTERS


# Searches.


def searched():
    """sweep.json as a search writes it, in part: twelve complete trials, a pruned one and a failed one."""
    ends = [("complete", None)] * 12 + [("pruned", None), ("failed", "first\nlast line")]
    trials = [{"number": i, "state": state, "error": error} for i, (state, error) in enumerate(ends)]
    return {"name": "small", "state": "done", "trials": trials}


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
    assert {run["search"] for run in found.values()} == {"sweeps/small"}
    (folder / "sweep.json").write_text("{")
    outputs.scan()
    assert {run["state"] for run in records_of(outputs).values()} == {"finished", "unknown"}


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", '{"trials": 3}', '{"trials": [{}]}', '{"trials": [1]}', '{"trials": [{"number": 1e999}]}'),
        *('{"trials": [{"number": "0"}]}', r'{"trials": [{"number": 0, "error": "\ud800"}]}'),
    ],
)
def test_a_damaged_search_leaves_its_runs_as_they_are(tmp_path, content):
    made(tmp_path / "trials" / "0")
    (tmp_path / "sweep.json").write_text(content)
    [run] = records_of(looked(tmp_path)).values()
    assert (run["state"], "trial" in run) == ("finished", False)


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
