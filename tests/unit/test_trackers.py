"""What is logged to Weights & Biases, as far as it needs neither a run nor a server."""

import logging
import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import wandb
import wandb_workspace
import yaml
from pytorch_lightning.loggers import WandbLogger
from wandb.sdk.wandb_run import Run

from engrec import config, trackers
from engrec.callbacks import History
from engrec.metrics import logged
from engrec.trackers import WandbRun, faces_table, followed, read_record

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "conf" / "sweep" / "wandb").glob("*.yaml"))
CHOSEN = {
    "stage": "finetune",
    "dataset": "synthetic",
    "model": "vgg_small",
    "split": "kfold",
    "network": "engrec.x.VGG",
}


def new(folder, **fields):
    return WandbRun(str(folder), **CHOSEN | {"run": "now", "offline": True} | fields)


# --- faces ------------------------------------------------------------------------------------------------------------


def test_the_surest_mistakes_come_first_and_then_the_least_sure_right_ones(make_faces, tmp_path):
    faces = make_faces(num_images=60)
    index = np.arange(10, 60)
    labels = torch.from_numpy(faces.labels[index])
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2)))
    table = faces_table(faces, index, logits, labels)
    assert table.columns == ["image", "source", "label", "prediction", "probability"]
    assert len(table.data) == 32
    wrong = [row[2] != row[3] for row in table.data]
    number = sum(wrong)
    assert 10 < number < 32
    assert wrong == [True] * number + [False] * (32 - number)
    sure = [row[4] for row in table.data]
    assert sure[:number] == sorted(sure[:number], reverse=True)
    assert sure[number:] == sorted(sure[number:])
    for picture, source, label, prediction, probability in table.data:
        [i] = np.flatnonzero(faces.sources == source)
        assert label == faces.class_names[faces.labels[i]]
        row = logits[i - 10].softmax(0)
        assert prediction == faces.class_names[int(row.argmax())]
        assert probability == pytest.approx(float(row.max()))
        assert np.array_equal(np.asarray(picture.image), faces.images[i, 0])


class Sink:
    """Takes what a run logs, and asks no server."""

    id, offline = "abc", True

    def __init__(self):
        self.logged, self.summary, self.config = {}, {}, {}

    def log(self, values, commit=True):
        self.logged |= values

    def finish(self, exit_code):
        self.exit_code = exit_code


RESULT = {"choices": {}, "calibration": {"temperature": 1.5}, "epochs": 2, "seconds": 1.0, "num_parameters": 3}
RESULT |= {"train_images_per_second": None, "num_images": {}, "hardware": {}, "versions": {}, "git_commit": None}
RESULT |= {"dataset": {}, "command": "python train.py", "metrics": {}, "validation": {}, "seed": 0}


class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)


@pytest.mark.parametrize(
    ("importer", "images", "shown"),
    [("synthetic", "auto", True), ("fer2013", "auto", False), ("fer2013", True, True), ("synthetic", False, False)],
)
def test_real_faces_are_shown_only_on_request(make_faces, tmp_path, importer, images, shown):
    faces = make_faces(num_images=6, recipe={"name": "some", "importer": importer})
    run = new(tmp_path, images=images, checkpoint=False)
    run._experiment = sink = Sink()
    sink.config = Config()
    index = np.arange(6)
    run.record(faces, index, torch.eye(2)[faces.labels], torch.from_numpy(faces.labels), RESULT)
    assert ("test/faces" in sink.logged) is shown
    assert {"test/confusion", "test/roc"} <= sink.logged.keys()
    assert sink.summary["temperature"] == 1.5
    if not shown:
        assert not any(source in repr(sink.logged) for source in faces.sources.tolist())


# --- which run it is --------------------------------------------------------------------------------------------------


def test_folds_and_seeds_share_a_group_and_stages_do_not(compose):
    def group(*overrides):
        cfg = compose("logger=wandb", "model=vgg_small", *overrides)
        cfg.output_dir = "unused"
        return trackers.WandbRun(**{k: v for k, v in cfg.logger.items() if k != "_target_"})._wandb_init

    scratch = group("stage=scratch", "split=kfold", "split.fold=1", "seed=4", "experiment=wacv2016_short")
    assert scratch["group"] == "scratch-wacv2016-vgg_small-kfold"
    assert (
        scratch["group"] == group("stage=scratch", "split=kfold", "split.fold=0", "experiment=wacv2016_short")["group"]
    )
    assert scratch["job_type"] == "scratch"
    assert scratch["tags"] == ["wacv2016_short"]
    pretrain = group("stage=pretrain")
    assert pretrain["group"] == "pretrain-synthetic-vgg_small-official"
    assert pretrain["tags"] == []
    assert pretrain["name"].startswith(pretrain["group"])


def test_a_tested_checkpoint_is_named_after_its_own_network(tmp_path):
    init = new(tmp_path, stage="test", model="cnn", network="engrec.models.vgg.VGG")._wandb_init
    assert init["group"] == "test-synthetic-VGG-kfold"


def test_only_a_resumed_run_keeps_its_id(tmp_path):
    (tmp_path / "wandb.json").write_text('{"id": "abc", "project": "engrec", "entity": null, "artifact": "model-abc"}')
    assert new(tmp_path, ckpt_path=f"{tmp_path}/last.ckpt")._wandb_init["id"] == "abc"
    assert new(tmp_path)._wandb_init["id"] is None
    assert new(tmp_path, stage="test", ckpt_path=f"{tmp_path}/best.ckpt")._wandb_init["id"] is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 3}', '{"id":' * 100_000], ids=range(5))
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "wandb.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'wandb.json'} is damaged: remove it")):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("images", "some", "logger.images=some must be one of"), ("finish_timeout", 0, "must be more than 0")],
)
def test_settings_that_cannot_be_are_named(tmp_path, field, value, message):
    with pytest.raises(ValueError, match=message):
        new(tmp_path, **{field: value})


# --- begin and end ----------------------------------------------------------------------------------------------------


class Following:
    def __init__(self, logger):
        self.loggers = [logger]


@pytest.mark.parametrize(
    ("error", "status"), [(None, 0), (SystemExit(143), 143), (SystemExit("no"), 1), (ZeroDivisionError(), 1)]
)
def test_a_run_ends_as_it_ended(tmp_path, monkeypatch, error, status):
    run, ended = new(tmp_path), []
    monkeypatch.setattr(WandbRun, "begin", lambda *_: None)
    monkeypatch.setattr(WandbRun, "end", lambda _, code: ended.append(code))

    def follow():
        with followed(Following(run), {}):
            if error is not None:
                raise error

    if error is None:
        follow()
    else:
        with pytest.raises(type(error)):
            follow()
    assert ended == [status]


def test_an_error_of_the_tracker_is_a_warning(tmp_path, caplog):
    run = new(tmp_path)

    class Broken(Sink):
        def log(self, values, commit=True):
            raise RuntimeError("the service is gone\nwith details")

    run._experiment, run.history = Broken(), None
    with caplog.at_level(logging.WARNING):
        run.log_metrics({"val/loss": 1.0}, 3)
    assert [record.getMessage() for record in caplog.records] == ["Weights & Biases: the service is gone"]


# --- private parts of other packages, each in one function of trackers.py --------------------------------------------


@pytest.fixture
def init(monkeypatch):
    """Takes the place of wandb.init; returns the arguments of the last call."""
    given = {}

    def init(**arguments):
        given.clear()
        given.update(arguments)
        return Sink()

    monkeypatch.setattr(wandb, "init", init)
    return given


@pytest.fixture
def client_run():
    """The client's run without its service."""
    return Run(settings=wandb.Settings(run_id="abc", entity="somebody", project="engrec", mode="offline"))


def test_lightning_starts_a_run_with_the_arguments_as_changed(tmp_path, init):
    assert "anonymous" in trackers.init_arguments(WandbLogger(save_dir=tmp_path))
    run = new(tmp_path, offline=False)
    trackers.init_arguments(run)["mode"] = "offline"
    assert run.experiment.id == "abc"
    assert init["mode"] == "offline"
    assert init["name"].startswith("finetune-synthetic-vgg_small")
    assert "anonymous" not in init


def test_connecting_gives_the_run_the_one_connection_that_its_artifacts_use(monkeypatch, client_run):
    connection = MagicMock(**{"_expected_artifact_type.return_value": "model"})
    connections = MagicMock(return_value=connection)
    monkeypatch.setattr("wandb.apis.public.Api", connections)
    monkeypatch.setattr(type(client_run.settings), "_offline", False)
    trackers.connect(client_run)
    assert connections.call_count == 1
    client_run._interface = MagicMock()
    client_run.log_artifact(wandb.Artifact("model-abc", type="model"))
    assert client_run._interface.deliver_artifact.call_count == 1
    assert connection._expected_artifact_type.call_count == 1
    assert connections.call_count == 1


def test_an_offline_run_records_its_input_only_in_this_way(client_run):
    client_run._interface = MagicMock()
    with pytest.raises(TypeError, match="offline"):
        client_run.use_artifact("somebody/engrec/model-abc:best")
    trackers.log_input_offline(client_run, artifact := wandb.Artifact("model-abc", type="model"))
    [call] = client_run._interface.publish_artifact.call_args_list
    assert call.args[1] is artifact
    assert call.kwargs["use_after_commit"]
    assert call.kwargs["is_user_created"]


def test_a_malformed_key_is_found_without_the_server():
    from wandb.sdk.lib.wbauth import check_api_key

    assert check_api_key("short") == trackers.key_problem("short") == "API key must have 40+ characters, has 5."
    assert trackers.key_problem("a" * 40) is None


def test_a_run_that_could_not_send_everything_in_time_says_so():
    """By a public setting, which raises TimeoutError."""
    settings = wandb.Settings(**trackers.init_arguments(new("unused", finish_timeout=3))["settings"])
    assert settings.finish_timeout == 1.5  # the rest is for the question whether the server answers
    assert settings.finish_timeout_raises

    class Slow(Sink):
        def finish(self, exit_code):
            raise TimeoutError

    assert trackers.finish(Sink(), 0) is True
    assert trackers.finish(Slow(), 0) is False


# --- house rules ------------------------------------------------------------------------------------------------------


def test_one_module_knows_it():
    calls = re.compile(r"import wandb|from wandb|\bwandb\.\w+\(|Wandb")
    knowing = [path.name for path in (ROOT / "engrec").rglob("*.py") if calls.search(path.read_text())]
    assert knowing == ["trackers.py"]


# --- sweeps -----------------------------------------------------------------------------------------------------------


def few(parameter):
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_asks_for_settings_that_there_are(compose, monkeypatch, tmp_path, path):
    """Its fixed overrides and the ends of each of its ranges, each composed and checked as train.py does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "run")
    sweep = yaml.safe_load(path.read_text())
    start, (*fixed, last) = sweep["command"][:3], sweep["command"][3:]
    assert start == ["${env}", "python", "train.py"]
    assert last == "${args_no_hyphens}"
    [init_from] = [override.partition("=")[2] for override in fixed if override.startswith("init_from=")]
    Path(init_from).parent.mkdir(parents=True)
    Path(init_from).touch()
    for key, parameter in sweep["parameters"].items():
        for value in few(parameter):
            cfg = compose(*fixed, f"{key}={value}")
            config.check(cfg)
            assert cfg.output_dir == "outputs/wandb/sweep/run"
    assert sweep["metric"] == {"name": f"best/{cfg.monitor}", "goal": "maximize"}


def test_the_sweep_over_folds_has_all_of_them(compose):
    [folds] = [yaml.safe_load(path.read_text()) for path in SWEEPS if path.stem == "folds"]
    cfg = compose("experiment=wacv2016_short", "stage=scratch")
    assert folds["parameters"]["split.fold"]["values"] == list(range(cfg.split.num_folds))


# --- the workspace ----------------------------------------------------------------------------------------------------


def test_a_workspace_needs_a_login(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"not logged in at .*: run wandb login"):
        wandb_workspace.save("engrec", "engrec")


def test_a_workspace_needs_its_package(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ValueError, match=r"wandb_workspaces is not installed: pip install -c constraints.txt"):
        wandb_workspace.save("engrec", "engrec")


@pytest.mark.filterwarnings("ignore:Pydantic V1 style")
def test_the_workspace_shows_what_runs_log(compose):
    """Its panels' keys are those of the configuration and of the metrics."""
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    cfg = compose("stage=finetune", "init_from=somewhere")
    for setting in wandb_workspace.SETTINGS:
        node = cfg
        for key in setting.split("."):
            node = node[key]
    spec = wandb_workspace.build("somebody", "engrec", "engrec")._to_model().spec.model_dump_json(by_alias=True)
    names = {f"{side}/{key}" for side in ("train", "val", "test") for key in logged()} - {"test/loss"}
    for key in (*names, "choices", "test/confusion_table", "test/roc_table"):
        assert key in spec


# --- a run that is stopped between its checkpoint and its log ---------------------------------------------------------


class Rows:
    """Stands for the client's run; a row is what was logged until a commit."""

    def __init__(self):
        self.rows, self.pending = [], {}

    def log(self, row, commit=True):
        self.pending |= row
        if commit:
            self.rows.append(self.pending)
            self.pending = {}


@pytest.mark.parametrize("saved", [True, False])
def test_an_epoch_that_was_saved_is_logged_even_if_the_run_is_stopped_before(tmp_path, saved):
    run, history = new(tmp_path), History(str(tmp_path))
    run._experiment, run.history, run.monitor = Rows(), history, "val/auc"
    first = {"epoch": 0, "lr": 0.1, "val/auc": 0.5, "train/loss": 1.0}
    history.epochs = [first]
    run.log_metrics({"val/auc": 0.5, "epoch": 0}, 3)
    run.log_metrics({"train/loss": 1.0, "epoch": 0}, 3)
    run.settle()
    assert len(run.experiment.rows) == 1
    run.log_metrics({"val/auc": 0.6, "epoch": 1}, 6)
    history.epochs += [first | {"epoch": 1, "val/auc": 0.6}] if saved else []
    run.settle()
    assert [row["epoch"] for row in run.experiment.rows] == ([0, 1] if saved else [0])
    if saved:
        assert run.experiment.rows[1].items() >= {"val/auc": 0.6, "train/loss": 1.0, "best/epoch": 1}.items()
        run.settle()
        assert len(run.experiment.rows) == 2
