"""Private parts of Hydra and OmegaConf that error messages need, and what they are for."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from engrec import errors
from engrec.config import check


def job(number, error):
    hydra = OmegaConf.create({"hydra": {"job": {"num": number}}})
    result = JobReturn(hydra_cfg=hydra, status=JobStatus.FAILED if error else JobStatus.COMPLETED)
    result.return_value = error
    return result


@pytest.fixture
def sweep(tmp_path):
    """Hydra's own sweeper, with a launcher whose runs end as given."""

    def sweep(*ends):
        sweeper = basic_sweeper.BasicSweeper(max_batch_size=None)
        sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "sweeper": {"params": None}}})
        sweeper.launcher = SimpleNamespace(launch=lambda batch, initial_job_idx: [job(*end) for end in enumerate(ends)])
        loader = SimpleNamespace(load_sweep_config=lambda **_: None)
        sweeper.hydra_context = SimpleNamespace(config_loader=loader)
        with errors.every_error_named():
            sweeper.sweep(["seed=1"])

    return sweep


def test_every_failed_run_of_hydras_sweeper_is_found(sweep, capsys):
    with pytest.raises(ValueError, match="the last"):
        sweep(None, ValueError("the\nfirst"), None, ValueError("the last"))
    assert "error: run 1: the first" in capsys.readouterr().err.splitlines()


def test_the_public_value_of_a_failed_run_is_its_error_raised():
    with pytest.raises(ValueError, match="mine"):
        _ = job(0, ValueError("mine")).return_value


def test_an_error_outside_of_a_sweep_has_no_runs():
    with pytest.raises(ValueError, match="mine"), errors.every_error_named():
        raise ValueError("mine")


def test_the_root_of_a_configuration_is_found_from_a_part_of_it():
    config = OmegaConf.create({"trainer": {"limits": [{"epochs": 3}]}})
    assert errors._root(config.trainer.limits[0]) is config
    assert errors._root(config) is config


def test_keys_of_all_sections_are_listed_whatever_their_values_are():
    config = OmegaConf.create({"seed": 0, "module": None, "model": {"width": "???", "norm": {"name": "${seed}"}}})
    keys = ["seed", "module", "model", "model.width", "model.norm", "model.norm.name"]
    assert errors._keys(OmegaConf.to_container(config)) == keys


@pytest.mark.parametrize("value", ["a b(1)", "lauf=3/best.ckpt", "ü, (x)", "it's", 'a$b`c"d', "[x"])
def test_an_argument_that_hydra_cannot_read_is_answered_with_one_that_it_can(value):
    with pytest.raises(OverrideParseException) as error:
        OverridesParser.create().parse_overrides([f"output_dir={value}"])
    message = errors.explain(error.value)
    assert "\n" not in message
    typed = message.partition(" has characters that need quotes: ")[2]
    [argument] = subprocess.run(["sh", "-c", f"printf %s {typed}"], capture_output=True, text=True).stdout.splitlines()
    assert OverridesParser.create().parse_override(argument).value() == value


def test_an_argument_without_a_value_is_told_the_form():
    with pytest.raises(OverrideParseException) as error:
        OverridesParser.create().parse_overrides(["stage"])
    assert errors.explain(error.value).startswith("stage: every argument must be KEY=VALUE")


def test_running_out_of_memory_is_one_line_with_what_to_set():
    for error in (MemoryError("7 TB"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")):
        assert "set a smaller batch_size=" in errors.explain(error)
        assert errors._is_users(error)
    assert not errors._is_users(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(("override", "option"), [("model=null", "vgg_small"), ("optimizer=null", "adamw")])
def test_a_group_that_is_null_is_answered_with_its_options(compose, monkeypatch, override, option):
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1", override, "model.width=1"])
    with pytest.raises(Exception, match="Config group override") as error:
        compose(override)
    message = errors.explain(error.value)
    assert message.startswith(f"{override} must be one of ")
    assert option in message
    assert "seed" not in message


def test_a_run_cannot_do_without_a_node(compose):
    with pytest.raises(ValueError, match="module=null: a run cannot do without it"):
        check(compose("module=null"))
