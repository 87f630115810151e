"""Every number of the configuration with values that nobody means: the run trains, or one line says what is wrong.

Values that are refused before anything is built are in tests/unit/test_config.py.
"""

import pytest
from commands import FEW, SMALL, Folder
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engrec.config import check
from engrec.runs.reading import flatten

COMMANDS = {
    "pretrain": ["lr_scheduler=plateau", "callbacks=early_stopping", "augment=strong", "trainer.gradient_clip_val=1"],
    "scratch": ["stage=scratch", "split=kfold", "optimizer=adamw"],
    "cnn": ["model=cnn", "lr_scheduler=paper", "split=holdout", "dataset.label_noise=0.1"],
}
ODD = (0, 10**9, 1e9)
FOREVER = [("max_epochs", 10**9), ("trainer.max_epochs", 10**9)]


def accepted(composed, key, value):
    """Whether the check of the configuration lets this value pass."""
    cfg = composed.copy()
    try:
        OmegaConf.update(cfg, key, value)
        check(cfg)
    except (ValueError, OmegaConfBaseException):
        return False
    return True


@pytest.fixture(scope="module")
def tried():
    """(key, value) pairs that an earlier command has been given: another would answer the same."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_value_that_is_not_refused_trains_or_gets_one_line(compose, tmp_path, tried, name):
    folder = Folder(tmp_path)
    small = SMALL if name != "cnn" else SMALL[2:]
    command = [*small, *FEW, "max_epochs=1", "dataset.images_per_subject=14", *COMMANDS[name]]
    composed = compose(*command)
    pairs = dict.fromkeys(  # where both are accepted, 10**9 is 1e9
        (key, value)
        for key, usual in flatten(OmegaConf.to_container(composed, resolve=True))
        for value in ODD
        if type(usual) in (int, float)
        and value != usual
        and (key, value) not in FOREVER
        and (key, value) not in tried
        and accepted(composed, key, value)
    )
    assert len(pairs) > 3
    tried.update(pairs)
    alone = [(key, value) for key, value in pairs if value != 0 and key.startswith("optimizer.")]  # which diverge
    for value in (0, 10**9):
        group = [pair for pair in pairs if pair[1] == value and pair not in alone]
        # Where a run with all of them trains, each does; what is refused is named, and tried alone.
        while group and (error := answer(folder, *command, *words(group), f"output_dir=all{value}")):
            named = [(key, value) for key, value in group if key.rpartition(".")[2] in error]
            alone += named or group
            group = [pair for pair in group if pair not in named] if named else []
    for number, override in enumerate(words(alone)):
        answer(folder, *command, override, f"output_dir=run{number}")


def words(pairs):
    return [f"{key}={value}" for key, value in pairs]


def answer(folder, *command):
    """The one line that says why it does not train; empty if it does."""
    done = folder.command(*command)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr, (command, done.stderr)
    assert len(errors) == (done.status != 0), (command, done.stderr)
    assert done.status in (0, 1, 70), (command, done.stderr)
    return "".join(errors)
