"""A saved workspace at Weights & Biases: scores by model and stage, learning curves, what the settings do, the tests.

python scripts/wandb_workspace.py engrec
python scripts/wandb_workspace.py TEAM/engrec --name "engrec, fine-tuning"

It needs a login (wandb login) and the package: pip install -c constraints.txt wandb-workspaces
"""

import argparse
import os
import sys
from typing import Any

from engrec.machine.signals import ctrl_c_exits

with ctrl_c_exits():
    from engrec.config import logged_in
    from engrec.errors import errors_in_one_line
    from engrec.metrics import scores

SETTINGS = ("optimizer.lr", "optimizer.weight_decay", "module.backbone_lr_factor", "batch_size")
INSTALL = "pip install -c constraints.txt wandb-workspaces"


def build(entity: str, project: str, name: str) -> Any:
    """The workspace, unsaved."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    tests = [
        wr.BarPlot(title=f"test {score} by {kind}", metrics=[f"test/{score}"], groupby=wr.Config(f"choices.{kind}"))
        for score in scores(ordered=True)
        for kind in ("model", "stage")
    ]
    curves = [
        wr.LinePlot(title=f"{side} {score}", x="epoch", y=[f"{side}/{score}"], groupby="Group", smoothing_factor=0.0)
        for score in ("loss", *scores(ordered=True))
        for side in ("train", "val")
    ]
    column = wr.ParallelCoordinatesPlotColumn  # pyright: ignore[reportPrivateImportUsage]
    columns = [column(wr.Config(setting)) for setting in SETTINGS]
    columns += [column(wr.SummaryMetric("best/val/auc"))]
    confusion = wr.CustomChart(
        query={"summaryTable": {"tableKey": "test/confusion_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
    )
    roc = wr.CustomChart(
        query={"summaryTable": {"tableKey": "test/roc_table"}},
        chart_name="wandb/area-under-curve/v0",
        chart_fields={"x": "fpr", "y": "tpr", "class": "class"},
        chart_strings={"title": "ROC", "x-axis-title": "False positive rate", "y-axis-title": "True positive rate"},
    )
    sections = {
        "Test scores": tests,
        "Learning curves": curves,
        "Settings": [wr.ParallelCoordinatesPlot(title="settings and the best validation AUC", columns=columns)],
        "Tests": [confusion, roc],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch"),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group")]),
    )


def save(path: str, name: str) -> str:
    """Save the workspace of PROJECT or ENTITY/PROJECT; returns its address.

    Raises ValueError where the package, a login or an answer is lacking.
    """
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if not logged_in("WANDB_API_KEY", url):
        raise ValueError(f"not logged in at {url}: run wandb login, or set WANDB_API_KEY")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: {INSTALL}") from error
    entity, _, project = path.rpartition("/")
    try:
        return build(entity or str(wandb.Api().default_entity), project, name).save().url
    except Exception as error:  # the client has many kinds, and none of them is a mistake of this script
        raise ValueError(f"{url} did not save it: {str(error).splitlines()[0]}") from error


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", help="PROJECT or ENTITY/PROJECT, whose runs are shown")
    parser.add_argument("--name", default="engrec", help="of the workspace (default: engrec)")
    options = parser.parse_args(arguments)
    print(save(options.project, options.name))


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
