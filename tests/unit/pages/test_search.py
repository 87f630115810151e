"""What a run of a trial leaves: its figures, and the end of its log."""

import pytest
from searches import parsed

from engrec.runs import folder
from engrec.search import space


def test_costs_are_read_from_what_a_run_measured(tmp_path):
    metrics = ["val/loss", "seconds_per_epoch", "train_images_per_second", "num_parameters"]
    objectives = parsed(tmp_path, objectives=[{"metric": metric} for metric in metrics]).objectives
    written = {
        "validation": {"val/loss": 0.5}, "num_images": {"train": 600}, "train_images_per_second": 200.0,
        "num_parameters": 7, "seconds": 99.0,
    }  # fmt: skip
    assert space.figures(written, objectives) == dict(zip(metrics, [0.5, 3.0, 200.0, 7.0], strict=True))
    with pytest.raises(ValueError, match="seconds_per_epoch is not in it"):
        space.figures(written | {"train_images_per_second": None}, objectives)


@pytest.mark.parametrize(
    ("log", "said"),
    [("", ""), ("a\n\nb\n", "a\nb"), ("1%\r2%\r3%\nerror: it\n", "3%\nerror: it"), ("x\n" * 9, "x\nx\nx\nx\nx")],
)
def test_the_end_of_a_log_is_without_what_a_bar_has_overwritten(tmp_path, log, said):
    (tmp_path / "log").write_text(log)
    assert folder.last_lines(tmp_path / "log") == said
    assert folder.last_lines(tmp_path / "none") == ""
