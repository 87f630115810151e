"""Private parts of Hydra and OmegaConf that error messages need, and what they are for."""

import sys
from types import SimpleNamespace

import pytest
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.utils import JobReturn, JobStatus
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
    """Hydra's own sweeper, with a launcher whose trials end as given."""

    def sweep(*ends):
        sweeper = basic_sweeper.BasicSweeper(max_batch_size=None)
        sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "sweeper": {"params": None}}})
        sweeper.launcher = SimpleNamespace(launch=lambda batch, initial_job_idx: [job(*end) for end in enumerate(ends)])
        loader = SimpleNamespace(load_sweep_config=lambda **_: None)
        sweeper.hydra_context = SimpleNamespace(config_loader=loader)
        with errors.every_error_named():
            sweeper.sweep(["seed=1"])

    return sweep


def test_every_failed_trial_of_hydras_sweeper_is_found(sweep, capsys):
    with pytest.raises(ValueError, match="the last"):
        sweep(None, ValueError("the\nfirst"), None, ValueError("the last"))
    assert "error: trial 1: the first" in capsys.readouterr().err.splitlines()


def test_the_public_value_of_a_failed_trial_is_its_error_raised():
    with pytest.raises(ValueError, match="mine"):
        _ = job(0, ValueError("mine")).return_value


def test_an_error_outside_of_a_sweep_has_no_trials():
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
