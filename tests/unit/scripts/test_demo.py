"""The demo removes its last results only for a command that can be run."""

import demo
import pytest
from hydra.errors import HydraException

from engrec.errors import explain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.widht=1", "there is no model.widht in the configuration (did you mean model.width"),
        ("max_epochs=0", "max_epochs=0 must be at least 1"),
        ("module.freeze_backbone=maybe", "freeze_backbone"),
        ("output_dir=mine", "output_dir=mine is decided by the demo for each run: leave it out"),
    ],
)
def test_what_a_run_would_refuse_is_refused_at_the_start(tmp_path, monkeypatch, override, message):
    (tmp_path / demo.OUT).mkdir(parents=True)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "run", lambda *_: pytest.fail("a run was started"))
    with pytest.raises((ValueError, HydraException)) as error:
        demo.main([override])
    assert message in explain(error.value)
    assert (tmp_path / demo.OUT).is_dir()


def test_a_demo_that_is_killed_ends_what_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    lines = [
        "import os, pathlib, signal, sys, time",
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(143)))",
        f"pathlib.Path({str(begun)!r}).touch()",
        "os.kill(os.getppid(), signal.SIGTERM)",
        "time.sleep(60)",
    ]
    with pytest.raises(SystemExit) as left:
        demo.run("a run", ["-c", "\n".join(lines)])
    assert left.value.code == 143
    assert begun.exists()
    assert ended.exists()
