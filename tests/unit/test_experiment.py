"""What a run says of itself before it starts and when it is over."""

import logging
import signal
import subprocess

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from engrec import console, plan
from engrec.console import say_calibration, say_split, warn_if_leaking, warn_if_not_the_first
from engrec.data import DataModule
from engrec.experiment import signals_end_the_run
from engrec.machine import cluster
from engrec.machine.signals import uninterrupted
from engrec.runs.folder import finished, going_on
from engrec.splits import Split


@pytest.fixture
def data(make_faces):
    """Eight people; only the fourth, in sorted order, is tested."""
    split = Split(np.arange(12, 24), np.arange(9), np.arange(9, 12))
    return DataModule(make_faces(), split, lambda images: images, 4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["split=official"], "official, the data set's own"),
        (["split=holdout"], "holdout, by subject"),
        (["split=kfold", "split.fold=2", "split.num_folds=4"], "kfold, fold 2 of 4, by subject"),
        (["split=loso", "split.fold=3"], "loso, fold 3 of 8: subject s03 is tested"),
        (["split=random"], "random, by image"),
    ],
)
def test_the_split_is_said_in_words(compose, data, overrides, said):
    assert say_split(compose("stage=scratch", *overrides), data) == said


@pytest.mark.parametrize("split", ["official", "holdout", "kfold", "loso", "random"])
def test_only_a_split_that_leaks_is_warned_of(compose, caplog, split):
    with caplog.at_level(logging.WARNING):
        warn_if_leaking(compose("stage=scratch", f"split={split}"))
    assert [record.getMessage() for record in caplog.records] == [console.LEAKAGE] * (split == "random")


@pytest.mark.parametrize(
    ("module", "class_names", "warned"),
    [
        ("engrec.modules.engagement.EngagementModule", ["class0", "class1"], True),
        ("engrec.modules.engagement.EngagementModule", ["low", "middle", "high"], False),
        ("engrec.modules.expression.ExpressionModule", ["class0", "class1"], False),
    ],
)
def test_a_backbone_that_has_seen_these_classes_is_warned_of(
    compose, data, caplog, tmp_path, module, class_names, warned
):
    hyper_parameters = {"model": {}, "class_names": class_names, "preprocessing": {}}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": hyper_parameters, "module": module}, path)
    with caplog.at_level(logging.WARNING):
        warn_if_not_the_first(compose("stage=finetune", f"init_from={path}"), data)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("temperature", "before", "after", "said"),
    [
        (1.8342, 0.1431, 0.0612, "temperature 1.83 lowers ECE from 0.143 to 0.061"),
        (0.7, 0.05, 0.0713, "temperature 0.70 raises ECE from 0.050 to 0.071"),
        (1.0, 0.05, 0.05, "temperature 1 leaves ECE at 0.050"),
    ],
)
def test_calibration_is_said_for_better_or_worse(temperature, before, after, said):
    values = {"temperature": temperature, "test/ece": before, "test/ece_calibrated": after}
    assert say_calibration(values) == said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_status_and_its_handler_comes_back(number, status):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, signals_end_the_run():
        signal.raise_signal(number)
    assert end.value.code == status
    assert signal.getsignal(number) is before


def test_what_is_done_first_at_a_signal_is_done_once_and_its_handler_comes_back():
    done, before = [], {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    for number in before:
        with pytest.raises(SystemExit) as end, signals_end_the_run(**{number.name: lambda n=number: done.append(n)}):
            signal.raise_signal(number)
        assert end.value.code == 128 + number
    assert done == [signal.SIGTERM, signal.SIGUSR1]
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_signal_waits_for_what_is_to_be_whole():
    written = []

    def write():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            written.append("whole")
        written.append("more")

    with pytest.raises(SystemExit) as end, signals_end_the_run():
        write()
    assert end.value.code == 143
    assert written == ["whole"]


def test_without_a_signal_nothing_waits():
    with signals_end_the_run(), uninterrupted():
        pass


@pytest.mark.parametrize(
    ("state", "asked"), [("JobState=RUNNING PreemptTime=2026-11-23", 1), ("JobState=COMPLETING PreemptTime=None", 0)]
)
def test_a_terminated_job_is_requeued_if_it_was_preempted(monkeypatch, state, asked):
    said = []

    def scontrol(*arguments):
        said.append(arguments[0])
        return subprocess.CompletedProcess(arguments, 0, state, "")

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(cluster, "scontrol", scontrol)
    with pytest.raises(SystemExit) as end, signals_end_the_run(**cluster.slurm_signals()):
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143
    assert said.count("requeue") == asked


def test_outside_slurm_its_signals_are_left_alone(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert cluster.slurm_signals() == {}


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
    assert not going_on(cfg, folder)
    assert (cfg.ckpt_path, cfg.init_from) == (None, "FILE")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert going_on(cfg, folder)
    assert (cfg.ckpt_path, cfg.init_from) == (str(folder / "last.ckpt"), None)
    (folder / "last.ckpt").unlink()
    again = compose("stage=finetune", "init_from=FILE")
    assert going_on(again, folder)
    assert (again.ckpt_path, again.init_from) == (None, "FILE")


def test_a_test_has_no_last(compose, tmp_path):
    with pytest.raises(ValueError, match=r"type the checkpoint to test, …/best\.ckpt"):
        going_on(compose("stage=test", "ckpt_path=last", f"output_dir={tmp_path}"), tmp_path)


def test_ckpt_path_last_needs_a_folder(compose, tmp_path):
    with pytest.raises(ValueError, match="type output_dir=outputs/… too"):
        going_on(compose("ckpt_path=last"), tmp_path)


def test_ckpt_path_last_starts_where_there_is_nothing_to_go_on_with(compose, tmp_path):
    cfg = compose("ckpt_path=last", f"output_dir={tmp_path}")
    assert not going_on(cfg, tmp_path)
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
        going_on(compose("ckpt_path=last", other), folder)


def test_nor_with_one_that_started_elsewhere(compose, folder_of):
    folder = folder_of("stage=finetune", "init_from=FILE")
    assert going_on(compose("stage=finetune", "init_from=./FILE", "ckpt_path=last"), folder)
    assert going_on(compose("stage=finetune", "init_from=null", "ckpt_path=last"), folder)
    with pytest.raises(ValueError, match="holds another run, which started from FILE"):
        going_on(compose("stage=finetune", "init_from=OTHER", "ckpt_path=last"), folder)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "a: b: c"])
def test_a_damaged_configuration_is_said(compose, folder_of, text):
    folder = folder_of()
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        going_on(compose("ckpt_path=last"), folder)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"metrics": 3}', '{"metrics": {"test/auc": []}}'])
def test_a_damaged_result_is_said(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        finished(tmp_path)


def test_a_test_in_a_job_that_is_started_again_is_done_once(monkeypatch, compose, folder_of):
    folder = folder_of("stage=test", "ckpt_path=FILE")
    assert not going_on(compose("stage=test", "ckpt_path=FILE"), folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    cfg = compose("stage=test", "ckpt_path=FILE")
    assert going_on(cfg, folder)
    assert cfg.ckpt_path == "FILE"


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_end_the_run():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


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
    assert plan.choose_for_machine(cfg) == "as the run that goes on had it"
    assert [cfg.trainer.precision, cfg.speed.memory_format, cfg.speed.fused_optimizer] == expected


def test_what_is_chosen_for_the_machine_is_in_the_configuration(compose):
    cfg = compose("trainer.accelerator=cpu")
    why = plan.choose_for_machine(cfg)
    assert "ms" in why
    assert cfg.trainer.precision in ("bf16-mixed", "32-true")
    assert cfg.speed.memory_format in ("channels_last", "contiguous")
    assert cfg.speed.fused_optimizer is True
    plain = compose("trainer.accelerator=cpu", "trainer=plain")
    plan.choose_for_machine(plain)
    assert (plain.trainer.precision, plain.speed.memory_format) == ("32-true", "contiguous")
    assert plain.speed.fused_optimizer is False


def test_gradients_are_clipped_by_an_optimizer_that_is_not_fused(compose):
    clipped = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1"]
    cfg = compose(*clipped)
    plan.choose_for_machine(cfg)
    assert cfg.speed.fused_optimizer is False
    with pytest.raises(ValueError, match=r"not clipped in bf16-mixed with speed.fused_optimizer=true: type false"):
        plan.choose_for_machine(compose(*clipped, "speed.fused_optimizer=true"))


def test_all_gpus_where_there_is_none_is_said(compose):
    with pytest.raises(ValueError, match=r"type trainer.devices=2"):
        plan.choose_for_machine(compose("trainer=ddp", "trainer.accelerator=cpu"))
