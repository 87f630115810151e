"""A configuration is resolved into a plan: what a run starts from, where it writes, what the machine chose."""

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from engrec.errors import quoted
from engrec.plan import Command, choose_for_machine, command, resolve_resuming
from engrec.runs.folder import config_of, finished


@pytest.mark.parametrize(
    "typed",
    ["init_from=engrec:expressions", "init_from='a b:c'", r"init_from=C:\x", "split.fold=1", "dataset.exclude=[blank]"],
)
def test_the_command_of_a_run_of_a_sweep_can_be_pasted_and_makes_that_run(compose, tmp_path, typed):
    key, _, value = typed.partition("=")
    [escaped] = OverridesParser.create().parse_override(f"{key}=choice({value})").sweep_string_iterator()
    base, folder = ("experiment=fer2013_short", "split=kfold", "ckpt_path=last"), tmp_path / "it's a ${sweep}" / "0"
    line = str(Command((*base, f"{key}={escaped}"), {}, 0, folder, True))
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    python, script, *pasted = done.stdout.splitlines()
    assert (python, script) == ("python", "train.py")
    assert not any("\\:" in word for word in pasted)
    assert compose(*pasted) == compose(*base, typed, f"output_dir={quoted(folder)}")
    assert compose(*pasted).output_dir == str(folder)


def resuming(cfg, folder):
    return resolve_resuming(cfg, folder, command())


@pytest.fixture
def folder_of(compose, tmp_path):
    """The folder of a run that was made with these overrides, and with a checkpoint."""

    def folder_of(*overrides):
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(compose(*overrides), resolve=True))
        (tmp_path / "last.ckpt").touch()
        return tmp_path

    return folder_of


def test_a_job_that_is_started_again_goes_on(monkeypatch, compose, folder_of):
    folder = folder_of("stage=finetune", "init_from=FILE", "trainer.precision=32-true", "speed.fused_optimizer=true")
    cfg = compose("stage=finetune", "init_from=FILE")
    assert not resuming(cfg, folder)
    assert (cfg.ckpt_path, cfg.init_from) == (None, "FILE")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resuming(cfg, folder)
    assert (cfg.ckpt_path, cfg.init_from) == (str(folder / "last.ckpt"), None)
    (folder / "last.ckpt").unlink()
    again = compose("stage=finetune", "init_from=FILE")
    assert resuming(again, folder)
    assert (again.ckpt_path, again.init_from) == (None, "FILE")


def test_a_test_has_no_last(compose, tmp_path):
    with pytest.raises(ValueError, match=r"To test, give a file: ckpt_path=outputs/…/best\.ckpt"):
        resuming(compose("stage=test", "ckpt_path=last", f"output_dir={tmp_path}"), tmp_path)


def test_ckpt_path_last_needs_a_folder(compose, tmp_path):
    with pytest.raises(ValueError, match="needs a fixed folder to resume from: add output_dir=outputs/NAME"):
        resuming(compose("ckpt_path=last"), tmp_path)


def test_ckpt_path_last_starts_where_there_is_nothing_to_go_on_with(compose, tmp_path):
    cfg = compose("ckpt_path=last", f"output_dir={tmp_path}")
    assert not resuming(cfg, tmp_path)
    assert cfg.ckpt_path is None


@pytest.mark.parametrize(
    "other",
    [
        *("seed=3", "optimizer.lr=0.5", "dataset.num_train=99", "augment=strong", "model=cnn"),
        *("+trainer.limit_train_batches=1", "callbacks=early_stopping"),
    ],
)
def test_it_does_not_go_on_with_another_run(compose, folder_of, other):
    folder = folder_of()
    with pytest.raises(ValueError, match="holds another run, with"):
        resuming(compose("ckpt_path=last", other), folder)


def test_nor_with_one_that_started_elsewhere(compose, folder_of):
    folder = folder_of("stage=finetune", "init_from=FILE")
    assert resuming(compose("stage=finetune", "init_from=./FILE", "ckpt_path=last"), folder)
    assert resuming(compose("stage=finetune", "init_from=null", "ckpt_path=last"), folder)
    with pytest.raises(ValueError, match="holds another run, which started from FILE"):
        resuming(compose("stage=finetune", "init_from=OTHER", "ckpt_path=last"), folder)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "a: b: c"])
def test_a_damaged_configuration_is_said(compose, folder_of, text):
    folder = folder_of()
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        resuming(compose("ckpt_path=last"), folder)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"metrics": 3}', '{"metrics": {"test/auc": []}}'])
def test_a_damaged_result_is_said(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        finished(tmp_path)


def test_a_test_in_a_job_that_is_started_again_is_done_once(monkeypatch, compose, folder_of):
    folder = folder_of("stage=test", "ckpt_path=FILE")
    assert not resuming(compose("stage=test", "ckpt_path=FILE"), folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    cfg = compose("stage=test", "ckpt_path=FILE")
    assert resuming(cfg, folder)
    assert cfg.ckpt_path == "FILE"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], ["32-true", "contiguous", False]),
        (["trainer.precision=bf16-mixed"], ["bf16-mixed", "contiguous", False]),
        (["speed.memory_format=channels_last"], ["32-true", "channels_last", False]),
    ],
)
def test_a_run_that_goes_on_keeps_what_was_chosen_for_it_unless_other_is_typed(compose, tmp_path, typed, expected):
    had = "trainer: {precision: 32-true}\nspeed: {memory_format: contiguous, fused_optimizer: false}\n"
    (tmp_path / "config.yaml").write_text(had)
    (tmp_path / "last.ckpt").touch()
    folder = [f"output_dir={tmp_path}", f"ckpt_path={tmp_path / 'last.ckpt'}"]
    cfg = compose("trainer.accelerator=cpu", *folder, *typed)
    assert choose_for_machine(cfg, config_of(tmp_path)) == "as before it was stopped"
    assert [cfg.trainer.precision, cfg.speed.memory_format, cfg.speed.fused_optimizer] == expected


def test_a_foreign_configuration_learns_nothing_of_the_environment(compose, monkeypatch):
    monkeypatch.setenv("SECRET", "of-the-environment")
    asked = "${oc.env:SECRET}"
    before = {"trainer": {"precision": asked}, "speed": {"memory_format": asked, "fused_optimizer": asked}}
    cfg = compose("trainer.accelerator=cpu", "model=vgg_small")
    choose_for_machine(cfg, before)
    assert "of-the-environment" not in str(OmegaConf.to_container(cfg, resolve=True))


def test_what_is_chosen_for_the_machine_is_in_the_configuration(compose):
    cfg = compose("trainer.accelerator=cpu")
    why = choose_for_machine(cfg)
    assert "ms" in why
    assert cfg.trainer.precision in ("bf16-mixed", "32-true")
    assert cfg.speed.memory_format in ("channels_last", "contiguous")
    assert cfg.speed.fused_optimizer is True
    plain = compose("trainer.accelerator=cpu", "trainer=plain")
    choose_for_machine(plain)
    assert (plain.trainer.precision, plain.speed.memory_format) == ("32-true", "contiguous")
    assert plain.speed.fused_optimizer is False


def test_gradients_are_clipped_by_an_optimizer_that_is_not_fused(compose):
    clipped = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1"]
    cfg = compose(*clipped)
    choose_for_machine(cfg)
    assert cfg.speed.fused_optimizer is False
    with pytest.raises(ValueError, match=r"not clipped in bf16-mixed with speed.fused_optimizer=true: set"):
        choose_for_machine(compose(*clipped, "speed.fused_optimizer=true"))


def test_all_gpus_where_there_is_none_is_said(compose):
    with pytest.raises(ValueError, match=r"set trainer.devices=2"):
        choose_for_machine(compose("trainer=ddp", "trainer.accelerator=cpu"))
