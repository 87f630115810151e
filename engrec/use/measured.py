"""What finished runs say of a network: its scores with intervals, and its temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engrec.evidence import comparison
from engrec.evidence.clips import per_clip
from engrec.evidence.comparison import Comparison
from engrec.evidence.groups import Group, differing, read_groups
from engrec.metrics import fit_temperature, logits_of
from engrec.runs.record import Run
from engrec.schema import same_plain
from engrec.splits import LEAKING


@dataclass(frozen=True, eq=False)
class Measured:
    """comparison: the network's scores and those of the controls, and beside them of several views of each image;
    fitted: on what the temperature was; clips: the scores of clips, if the images are frames of some."""

    comparison: Comparison
    temperature: float
    fitted: str
    clips: Comparison | None = None

    @property
    def group(self) -> Group:
        return self.comparison.groups[0]


def why_none(trained: Run | None, saved: dict[str, Any]) -> str:
    """Why the scores of its run are not the scores of this checkpoint; empty if they are."""
    if trained is None:
        return "no finished run tells how good it is on people or images that it has not learned from"
    if trained.kind["split"] in LEAKING:
        return LEAKING[trained.kind["split"]].caution
    if not has_tested(trained, saved):
        return "its run has tested another epoch, that of best.ckpt"
    return ""


def has_tested(run: Run, saved: dict[str, Any]) -> bool:
    """Whether a run has tested the epoch of the checkpoint: last.ckpt is of another one than best.ckpt."""
    tested = (run.result.get("validation") or {}).get("epoch")
    return tested is None or tested == saved.get("epoch", 0)


def measure(runs: Sequence[Run], saved: dict[str, Any], num_resamples: int = 2000) -> Measured:
    """Of runs that differ only in fold and seed. saved: the checkpoint that is exported.

    Raises ValueError for runs of several experiments, of another network or other classes, and for runs whose scores
    are no result.
    """
    groups = sorted(read_groups(runs), key=lambda group: bool(group.name["views"]))
    plain = [group for group in groups if not group.name["views"]]
    if len(plain) > 1:
        several = "; ".join(" ".join(filter(None, group.name.values())) for group in plain)
        raise ValueError(f"--runs has {len(plain)} experiments ({several}): give the folds and seeds of one")
    check_scores_this(plain[0], saved)
    temperature, fitted = temperature_of(plain[0])
    images, *clips = comparison.build([*groups, *per_clip(groups)], num_resamples)
    return Measured(images, temperature, fitted, clips[0] if clips else None)


def check_scores_this(group: Group, saved: dict[str, Any]) -> None:
    """Raise ValueError unless these are results of a network with the checkpoint's classes and architecture."""
    folder, parameters = group.runs[0].folder, saved["hyper_parameters"]
    if group.leaks:
        split = group.name["split"]
        raise ValueError(f"--runs: {folder} has split={split}, whose scores are no result: give runs of split=kfold")
    if group.name["stage"] == "baseline":
        raise ValueError(f"--runs: {folder} is a baseline: give runs of the checkpoint's network")
    if list(group.class_names) != list(parameters["class_names"]):
        ours, theirs = (", ".join(names) for names in (parameters["class_names"], group.class_names))
        raise ValueError(f"--runs: {folder} has the classes {theirs}, the checkpoint has {ours}")
    for run in group.runs:
        model = run.result.get("model")
        if isinstance(model, dict) and "_target_" in model and not same_plain(model, parameters["model"]):
            raise ValueError(f"--runs: {run.folder} has another network ({model}) than the checkpoint")


def temperature_of(group: Group) -> tuple[float, str]:
    """Of one run, the one that it has fitted on its validation images. Of several, one for all their test images: each
    was predicted by a network that has not seen it."""
    if len(group.runs) == 1:
        found = (group.runs[0].result.get("calibration") or {}).get("temperature")
        return (1.0, "not fitted") if found is None else (float(found), "fitted on the validation images")
    logits = logits_of(group.probabilities.reshape(-1, len(group.class_names))).numpy()
    temperature = fit_temperature(logits, np.tile(group.labels, len(group.seeds)))
    images = f"the pooled test images of these {len(group.runs)} networks"
    return temperature, f"as none fits {images}" if temperature == 1 else f"fitted on {images}"


def differences(trained: Run, scored: Sequence[Run]) -> list[str]:
    """The settings, but for the split, in which a network was trained otherwise than those that are scored."""
    keys = differing([trained, *scored])
    return [key for key in keys if key.partition(".")[0] != "split"]
