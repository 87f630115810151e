"""Logging to Weights & Biases (logger=wandb). Its package is loaded only if it is chosen."""

import json
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from engrec.datasets.prepared import Faces
from engrec.machine import cluster
from engrec.machine.files import atomic_write
from engrec.machine.signals import uninterrupted
from engrec.metrics import higher_is_better, log_odds, logged, roc

log = logging.getLogger(__name__)

RECORD = "wandb.json"  # in the run's folder: the id, project and artifact of its run at Weights & Biases
FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")
NO_KEY = "Use logger.offline=true, or run: wandb login"
ROC_POINTS, NUM_FACES = 500, 32


class Epochs(Protocol):
    """The history of a run: the metrics of each epoch, and the epoch with the best value of the monitored metric."""

    epochs: list[dict[str, float]]

    def best(self, monitor: str) -> dict[str, float]: ...


class WandbRun(WandbLogger):
    """A run at Weights & Biases: one row for each epoch, the best checkpoint, and the test results.

    folder: the run's folder, where everything is written first; stage, dataset, model, split: the chosen options,
    which name the run and its group (the members of a group differ in fold and seed); network: the class of the
    network; run: a suffix that makes the run's name unique. init_from, ckpt_path: the checkpoint that the run starts
    from. offline: nothing is sent until `wandb sync`. images: whether faces are uploaded ("auto": synthetic faces
    only); checkpoint: whether the best one is uploaded; init_timeout, finish_timeout: seconds to wait for the server
    at the start and at the end, after which the run continues, or ends, without it.
    """

    def __init__(
        self,
        folder: str,
        stage: str,
        dataset: str,
        model: str,
        split: str,
        network: str,
        run: str,
        init_from: str | None = None,
        ckpt_path: str | None = None,
        offline: bool = False,
        project: str = "engrec",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str | None] = (),
        images: bool | str = "auto",
        checkpoint: bool = True,
        init_timeout: float = 60.0,
        finish_timeout: float = 60.0,
    ) -> None:
        if images not in (True, False, "auto"):
            raise ValueError(f"logger.images={images} must be one of auto, true, false")
        if min(init_timeout, finish_timeout) <= 0:
            raise ValueError("logger.init_timeout and logger.finish_timeout must be more than 0 seconds")
        self.url = check_environment(offline)
        # The client waits for a server that accepts requests and is silent for minutes, so it is asked only after such
        # a question, for which a part of each timeout is reserved.
        self.question = {name: min(10.0, t / 2) for name, t in (("init", init_timeout), ("finish", finish_timeout))}
        self.disabled = os.environ.get("WANDB_MODE") == "disabled"  # nothing is logged then, and no file written
        self.stage, self.folder, self.images, self.checkpoint = stage, Path(folder), images, checkpoint
        self.opened: Any = None  # the client's run, once `begin` has opened it
        self.waiting: tuple[Any, int | None] | None = None  # epoch and step of a row that has only validation metrics
        self.folders: dict[str, str] = {}
        self.source = init_from if stage != "test" else ckpt_path
        # With stage=test the network is the checkpoint's, whatever model= says.
        model = model if stage != "test" else network.rpartition(".")[2]
        self.choices = {"stage": stage, "dataset": dataset, "model": model, "split": split}
        group = group or "-".join(self.choices.values())
        resumed = stage != "test" and (ckpt_path is not None or cluster.restarted())
        super().__init__(
            name=name or f"{group}-{run}",
            save_dir=folder,
            id=read_record(self.folder).get("id") if resumed else None,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type or stage,
            tags=[tag for tag in tags if tag is not None],
            mode="disabled" if self.disabled else "offline" if offline else None,
            settings={
                "init_timeout": init_timeout - self.question["init"],
                "finish_timeout": finish_timeout - self.question["finish"],
                "finish_timeout_raises": True,
                "quiet": True,
            },
        )
        init_arguments(self).pop("anonymous", None)  # deprecated: wandb warns of it even if it is None

    def begin(self, config: dict[str, Any], history: Epochs | None) -> None:
        """Open the run (offline if the server cannot be reached) and record the checkpoint that it starts from."""
        # The client keeps copies of what it sends, images included: by default in the home folder.
        folders = {name: str((self.folder / "wandb" / "copies").resolve()) for name in FOLDERS}
        self.folders = {name: path for name, path in folders.items() if name not in os.environ}
        os.environ.update(self.folders)
        self.monitor = config["monitor"]
        self.history = history
        try:
            self.check_answers("init")
            self.opened = run = self.experiment
        except Exception as error:
            self.opened = run = self.open_offline(error)
        if not run.offline:
            connect(run)
        define_metrics(run)
        super().log_hyperparams(config | {"choices": self.choices})
        record = {"id": run.id, "project": run.project, "entity": run.entity, "artifact": artifact_name(run.id)}
        with atomic_write(self.folder / RECORD) as file:
            json.dump(record, file)
        if self.source is not None:
            with errors_as_warnings():
                self.log_input(Path(self.source))

    def open_offline(self, error: Exception) -> Any:
        """Open an offline run after the server could not be reached, as `error` says. Raises any other error."""
        from wandb.errors import AuthenticationError, CommError

        if isinstance(error, AuthenticationError):
            raise ValueError(f"Weights & Biases: {first_line(error)} {NO_KEY}") from error
        if not isinstance(error, CommError | TimeoutError):
            raise error
        log.warning("Weights & Biases did not open the run (%s): continuing offline", first_line(error))
        init_arguments(self)["mode"] = "offline"
        return self.experiment

    def check_answers(self, when: str) -> None:
        """Raise TimeoutError if the server is silent; a server that cannot be reached is left to the client."""
        try:
            if self.url is not None and (self.opened is None or not self.opened.offline):
                urlopen(self.url, timeout=self.question[when]).close()
        except OSError as error:
            if isinstance(getattr(error, "reason", error), TimeoutError):
                raise TimeoutError(f"{self.url} does not answer") from error

    def log_input(self, checkpoint: Path) -> None:
        """Record another run's checkpoint as the input of this run, if that run was logged to Weights & Biases."""
        import wandb
        from wandb.errors import CommError

        before, run = read_record(checkpoint.parent), self.experiment
        if "artifact" not in before or checkpoint.name != "best.ckpt" or not self.checkpoint:
            return
        run.config.update({"input": before}, allow_val_change=True)
        if not run.offline:
            entity, project = before["entity"] or run.entity, before["project"] or run.project
            try:
                run.use_artifact(f"{entity}/{project}/{before['artifact']}")
            except (CommError, ValueError) as error:
                reason = first_line(error)
                log.warning("%s is not recorded as the input (%s): sync its run first", before["artifact"], reason)
            return
        # Offline the artifact cannot be looked up. Once both runs are synced, the same file under the same name is the
        # same version.
        artifact = wandb.Artifact(before["artifact"].partition(":")[0], type="model")
        artifact.add_file(str(checkpoint.resolve()), name=checkpoint.name, policy="immutable", skip_cache=True)
        log_input_offline(run, artifact)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """One row for each epoch: validation metrics come first and are held until the training metrics arrive, with
        the learning rate and the best epoch so far."""
        if self.disabled:
            return
        with errors_as_warnings(), uninterrupted():
            validated, trained = (any(name.startswith(split) for name in metrics) for split in ("val/", "train/"))
            self.waiting = (metrics.get("epoch"), step) if validated and not trained else None
            self.experiment.log(self.row(metrics, step), commit=self.waiting is None)

    def settle(self) -> None:
        """Log the last epoch if the run was stopped between saving it and logging it: a resumed run starts after it."""
        if self.waiting is not None and self.history is not None and self.history.epochs:
            (epoch, step), last = self.waiting, self.history.epochs[-1]
            if last["epoch"] == epoch:
                self.log_metrics(last, step)

    def row(self, metrics: Any, step: int | None) -> dict[str, Any]:
        row = dict(metrics) | ({} if step is None else {"trainer/global_step": step})
        if "train/loss" in metrics and self.history is not None and self.history.epochs:
            row["lr"] = self.history.epochs[-1]["lr"]
            best = self.history.best(self.monitor)
            row |= {f"best/{name}": value for name, value in best.items() if name == "epoch" or name[:4] == "val/"}
        return row

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Does nothing: `begin` has logged the configuration already."""

    def record(self, faces: Faces, index: np.ndarray, logits: Tensor, labels: Tensor, result: dict[str, Any]) -> None:
        """Log the test as tables and curves, the cost of the run, and the best checkpoint.

        index (N,): the tested images in `faces`, with their logits (N, K) and labels (N,); result: as in result.json.
        """
        self.check_answers("finish")
        import wandb

        run, names, predictions = self.experiment, list(faces.class_names), logits.argmax(1).tolist()
        charts: dict[str, Any] = {
            "test/confusion": wandb.plot.confusion_matrix(None, labels.tolist(), predictions, names),
            "test/roc": roc_chart(logits, labels, names),
        }
        if self.images is True or (self.images == "auto" and faces.is_synthetic):
            charts["test/faces"] = faces_table(faces, index, logits, labels)
        run.log(charts)
        cost = ("epochs", "seconds", "num_parameters", "train_images_per_second")
        run.summary.update({name: result[name] for name in cost} | result["calibration"])
        if "tta" in result:
            tta = {f"{name}_{result['tta']['kind']}": value for name, value in result["tta"]["metrics"].items()}
            run.summary.update(tta)
        origin = ("dataset", "num_images", "hardware", "versions", "git_commit", "command")
        run.config.update({"result": {name: result[name] for name in origin}}, allow_val_change=True)
        if self.checkpoint and (self.folder / "best.ckpt").is_file() and self.stage != "test":
            self.upload(result)

    def upload(self, result: dict[str, Any]) -> None:
        """Upload the best checkpoint from where it is, without a copy in the client's cache."""
        import wandb

        metadata = {name: result[name] for name in ("metrics", "validation", "choices", "seed", "git_commit")}
        artifact = wandb.Artifact(artifact_name(self.experiment.id).partition(":")[0], type="model", metadata=metadata)
        artifact.add_file(str((self.folder / "best.ckpt").resolve()), policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact, aliases=["best", self.stage])

    def end(self, status: int) -> None:
        """Close the run with this exit status, and print the command that sends what is still on disk."""
        import wandb

        run, sent = self.opened, True
        if run is not None:
            self.settle()
            with errors_as_warnings():
                sent = finish(run, status)
        with errors_as_warnings():
            wandb.teardown(exit_code=status)  # stops the client's service, which keeps the folder of this run
        for name in self.folders:
            del os.environ[name]
        if run is not None and (run.offline or not sent):
            reason, more = ("offline", []) if run.offline else ("not all of it was sent", ["--include-online"])
            command = shlex.join(["wandb", "sync", *more, *paths_to_sync(run)])
            log.info("Weights & Biases: %s. Send it with: %s", reason, command)


# Private parts of Lightning and wandb, each in one function; tests/unit/test_trackers.py notices when one is gone.


def init_arguments(logger: WandbLogger) -> dict[str, Any]:
    """The arguments with which Lightning's logger will call wandb.init. Its constructor can neither leave out
    `anonymous` nor change the mode once the server has not answered."""
    return logger._wandb_init


def connect(run: Any) -> None:
    """Let the client connect to the server for later queries. It would otherwise do so for the first artifact, which
    is logged at the end: if the server is gone by then, the run waits 20 seconds longer than finish_timeout."""
    run._public_api()


def log_input_offline(run: Any, artifact: Any) -> None:
    """Record the artifact as an input of an offline run, for which run.use_artifact raises an error."""
    run._log_artifact(artifact, aliases=[], is_user_created=True, use_after_commit=True)


def key_problem(key: str) -> str | None:
    """What is wrong with the format of an API key, as one sentence. wandb.login would say it too, but write the key to
    the netrc file. None with a version of wandb without this check: there the error comes when the run is opened."""
    try:
        from wandb.sdk.lib.wbauth import check_api_key
    except ImportError:
        return None
    return check_api_key(key)


@contextmanager
def followed(trainer: pl.Trainer, config: dict[str, Any], history: Epochs | None = None) -> Iterator[None]:
    """Open the run at Weights & Biases, and close it with the exit status of this run. If it stayed open, the next
    run of a sweep would be logged to it."""
    first = rank_zero_only.rank == 0  # pyright: ignore[reportFunctionMemberAccess]
    runs = runs_of(trainer) if first else []
    status = 1
    try:
        for run in runs:
            run.begin(config, history)
        yield
        status = 0
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
        raise
    finally:
        for run in runs:
            run.end(status)


def record(
    trainer: pl.Trainer, faces: Faces, index: np.ndarray, logits: Tensor, labels: Tensor, result: dict[str, Any]
) -> None:
    """Log the test to each tracker; WandbRun.record documents the arguments."""
    for run in runs_of(trainer):
        with errors_as_warnings():
            run.record(faces, index, logits, labels, result)


def runs_of(trainer: pl.Trainer) -> list[WandbRun]:
    """Without those that WANDB_MODE=disabled turns off."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbRun) and not logger.disabled]


def check_environment(offline: bool) -> str | None:
    """The address of the server, None if it is not asked. Raises ValueError, before anything is written, for a variable
    WANDB_… that the client would refuse later."""
    import wandb
    from pydantic import ValidationError  # wandb's settings are checked by it

    settings = wandb.Settings()
    try:
        settings.update_from_env_vars(dict(os.environ))
    except ValidationError as error:
        problem = error.errors()[0]
        name = f"WANDB_{problem['loc'][0]}".upper()
        raise ValueError(f"{name}={problem['input']}: {problem['msg']}") from error
    if offline or settings.mode != "online":
        return None
    if settings.api_key and (problem := key_problem(settings.api_key)):
        raise ValueError(f"Weights & Biases: {problem} {NO_KEY}")
    return settings.base_url


@contextmanager
def errors_as_warnings() -> Iterator[None]:
    """Log an error of the tracker as a warning: training continues."""
    try:
        yield
    except Exception as error:
        log.warning("Weights & Biases: %s", first_line(error))


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def finish(run: Any, status: int) -> bool:
    """Close the run with this exit status; returns whether everything was sent within finish_timeout."""
    try:
        run.finish(exit_code=status)
    except TimeoutError:
        return False
    return True


def read_record(folder: Path) -> dict[str, Any]:
    """The id, project, entity and artifact of a folder's run at Weights & Biases; empty if it has none.

    Raises ValueError if the file is damaged.
    """
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if isinstance(found, dict) and all(value is None or isinstance(value, str) for value in found.values()):
            return found
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged: remove it, and the run resumes as a new run at Weights & Biases")


def artifact_name(run_id: str) -> str:
    """The name under which a run's best checkpoint is uploaded; it is known before anything is sent."""
    return f"model-{run_id}:best"


def paths_to_sync(run: Any) -> list[str]:
    """The arguments of `wandb sync`: all parts of a resumed offline run, else the one folder."""
    last = Path(run.settings.sync_dir)
    parts = sorted(last.parent.glob(f"offline-run-*-{run.id}")) if run.offline else []
    return [str(p.relative_to(Path.cwd()) if p.is_relative_to(Path.cwd()) else p) for p in parts or [last]]


def define_metrics(run: Any) -> None:
    """Plot curves over epochs; show the best value, not the last, in the table of runs."""
    for split in ("train", "val"):
        for score in logged():
            best = "max" if higher_is_better(score) else "min"
            run.define_metric(f"{split}/{score}", step_metric="epoch", summary=best)
    run.define_metric("lr", step_metric="epoch")
    run.define_metric("best/*", step_metric="epoch", hidden=True)


def roc_chart(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> Any:
    """ROC curve of the second of two classes, or of each of several classes against the rest."""
    import wandb

    scores, rows = log_odds(logits).numpy(), []
    for k, name in list(enumerate(class_names))[1 if len(class_names) == 2 else 0 :]:
        rows += [[name, x, y] for x, y in roc(scores[:, k], (labels == k).numpy(), ROC_POINTS).tolist()]
    return wandb.plot_table(
        vega_spec_name="wandb/area-under-curve/v0",
        data_table=wandb.Table(columns=["class", "fpr", "tpr"], data=rows),
        fields={"x": "fpr", "y": "tpr", "class": "class"},
        string_fields={"title": "ROC", "x-axis-title": "False positive rate", "y-axis-title": "True positive rate"},
    )


def faces_table(faces: Faces, index: np.ndarray, logits: Tensor, labels: Tensor) -> Any:
    """Test images with label and prediction: the most confident mistakes first, then the least confident correct
    predictions."""
    import wandb

    probability, predicted = (values.numpy() for values in logits.double().softmax(1).max(1))
    wrong = predicted != labels.numpy()
    order = np.lexsort((np.where(wrong, -probability, probability), ~wrong))[:NUM_FACES]
    table = wandb.Table(columns=["image", "source", "label", "prediction", "probability"])
    for i in order.tolist():
        image = faces.images[index[i]]
        picture = wandb.Image(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        names = (faces.class_names[k] for k in (int(labels[i]), predicted[i]))
        table.add_data(picture, str(faces.sources[index[i]]), *names, float(probability[i]))
    return table
