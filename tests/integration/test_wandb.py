"""`logger=wandb` as a user types it: read back from the offline files, and asked for by the real client over HTTP.

Nothing here leaves the machine: wandb_server answers on 127.0.0.1.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import FEW, ROOT, SMALL, Folder, wait_for
from omegaconf import OmegaConf
from wandb_server import KEY, Server

from engrec import checkpoint

RUN = [*SMALL, *FEW, "max_epochs=2", "logger=wandb"]
LONG = [*SMALL, "batch_size=8", "dataset.num_train=400", *FEW[1:], "max_epochs=4", "stage=scratch", "logger=wandb"]
CLIENT = Path(sys.executable).with_name("wandb")
NEVER = "http://127.0.0.1:9"  # nobody listens at the discard port


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("offline"))


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server
    assert server.unknown == []


@pytest.fixture(scope="module")
def online(tmp_path_factory, server):
    folder = Folder(tmp_path_factory.mktemp("online"))
    folder.env |= server.environment
    return folder


def succeeded(done):
    assert done.status == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def client(folder, *arguments, timeout=300):
    """The `wandb` command."""
    env = folder.env | {"PATH": f"{CLIENT.parent}:{os.environ['PATH']}"}
    run = subprocess.run(
        [CLIENT, *map(str, arguments)], cwd=folder.path, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout + run.stderr


def records(folder, run, number=0):
    """The records of a run's n-th offline file, by type."""
    path = sorted((run / "wandb").glob("*run-*"))[number]
    found = {}
    for line in client(folder, "leet", "inspect", "--json", path).splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def merged(updates):
    whole = {}
    for update in updates:
        whole |= update["update"]
    return whole


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def result(run):
    return json.loads((run / "result.json").read_text())


def record_of(run):
    return json.loads((run / "wandb.json").read_text())


def assert_history(items, run):
    """One row for each epoch, with all that metrics.csv has, and the best value so far; then the test."""
    epochs, best = rows(run / "metrics.csv"), None
    learned = [item for item in items if "train/loss" in item]
    assert len(learned) == len(epochs)
    monitor = yaml.safe_load((run / "config.yaml").read_text())["monitor"]
    for item, epoch in zip(learned, epochs, strict=True):
        for name, value in epoch.items():
            assert item[name] == pytest.approx(float(value), rel=1e-6), name
        best = max(best or 0, float(epoch[monitor]))
        assert item[f"best/{monitor}"] == pytest.approx(best, rel=1e-6)
    [tested] = [item for item in items if "test/loss" in item]
    for name, value in result(run)["metrics"].items():
        assert tested[name] == pytest.approx(value, rel=1e-6), name


def assert_summary(summary, run):
    """The best value of each metric, by which a table of runs is sorted; the test's; and what it cost."""
    epochs = rows(run / "metrics.csv")
    for name in [name for name in epochs[0] if "/" in name]:
        choose = ("min", min) if name.endswith("loss") else ("max", max)
        assert summary[name] == {choose[0]: pytest.approx(choose[1](float(e[name]) for e in epochs), rel=1e-6)}
    for name, value in (result(run)["metrics"] | result(run)["calibration"]).items():
        assert summary[name] == pytest.approx(value, rel=1e-6), name
    for name, value in result(run)["validation"].items():
        if name.startswith("val/") or name == "epoch":
            assert summary[f"best/{name}"] == pytest.approx(value, rel=1e-6), name
    assert summary["num_parameters"] == result(run)["num_parameters"]


# --- offline ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(folder):
    done = succeeded(folder.command("stage=pretrain", *RUN, "output_dir=pretrained"))
    return done, folder.path / "pretrained"


@pytest.fixture(scope="module")
def written(folder, pretrained):
    return records(folder, pretrained[1])


def test_nobody_is_asked_and_nothing_lies_outside_the_run(folder, pretrained):
    assert "Traceback" not in pretrained[0].stderr
    assert {path.name for path in folder.path.iterdir() if not path.name.startswith(".")} == {
        "train.py", "conf", "pretrained",
    }  # fmt: skip
    assert not [p for p in folder.path.glob(".*/**/*") if p.is_file() and "wandb" in p.parts and "logs" not in p.parts]


def test_the_line_that_syncs_is_the_last(pretrained):
    done, run = pretrained
    [file] = (run / "wandb").glob("offline-run-*")
    said = [line for line in done.stdout.splitlines() if line.strip()][-1]
    assert said == f"Weights & Biases: offline. Send it with: wandb sync pretrained/wandb/{file.name}"


def test_the_whole_configuration_is_there(pretrained, written):
    config = merged(written["config"])
    for name, value in yaml.safe_load((pretrained[1] / "config.yaml").read_text()).items():
        assert config[name] == value, name
    assert config["choices"] == {
        "stage": "pretrain", "dataset": "synthetic", "model": "vgg_small", "split": "official",
    }  # fmt: skip
    assert config["result"]["command"] == result(pretrained[1])["command"]


def test_the_history_is_that_of_the_metrics(pretrained, written):
    assert_history([record["item"] for record in written["history"]], pretrained[1])


def test_the_summary_has_the_best_values(pretrained, written):
    assert_summary(nested(merged(written["summary"])), pretrained[1])


def nested(summary):
    """Dotted keys of the file are one key with parts on the server."""
    return {name: value for name, value in summary.items() if not name.startswith("_")}


def test_curves_go_over_epochs(written):
    metrics = {record.get("name"): record for record in written["metric"]}
    for name in ("train/loss", "val/auc", "val/accuracy"):
        assert metrics[name]["step_metric"] == "epoch"
    assert metrics["val/loss"]["summary"] == {"min": True}
    assert metrics["val/auc"]["summary"] == {"max": True}


def test_group_and_kind_of_job(written):
    [run] = written["run"]
    assert run["run_group"] == "pretrain-synthetic-vgg_small-official"
    assert run["job_type"] == "pretrain"
    assert run["project"] == "engrec"


def test_a_run_that_ends_well_says_so(written):
    assert written["exit"][0].get("exit_code", 0) == 0


def test_the_best_checkpoint_is_an_artifact_where_it_lies(pretrained, written):
    [artifact] = [a for a in written["artifact"] if a["type"] == "model"]
    [file] = artifact["manifest"]["contents"]
    assert f"{artifact['name']}:best" == record_of(pretrained[1])["artifact"]
    assert {"best", "pretrain"} <= set(artifact["aliases"])
    assert Path(file["local_path"]) == (pretrained[1] / "best.ckpt").resolve()
    assert int(file["size"]) == (pretrained[1] / "best.ckpt").stat().st_size


def test_confusion_roc_and_faces_are_tables(folder, pretrained):
    [files] = (pretrained[1] / "wandb").glob("offline-run-*/files/media/table")
    tables = {path.name.partition("_")[0]: json.loads(path.read_text()) for path in files.rglob("*.json")}
    predicted = rows(pretrained[1] / "predictions.csv")
    confusion = tables["confusion"]
    assert sum(count for _, _, count in confusion["data"]) == len(predicted)
    names = [key[2:] for key in predicted[0] if key.startswith("p_")]
    right = sum(max(names, key=lambda k, r=row: float(r[f"p_{k}"])) == row["label"] for row in predicted)
    assert sum(count for actual, said, count in confusion["data"] if actual == said) == right
    assert tables["roc"]["columns"] == ["class", "fpr", "tpr"]
    assert len(tables["faces"]["data"]) == len(predicted)
    wrong = [label != said for _, _, label, said, _ in tables["faces"]["data"]]
    assert wrong == sorted(wrong, reverse=True)


@pytest.fixture(scope="module")
def stopped(folder, pretrained):
    """A fine-tuning that is stopped after its first epoch and goes on."""
    run = folder.path / "stopped"
    start = [o for o in LONG if o != "stage=scratch"]
    process = folder.start(*start, "stage=finetune", f"init_from={pretrained[1]}/best.ckpt", f"output_dir={run}")
    wait_for((run / "last.ckpt").is_file, process)
    os.kill(process.pid, signal.SIGINT)
    done = folder.finish(process)
    before = record_of(run)
    again = succeeded(folder.printed(done.line("Resume with: ")))
    return done, again, run, before


def test_a_stopped_run_is_marked_and_goes_on_as_the_same(folder, stopped):
    done, _, run, before = stopped
    assert done.status == 130
    assert "wandb sync" in done.stdout
    first, second = records(folder, run, 0), records(folder, run, 1)
    assert first["exit"][0]["exit_code"] == 130
    assert second["exit"][0].get("exit_code", 0) == 0
    assert first["run"][0]["run_id"] == second["run"][0]["run_id"] == before["id"] == record_of(run)["id"]
    items = [record["item"] for part in (first, second) for record in part["history"]]
    assert_history(items, run)


def test_a_killed_run_goes_on_as_the_same(folder):
    """What the client had not written when it was killed is missing there, and is in the run's own files."""
    run = folder.path / "killed"
    process = folder.start(*LONG, f"output_dir={run}", "ckpt_path=last")
    wait_for((run / "last.ckpt").is_file, process)
    os.kill(process.pid, signal.SIGKILL)
    assert folder.finish(process).status == -signal.SIGKILL
    before, saved = record_of(run), checkpoint.read(run / "last.ckpt")["epoch"] + 1
    succeeded(folder.command(*LONG, f"output_dir={run}", "ckpt_path=last"))
    assert record_of(run) == before
    second = records(folder, run, 1)
    assert second["run"][0]["run_id"] == before["id"]
    told = [record["item"]["epoch"] for record in second["history"] if "train/loss" in record["item"]]
    assert told == list(range(saved, 4))
    assert len(rows(run / "metrics.csv")) == 4


def test_the_input_of_a_finetuning_is_recorded(folder, stopped, pretrained):
    first = records(folder, stopped[2], 0)
    assert merged(first["config"])["input"] == record_of(pretrained[1])
    [used] = [a for a in first["artifact"] if a.get("use_after_commit")]
    assert f"{used['name']}:best" == record_of(pretrained[1])["artifact"]


def test_a_crash_is_marked(folder):
    run = folder.path / "crashed"
    done = folder.command("stage=scratch", *RUN, "optimizer.lr=1e30", f"output_dir={run}")
    assert done.status == 70
    assert "training diverged in epoch" in done.stderr
    assert records(folder, run)["exit"][0]["exit_code"] == 1


def test_a_server_that_never_answers_is_done_without(folder):
    run = folder.path / "alone"
    dead = folder.with_env(WANDB_BASE_URL=NEVER, WANDB_API_KEY=KEY)
    start = ["stage=scratch", *RUN[:-2], "max_epochs=1", "logger=wandb", "logger.init_timeout=3"]
    done = succeeded(dead.command(*start, f"output_dir={run}"))
    assert "continuing offline" in done.stdout
    assert done.line("Send it with: ").startswith("wandb sync alone/wandb/offline-run-")
    assert_history([record["item"] for record in records(folder, run)["history"]], run)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_MODE", "sometimes", "Input should be 'online', 'offline'"),
        ("WANDB_BASE_URL", "nowhere", "Input should be a valid URL"),
    ],
)
def test_a_variable_that_the_client_refuses_is_named_before_anything_is_written(folder, name, value, message):
    done = folder.with_env(**{name: value}).command("stage=scratch", *RUN, "output_dir=misspelt")
    assert done.status == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {name}={value}: {message}")
    assert not (folder.path / "misspelt").exists()


@pytest.mark.parametrize("key", [{}, {"WANDB_API_KEY": KEY}], ids=["logged out", "logged in"])
def test_a_disabled_client_is_left_alone(folder, key):
    run = folder.path / f"disabled{len(key)}"
    quiet = folder.with_env(WANDB_MODE="disabled", WANDB_BASE_URL=NEVER, **key)
    done = succeeded(quiet.command("stage=scratch", *RUN, f"output_dir={run}"))
    assert "wandb" not in done.stdout.lower()
    assert "Weights & Biases" not in done.stdout
    assert not list(run.rglob("*wandb*"))
    assert result(run)["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["from the start", "after the first epoch"])
def test_a_silent_server_costs_no_more_than_the_two_timeouts(tmp_path, when):
    """Measured from the start to the first checkpoint, and from the predictions to the end of the process."""
    folder, run, patience = Folder(tmp_path), tmp_path / "run", 4
    timeouts = [f"logger.init_timeout={patience}", f"logger.finish_timeout={patience}"]

    def lasted(started):
        return time.monotonic() - started

    with Server() as server:
        folder.env |= server.environment
        if when == "from the start":
            server.fall_silent()
        process, started = folder.start(*LONG, *timeouts, f"output_dir={run}"), time.monotonic()
        wait_for((run / "last.ckpt").is_file, process)
        opening = lasted(started)
        server.fall_silent()
        wait_for((run / "predictions.csv").is_file, process)
        started = time.monotonic()
        succeeded(folder.finish(process))
        closing = lasted(started)
    print(f"{when}: {opening:.1f} s to the first checkpoint, {closing:.1f} s from the predictions to the end")
    assert opening < patience + 20, opening  # of it the process's own start
    assert closing < patience + 20, closing  # of it the pictures, and the end of the client's own process
    assert len(rows(run / "metrics.csv")) == 4


def test_a_tested_checkpoint_names_what_it_tested(folder, pretrained):
    run = folder.path / "tested"
    start = ["stage=test", f"ckpt_path={pretrained[1]}/best.ckpt", "trainer.accelerator=cpu", *FEW, "logger=wandb"]
    succeeded(folder.command(*start, f"output_dir={run}"))
    found = records(folder, run)
    assert found["run"][0]["run_group"] == "test-synthetic-VGG-official"
    assert merged(found["config"])["input"] == record_of(pretrained[1])
    [tested] = [record["item"] for record in found["history"] if "test/loss" in record["item"]]
    assert tested["test/accuracy"] == pytest.approx(result(pretrained[1])["metrics"]["test/accuracy"])
    assert not [a for a in found["artifact"] if a["type"] == "model" and not a.get("use_after_commit")]


@pytest.mark.slow
def test_two_processes_are_one_run(folder):
    run = folder.path / "two"
    start = ["stage=scratch", *RUN, "trainer.devices=2", "trainer.precision=32-true", f"output_dir={run}"]
    succeeded(folder.command(*start))
    assert len(list(run.rglob("*.wandb"))) == 1
    assert_history([record["item"] for record in records(folder, run)["history"]], run)


def with_key(folder, server, key):
    return folder.with_env(**server.environment | {"WANDB_API_KEY": key})


def test_what_cannot_be_a_key_is_said_before_training(folder, server):
    done = with_key(folder, server, "short").command("stage=scratch", *RUN, "output_dir=short")
    assert done.status == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "API key must have 40+ characters" in line
    assert "logger.offline=true" in line
    assert not (folder.path / "short").exists()


def test_a_key_that_is_refused_costs_no_training(folder, server):
    done = succeeded(with_key(folder, server, "a" * 40).command("stage=scratch", *RUN, "output_dir=refused"))
    assert "user is not logged in" in done.line("did not open the run (")
    assert "continuing offline" in done.stdout
    assert done.line("Send it with: ").startswith("wandb sync refused/wandb/offline-run-")


# --- online -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(online):
    done = succeeded(online.command("stage=pretrain", *RUN, "output_dir=first"))
    return done, online.path / "first"


@pytest.fixture(scope="module")
def tuned(online, sent):
    start = ["stage=finetune", *RUN, f"init_from={sent[1]}/best.ckpt", "split=kfold", "split.num_folds=3"]
    return succeeded(online.command(*start, "seed=1", "output_dir=second")), online.path / "second"


@pytest.mark.parametrize("which", ["sent", "tuned"])
def test_the_server_has_all_of_a_run(request, server, which):
    done, folder = request.getfixturevalue(which)
    run = server.runs[record_of(folder)["id"]]
    assert run["exit"] == 0
    assert_history([row for _, row in sorted(run["rows"].items())], folder)
    assert_summary(run["summary"], folder)
    assert run["config"]["batch_size"] == 14
    assert "wandb sync" not in done.stdout


def test_the_checkpoint_arrives_whole(server, sent):
    name, _, alias = record_of(sent[1])["artifact"].partition(":")
    [version] = server.artifacts[name]
    assert {alias, "pretrain"} <= set(version["aliases"])
    assert version["state"] == "COMMITTED"
    assert server.files[version["files"]["best.ckpt"]] == (sent[1] / "best.ckpt").read_bytes()


def test_the_finetuning_uses_the_pretrained_artifact(server, sent, tuned):
    [version] = server.artifacts[record_of(sent[1])["artifact"].partition(":")[0]]
    assert version["used_by"] == [record_of(tuned[1])["id"]]
    assert version["made_by"] == record_of(sent[1])["id"]


def test_an_offline_run_is_sent_later_as_one(server, online, folder, stopped, pretrained):
    """Both parts of the run that was stopped, and what it was fine-tuned from, in either order."""
    for run in (stopped[2], pretrained[1]):
        client(online, "sync", *sorted((run / "wandb").glob("offline-run-*")))
        arrived = server.runs[record_of(run)["id"]]
        assert_history([row for _, row in sorted(arrived["rows"].items())], run)
        assert arrived["exit"] == 0
    [version] = server.artifacts[record_of(pretrained[1])["artifact"].partition(":")[0]]
    assert version["used_by"] == [record_of(stopped[2])["id"]]
    assert {"best", "pretrain"} <= set(version["aliases"])


@pytest.mark.slow
@pytest.mark.parametrize(("file", "count"), [("bayes", 1), ("folds", 2)])
def test_an_agent_runs_what_a_sweep_hands_out(server, online, sent, file, count):
    """The shipped sweeps, on drawn faces."""
    sweep = yaml.safe_load((ROOT / "conf" / "sweep" / "wandb" / f"{file}.yaml").read_text())
    small = [*SMALL, *FEW, "max_epochs=1", "split=kfold", "split.num_folds=5", f"init_from={sent[1]}/best.ckpt"]
    changed = ("experiment=", "init_from=", "${args")
    kept = [argument for argument in sweep["command"] if not argument.startswith(changed)]
    sweep["command"] = [*kept, *small, "${args_no_hyphens}"]
    (online.path / "small.yaml").write_text(yaml.safe_dump(sweep))
    said = client(online, "sweep", "small.yaml")
    name = list(server.sweeps)[-1]
    assert f"somebody/engrec/{name}" in said
    client(online, "agent", "--count", count, f"somebody/engrec/{name}")
    handed_out = server.sweeps[name]["handed_out"]
    assert len(handed_out) == count
    for run_id, trial in handed_out:
        run, folder = server.runs[run_id], online.path / "outputs" / "wandb" / name / run_id
        assert run["exit"] == 0
        assert run["sweep"] == name
        used = OmegaConf.load(folder / "config.yaml")
        assert trial.keys() == sweep["parameters"].keys()
        for key, value in trial.items():
            assert OmegaConf.select(used, key) == OmegaConf.select(OmegaConf.create(run["config"]), key) == value
        assert_history([row for _, row in sorted(run["rows"].items())], folder)
        assert sweep["metric"]["name"] in run["summary"]


def test_a_workspace_is_saved(server, online, sent):
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    done = online.python(ROOT / "scripts" / "wandb_workspace.py", "engrec", "--name", "all of it")
    assert done.status == 0, done.stderr[-2000:]
    [view] = server.views
    assert view["displayName"] == "all of it"
    assert view["entityName"] == "somebody"
    assert done.stdout.splitlines()[-1].startswith(f"{server.url}/somebody/engrec")


def test_a_server_that_dies_in_mid_run_costs_nothing_but_its_copy(tmp_path):
    """After the first epoch; the run ends well, within the time that finish_timeout allows, and is whole on disk, from
    where its metrics can be sent later."""
    folder = Folder(tmp_path)
    run, patience = tmp_path / "run", 4
    with Server() as server:
        folder.env |= server.environment
        process = folder.start(*LONG, f"logger.finish_timeout={patience}", f"output_dir={run}")
        wait_for((run / "last.ckpt").is_file, process)
        server.stop()
        wait_for((run / "predictions.csv").is_file, process)
        started = time.monotonic()
        done = succeeded(folder.finish(process))
        waited = time.monotonic() - started
    assert waited < patience + 6, waited
    assert "not all of it was sent" in done.stdout
    assert len(rows(run / "metrics.csv")) == 4
    assert_history([record["item"] for record in records(folder, run)["history"]], run)
    with Server() as server:
        folder.env |= server.environment
        client(folder, *done.line("Send it with: wandb ").split())
        [arrived] = server.runs.values()
        assert_history([row for _, row in sorted(arrived["rows"].items())], run)
        assert_summary(arrived["summary"], run)
        assert arrived["config"]["choices"]["model"] == "vgg_small"
