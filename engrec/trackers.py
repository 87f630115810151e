"""What a tracker is told of a run: Weights & Biases (logger=wandb), whose package is loaded only where it is chosen."""

import json
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

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

RECORD = "wandb.json"  # in the run's folder: which run at Weights & Biases is its own
FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")
NO_KEY = "Type logger.offline=true, or wandb login"
ROC_POINTS, NUM_FACES = 500, 32


class Epochs(Protocol):
    """The history of a run: the metrics of each epoch, and the epoch with the best value of the monitored one."""

    epochs: list[dict[str, float]]

    def best(self, monitor: str) -> dict[str, float]: ...


class WandbRun(WandbLogger):
    """A run at Weights & Biases: one row for each epoch, the best checkpoint, and what the test says.

    folder: the run's own, where everything is written first; stage, dataset, model, split: as chosen, they name the
    run and its group, whose members differ in fold and seed; network: the class that is built; run: what tells apart
    runs of one name. init_from, ckpt_path: where it starts from. offline: nothing is sent until `wandb sync`.
    images: whether faces are shown ("auto": drawn ones alone); checkpoint: whether the best one is uploaded;
    init_timeout, finish_timeout: seconds to wait for the server before the run goes on, and ends, without it.
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
            raise ValueError(f"logger.images={images} is none of auto, true, false")
        if min(init_timeout, finish_timeout) <= 0:
            raise ValueError("logger.init_timeout and logger.finish_timeout are seconds, more than 0")
        self.stage, self.folder, self.images, self.checkpoint = stage, Path(folder), images, checkpoint
        self.waiting: tuple[Any, int | None] | None = None  # the epoch and step of a row that validation has begun
        self.folders: dict[str, str] = {}
        self.source = init_from if stage != "test" else ckpt_path
        # A checkpoint that is tested brings its own network, whatever model= says.
        model = model if stage != "test" else network.rpartition(".")[2]
        self.choices = {"stage": stage, "dataset": dataset, "model": model, "split": split}
        group = group or "-".join(self.choices.values())
        resumed = stage != "test" and (ckpt_path is not None or cluster.restarted())
        super().__init__(
            name=name or f"{group}-{run}",
            save_dir=folder,
            id=recorded(self.folder).get("id") if resumed else None,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type or stage,
            tags=[tag for tag in tags if tag is not None],
            mode="offline" if offline else None,
            settings={"init_timeout": init_timeout, "finish_timeout": finish_timeout, "quiet": True},
        )
        del self._wandb_init["anonymous"]  # the client complains of it
        if not offline:
            check_key()

    def begin(self, config: dict[str, Any], history: Epochs | None) -> None:
        """Open the run, offline where the server does not, and say what it starts from."""
        # Where the client puts copies of what it sends, pictures among them: by default into the home folder.
        folders = {name: str((self.folder / "wandb" / "copies").resolve()) for name in FOLDERS}
        self.folders = {name: path for name, path in folders.items() if name not in os.environ}
        os.environ.update(self.folders)
        self.monitor = config["monitor"]
        self.history = history
        try:
            run = self.experiment
        except Exception as error:
            run = self.without_server(error)
        if not run.offline:
            # Asked now, while the server answers: at the end, each table and checkpoint would wait for an answer first.
            run._public_api()
            run._assert_can_log_artifact = lambda artifact: None
        define_metrics(run)
        super().log_hyperparams(config | {"choices": self.choices})
        with atomic_write(self.folder / RECORD) as file:
            json.dump({"id": run.id, "project": run.project, "entity": run.entity, "artifact": best_of(run.id)}, file)
        if self.source is not None:
            with unharmed():
                self.use(Path(self.source))

    def without_server(self, error: Exception) -> Any:
        """An offline run in the place of one that no server opened."""
        from wandb.errors import AuthenticationError, CommError

        if isinstance(error, AuthenticationError):
            raise ValueError(f"Weights & Biases: {explained(error)} {NO_KEY}") from error
        if not isinstance(error, CommError):
            raise error
        log.warning("Weights & Biases did not open the run (%s): going on offline", explained(error))
        self._wandb_init["mode"] = "offline"
        return self.experiment

    def use(self, checkpoint: Path) -> None:
        """Record the artifact of another run's checkpoint as this run's input, where that run has one."""
        import wandb
        from wandb.errors import CommError

        before, run = recorded(checkpoint.parent), self.experiment
        if "artifact" not in before or checkpoint.name != "best.ckpt" or not self.checkpoint:
            return
        run.config.update({"input": before}, allow_val_change=True)
        if not run.offline:
            entity, project = before["entity"] or run.entity, before["project"] or run.project
            try:
                run.use_artifact(f"{entity}/{project}/{before['artifact']}")
            except (CommError, ValueError) as error:
                why = explained(error)
                log.warning("%s is not recorded as the input (%s): sync its run first", before["artifact"], why)
            return
        # Offline there is no artifact to ask for. The same files under the same name are the same version once both
        # runs are synced; use_artifact would wait for the server to say so.
        artifact = wandb.Artifact(before["artifact"].partition(":")[0], type="model")
        artifact.add_file(str(checkpoint.resolve()), name=checkpoint.name, policy="immutable", skip_cache=True)
        run._log_artifact(artifact, aliases=[], is_user_created=True, use_after_commit=True)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """One row for each epoch: validation comes first and waits for training, which brings learning rate and the
        best epoch so far."""
        with unharmed(), uninterrupted():
            validated, trained = (any(name.startswith(side) for name in metrics) for side in ("val/", "train/"))
            self.waiting = (metrics.get("epoch"), step) if validated and not trained else None
            self.experiment.log(self.row(metrics, step), commit=self.waiting is None)

    def settle(self) -> None:
        """A run that is stopped after an epoch was saved, and before this was told of it, goes on after that epoch."""
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
        """Nothing: `begin` has told it the configuration, before anything else."""

    def record(self, faces: Faces, index: np.ndarray, logits: Tensor, labels: Tensor, result: dict[str, Any]) -> None:
        """The test in tables and curves, what the run cost, and the best checkpoint.

        index (N,): which of `faces` were tested; logits (N, K) and labels (N,) go with it; result: as in result.json.
        """
        run, names = self.experiment, faces.class_names
        shown = {"test/confusion": confusion_chart(logits, labels, names), "test/roc": roc_chart(logits, labels, names)}
        if self.images is True or (self.images == "auto" and faces.recipe.get("importer") == "synthetic"):
            shown["test/faces"] = faces_table(faces, index, logits, labels)
        run.log(shown)
        cost = ("epochs", "seconds", "num_parameters", "train_images_per_second")
        run.summary.update({name: result[name] for name in cost} | result["calibration"])
        if "tta" in result:
            tta = {f"{name}_{result['tta']['kind']}": value for name, value in result["tta"]["metrics"].items()}
            run.summary.update(tta)
        made = ("dataset", "num_images", "hardware", "versions", "git_commit", "command")
        run.config.update({"result": {name: result[name] for name in made}}, allow_val_change=True)
        if self.checkpoint and (self.folder / "best.ckpt").is_file() and self.stage != "test":
            self.upload(result)

    def upload(self, result: dict[str, Any]) -> None:
        """The best checkpoint, where it lies: neither copied nor cached."""
        import wandb

        metadata = {name: result[name] for name in ("metrics", "validation", "choices", "seed", "git_commit")}
        artifact = wandb.Artifact(best_of(self.experiment.id).partition(":")[0], type="model", metadata=metadata)
        artifact.add_file(str((self.folder / "best.ckpt").resolve()), policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact, aliases=["best", self.stage])

    def end(self, status: int) -> None:
        """Close the run as one that ended with this exit status, and print the line that sends it later if need be."""
        import wandb

        if self._experiment is not None:
            self.settle()
        run, self._experiment = self._experiment, None
        if run is not None:
            with unharmed():
                run.finish(exit_code=status)
        with unharmed():
            wandb.teardown(exit_code=status)  # its service, which knows the folder of this run
        for name in self.folders:
            del os.environ[name]
        if run is None:
            return
        if run.offline or run._finish_timed_out:
            why, more = ("offline", []) if run.offline else ("not all of it was sent", ["--include-online"])
            log.info(
                "Weights & Biases: %s. Send it with: %s", why, shlex.join(["wandb", "sync", *more, *shown_paths(run)])
            )


@contextmanager
def followed(trainer: pl.Trainer, config: dict[str, Any], history: Epochs | None = None) -> Iterator[None]:
    """The trackers' runs begin and end with this one, as it ends: one left open would take in the next trial's."""
    first = rank_zero_only.rank == 0  # pyright: ignore[reportFunctionMemberAccess]
    runs = [logger for logger in trainer.loggers if first and isinstance(logger, WandbRun)]
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
    """Tell each tracker what the test says; WandbRun.record has the arguments."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            with unharmed():
                logger.record(faces, index, logits, labels, result)


def check_key() -> None:
    """Raise ValueError for a WANDB_API_KEY that cannot be one, before there is anything of the run."""
    try:
        from wandb.sdk.lib.wbauth import check_api_key
    except ImportError:  # another version of the client, which says it when the run is opened
        return
    key, online = os.environ.get("WANDB_API_KEY"), os.environ.get("WANDB_MODE", "online") == "online"
    if key and online and (wrong := check_api_key(key)):
        raise ValueError(f"Weights & Biases: {wrong} {NO_KEY}")


@contextmanager
def unharmed() -> Iterator[None]:
    """What goes wrong at the tracker is said; the run that it is told of goes on."""
    try:
        yield
    except Exception as error:
        log.warning("Weights & Biases: %s", explained(error))


def explained(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def recorded(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its run at Weights & Biases; empty where it has none."""
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if isinstance(found, dict) and all(value is None or isinstance(value, str) for value in found.values()):
            return found
    except ValueError:
        pass
    raise ValueError(f"{path} is damaged: remove it, and the run goes on as a new one at Weights & Biases")


def best_of(run_id: str) -> str:
    """The name of a run's best checkpoint, known before anything is sent."""
    return f"model-{run_id}:best"


def shown_paths(run: Any) -> list[str]:
    """What `wandb sync` is to be given: of an offline run that went on all parts, of another the one."""
    last = Path(run.settings.sync_dir)
    parts = sorted(last.parent.glob(f"offline-run-*-{run.id}")) if run.offline else []
    return [str(p.relative_to(Path.cwd()) if p.is_relative_to(Path.cwd()) else p) for p in parts or [last]]


def define_metrics(run: Any) -> None:
    """Curves over epochs; in the table of runs the best value stands, not the last."""
    for side in ("train", "val"):
        for score in logged():
            best = "max" if higher_is_better(score) else "min"
            run.define_metric(f"{side}/{score}", step_metric="epoch", summary=best)
    run.define_metric("lr", step_metric="epoch")
    run.define_metric("best/*", step_metric="epoch", hidden=True)


def confusion_chart(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> Any:
    import wandb

    said = logits.argmax(1).tolist()
    return wandb.plot.confusion_matrix(y_true=labels.tolist(), preds=said, class_names=list(class_names))


def roc_chart(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> Any:
    """Of two classes the second's curve; of several each one's against the rest."""
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
    """Pictures of test images with what was said of them: the surest mistakes first, then the least sure right ones."""
    import wandb

    probability, said = (values.numpy() for values in logits.double().softmax(1).max(1))
    wrong = said != labels.numpy()
    order = np.lexsort((np.where(wrong, -probability, probability), ~wrong))[:NUM_FACES]
    table = wandb.Table(columns=["image", "source", "label", "prediction", "probability"])
    for i in order.tolist():
        image = faces.images[index[i]]
        picture = wandb.Image(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        names = (faces.class_names[k] for k in (int(labels[i]), said[i]))
        table.add_data(picture, str(faces.sources[index[i]]), *names, float(probability[i]))
    return table
