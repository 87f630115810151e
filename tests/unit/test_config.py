"""What is wrong with a configuration is said before anything is built, all of it, on one line."""

import errno
import math
import re
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engrec import errors
from engrec.config import TTA, check, groups, logged_in
from engrec.errors import explain
from engrec.runs.reading import flatten

CONF = Path(__file__).parents[2] / "conf"


def options(group):
    found = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert found
    return found


def needed(stage="pretrain", dataset="synthetic"):
    """Overrides for what a stage or a data set cannot do without, pointing at files that are there."""
    here = str(CONF / "config.yaml")
    given = {"finetune": [f"init_from={here}"], "test": [f"ckpt_path={here}"]}.get(stage, [])
    return [*given, f"dataset.path={here}"] if dataset == "prepared" else given


def problem(cfg):
    with pytest.raises(ValueError, match=r"\S") as error:
        check(cfg)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("stage", options("stage"))
@pytest.mark.parametrize("model", options("model"))
def test_every_stage_takes_every_model(compose, stage, model):
    check(compose(f"stage={stage}", f"model={model}", *needed(stage)))


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "scratch"])
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_stage_takes_every_experiment(compose, stage, experiment):
    check(compose(f"stage={stage}", f"experiment={experiment}", *needed(stage)))


@pytest.mark.parametrize("stage", options("stage"))
@pytest.mark.parametrize("dataset", options("dataset"))
def test_every_stage_takes_every_dataset(compose, stage, dataset):
    check(compose(f"stage={stage}", f"dataset={dataset}", *needed(stage, dataset)))


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={option}"
        for group in ("split", "augment", "mixup", "optimizer", "lr_scheduler", "callbacks", "trainer", "logger")
        for option in options(group)
    ],
)
def test_every_option_is_valid(compose, choice):
    check(compose(choice, *["split.fold=0"] * (choice == "split=loso")))


@pytest.mark.parametrize("option", options("distill"))
def test_every_kind_of_distillation_is_valid(compose, option):
    cfg = compose(f"distill={option}", *["distill.runs=outputs"] * (option != "none"))
    check(cfg)
    assert cfg.module.soft_labels == (option != "none")


def test_distillation_asks_for_the_teachers(compose):
    assert "distill.runs=outputs/teachers" in problem(compose("distill=teachers"))


def test_leave_one_subject_out_asks_for_the_subject(compose):
    assert "split.fold=0" in problem(compose("split=loso"))


def test_no_group_is_forgotten():
    """A new folder of conf/ belongs to one of the tests above."""
    covered = {"stage", "model", "dataset", "split", "augment", "optimizer", "lr_scheduler", "callbacks", "trainer"}
    covered |= {"mixup", "distill"}
    found = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert found - {"sweep"} == covered | {"logger", "experiment", "hydra"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=resnet_small", "model.widths=[8]"], "model.widths=[8] must be three numbers"),
        (["augment=progressive", "augment.sizes=[[0.5]]"], "augment.sizes=[[0.5]]"),
    ],
)
def test_what_a_signature_does_not_say_is_asked_of_the_constructor(compose, overrides, words):
    cfg = compose("stage=scratch", *overrides)
    with pytest.raises(Exception) as error:  # noqa: PT011 (Hydra's, around the class's own)
        check(cfg)
    assert words in explain(error.value)


def test_missing_values_are_said_all_at_once(compose):
    message = problem(compose("stage=finetune", "dataset=prepared"))
    assert message.startswith("missing ")
    assert "init_from=outputs/pretrain" in message
    assert "dataset.path=data/" in message
    assert "ckpt_path=outputs" in problem(compose("stage=test"))


@pytest.mark.parametrize(
    ("override", "found", "meant"),
    [
        ("+model.widht=2", "model.widht", "width"),
        ("+dataset.label_nois=0", "dataset.label_nois", "label_noise"),
        ("+split.val_fractoin=0.2", "split.val_fractoin", "val_fraction"),
        ("+optimizer.momentun=0", "optimizer.momentun", "momentum"),
        ("+module.freeze=true", "module.freeze", ""),
        ("+trainer.gradient_clip=1", "trainer.gradient_clip", "gradient_clip_val"),
        ("+callbacks.best.montior=x", "callbacks.best.montior", "monitor"),
    ],
)
def test_unknown_argument_gets_the_nearest(compose, override, found, meant):
    message = problem(compose(override))
    assert found in message
    assert meant in message.partition("did you mean")[2].partition("?")[0]
    assert re.search(rf"{re.escape(found.rpartition('.')[0])} takes \w+, \w+", message)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["distill=teachers", "distill.runs=x", "module.soft_labels=false"],
            "distill=teachers makes soft labels: do not set module.soft_labels=false",
        ),
        (
            ["stage=scratch", "distill=teachers", "distill.runs=x"],
            "distill=teachers is for stage=pretrain: set distill=none for stage=scratch",
        ),
        (["distill=teachers", "distill.runs=x", "distill.share=2"], "distill.share=2 must be a number from 0 to 1"),
        (["batch_size=0"], "batch_size=0 must be at least 1"),
        (["seed=-1"], "seed=-1 must be from 0 to 4294967295"),
        (["max_epochs=-1"], "max_epochs=-1 must be at least 1"),
        (
            ["monitor=val/acuracy"],
            "val/accuracy, val/balanced_accuracy, val/f1, val/auc, val/qwk, val/mae, val/mse, ",
        ),
        (["monitor=test/accuracy"], "monitor=test/accuracy must be one of val/accuracy, "),
        (["tta=five_crop"], "tta=five_crop must be one of none, flip, ten_crop"),
        (["ckpt_path=no/such.ckpt"], "ckpt_path=no/such.ckpt is not a file"),
        (["optimizer.lr=fast"], "optimizer.lr=fast must be a number above 0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan must be a number above 0"),
        (["optimizer.lr=inf"], "optimizer.lr=inf must be a number above 0"),
        (["optimizer.nesterov=maybe"], "optimizer.nesterov=maybe must be true or false"),
        (["optimizer.momentum=0"], "set optimizer.nesterov=false"),
        (["model.width=-1"], "model.width=-1 must be a number above 0 and at most 16"),
        (["model.norm=layer"], "model.norm=layer must be one of lrn, batch, none"),
        (["model.dense=[64,0]"], "model.dense=[64, 0] must be a list, each a whole number from 1 to 65536"),
        (["module.label_smoothing=1"], "module.label_smoothing=1 must be a number from 0 and below 1"),
        (["stage=scratch", "module.backbone_lr_factor=-0.1"], "module.backbone_lr_factor=-0.1 must be a number of at"),
        (["stage=scratch", "module.class_weights=[1,-1]"], "must be balanced or a list, each a number above 0 or null"),
        (["stage=scratch", "module.layer_decay=0"], "layer_decay=0 must be a number above 0 and at most 1 or null"),
        (["stage=scratch", "module.ordinal=coral"], "module.ordinal=coral must be corn or null"),
        (["stage=scratch", "module.logit_adjustment=-1"], "logit_adjustment=-1 must be a number above 0 or null"),
        (["stage=scratch", "module.freeze_backbone=all"], "freeze_backbone=all must be true or false or statistics"),
        (
            ["stage=scratch", "module.freeze_backbone=statistics"],
            "has no pre-trained statistics to keep: set stage=finetune",
        ),
        (["stage=scratch", "module.l2_sp=0.1"], "would stay near random weights: set stage=finetune init_from=…"),
        (["balance=class"], "balance=class must be subject or null"),
        (["lr_scheduler.warmup=2"], "lr_scheduler.warmup=2 must be a number from 0 to 1"),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=-1"], "patience=-1 must be a whole number of"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1 must be a number above 0 or null"),
        (["trainer.devices=0"], "trainer.devices=0 must be a whole number from 1 to 1024 or one of -1, auto"),
        (["callbacks.last.filename=best"], "callbacks.last must write last.ckpt into output_dir"),
        (["callbacks.best.mode=min"], "callbacks.best must keep the best epoch by monitor"),
        (["callbacks.best.monitor=val/loss"], "callbacks.best must keep the best epoch by monitor"),
        (["+callbacks.best.save_top_k=0"], "callbacks.best must keep the best epoch by monitor"),
        (["+callbacks.best.every_n_epochs=3"], "callbacks.best.every_n_epochs could leave an epoch without"),
        (["+callbacks.last.every_n_train_steps=9"], "callbacks.last.every_n_train_steps could leave an epoch without"),
        (["callbacks.best.save_on_train_epoch_end=false"], "save_on_train_epoch_end could leave an epoch"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/acc"],
            "monitor=val/acc must be one of",
        ),
        (["callbacks.history=null"], "callbacks.history must be a node with a _target_"),
        (["+callbacks.x.y=3"], "callbacks.x must be a node with a _target_"),
        (["+logger.x=3"], "logger.x needs a logger: set logger=tensorboard"),
        (
            ["+trainer.max_steps=0"],
            "trainer.max_steps could leave an epoch without validation or checkpoint",
        ),
        (["+trainer.limit_train_batches=0"], "trainer.limit_train_batches=0 must be a number above 0"),
        (["+model._partial_=true"], "model._partial_ is unknown"),
        (["+trainer._partial_=true"], "trainer._partial_ is unknown"),
        (["output_dir=''"], "output_dir is empty"),
        (["batch_size=1"], "set batch_size=2 or more"),
        (["++model._target_=engrec.models.vgg.VVG"], "cannot be imported"),
        (["++model._target_=engrec.modles.vgg.VGG"], "cannot be imported"),
        (["stage=finetune", "init_from=null"], "stage=scratch"),
        (["stage=scratch", "lr_scheduler=none", "+lr_scheduler.warmup=0.3"], "lr_scheduler.warmup has no effect with"),
        (
            ["stage=scratch", "mixup=none", "+mixup.share=0.3"],
            "mixup.share has no effect with mixup=none: leave it out",
        ),
        (["stage=scratch", "+trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches=0 must be"),
        (["stage=scratch", "trainer.precision=64-true"], "trainer.precision=64-true must be one of auto, 32-true"),
        (["stage=scratch", "+trainer.limit_test_batches=1"], "trainer.limit_test_batches could leave"),
        (["stage=scratch", "init_from=engrec:expressions"], "starts from random weights: leave out init_from=, or set"),
        (["init_from=FILE", "ckpt_path=FILE"], "ckpt_path=null"),
        (["ckpt_path=FILE"], f"set output_dir={CONF}"),
        (["stage=test", "ckpt_path=FILE", "init_from=FILE"], "init_from"),
    ],
)
def test_wrong_values_and_combinations(compose, overrides, said):
    assert said in problem(compose(*(o.replace("FILE", str(CONF / "config.yaml")) for o in overrides)))


def test_early_stopping_follows_the_direction_of_its_own_metric(compose):
    cfg = compose("stage=pretrain", "callbacks=early_stopping", "callbacks.early_stopping.monitor=val/loss")
    assert (cfg.monitor, cfg.callbacks.early_stopping.mode) == ("val/accuracy", "min")


@pytest.mark.parametrize("schedule", ["none", "plateau", "cosine"])
def test_the_schedule_of_an_experiment_can_be_another(compose, schedule):
    check(compose("experiment=fer2013", f"lr_scheduler={schedule}"))


@pytest.mark.parametrize("kind", TTA)
@pytest.mark.parametrize("stage", options("stage"))
def test_every_stage_takes_every_kind_of_views(compose, stage, kind):
    check(compose(f"stage={stage}", f"tta={kind}", *needed(stage)))


def test_a_stage_of_another_name_is_refused(compose):
    cfg = compose()
    cfg.stage = "train"
    assert "stage=train must be one of pretrain, finetune, scratch, test" in problem(cfg)


def test_several_problems_are_said_together(compose):
    message = problem(compose("batch_size=0", "monitor=loss", "+model.widht=1", "optimizer.lr=x"))
    for part in ("batch_size=0", "monitor=loss", "model.widht", "optimizer.lr=x"):
        assert part in message


def test_a_path_that_is_no_file_names_the_checkpoints_nearby(compose, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.ckpt").touch()
    message = problem(compose("stage=finetune", f"init_from={tmp_path}/rum/best.ckpt"))
    assert f"there are {tmp_path}/run/best.ckpt" in message


@pytest.mark.parametrize(
    ("override", "said", "meant"),
    [
        ("modle=vgg", "there is no modle in the configuration", "model"),
        ("max_epoch=3", "there is no max_epoch in the configuration", "max_epochs"),
        ("optimizer.l_r=1", "there is no optimizer.l_r in the configuration", "optimizer.lr"),
        ("optimiser.lr=1", "there is no optimiser.lr in the configuration", "optimizer.lr"),
        ("model=vgg_smal", "model=vgg_smal must be one of", "vgg_small"),
        ("stage=pretrian", "stage=pretrian must be one of", "pretrain"),
        ("dataset=ferplu", "dataset=ferplu must be one of", "ferplus"),
    ],
)
def test_a_misspelt_override_gets_the_nearest(compose, monkeypatch, override, said, meant):
    monkeypatch.setattr(sys, "argv", ["train.py", override])
    with pytest.raises(HydraException) as error:
        compose(override)
    message = explain(error.value)
    assert "\n" not in message
    assert message.startswith(said)
    assert meant in message.partition("did you mean")[2].partition("?")[0]


def test_an_unknown_option_names_all(compose):
    with pytest.raises(HydraException) as error:
        compose("model=transformer")
    assert explain(error.value).endswith(f"model=transformer must be one of {', '.join(options('model'))}")


def test_a_search_is_another_command(compose):
    with pytest.raises(HydraException) as error:
        compose("sweep=small")
    assert "python scripts/sweep.py sweep=small" in explain(error.value)


def test_what_help_lists_can_be_chosen(compose):
    listed = dict(line.split(": ") for line in groups().splitlines())
    assert listed.keys() == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra", "sweep"}
    assert all(set(options(group)) <= set(names.split(", ")) for group, names in listed.items())
    compose("experiment=" + next(name for name in listed["experiment"].split(", ") if "/" in name))


def test_a_value_of_the_wrong_type_is_explained(compose):
    with pytest.raises(HydraException) as error:
        compose("batch_size=many")
    message = explain(error.value)
    assert "batch_size=many" in message
    assert "Integer" in message
    assert "\n" not in message


def test_the_mode_follows_the_monitor(compose):
    assert compose("monitor=val/loss").callbacks.best.mode == "min"
    assert compose("monitor=val/auc").callbacks.best.mode == "max"
    assert compose("monitor=val/loss", "lr_scheduler=plateau").lr_scheduler.mode == "min"


def test_logged_in_by_environment_variable_or_netrc(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert not logged_in("SOME_KEY", "https://api.example.org")
    monkeypatch.setenv("SOME_KEY", "secret")
    assert logged_in("SOME_KEY", "https://api.example.org")
    monkeypatch.delenv("SOME_KEY")
    (tmp_path / ".netrc").write_text("machine api.example.org login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert logged_in("SOME_KEY", "https://api.example.org")
    assert not logged_in("SOME_KEY", "https://api.other.org")
    (tmp_path / ".netrc").write_text("not a netrc file\n")
    assert not logged_in("SOME_KEY", "https://api.example.org")


def test_wandb_is_offline_without_a_key(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert compose("logger=wandb").logger.offline is True
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert compose("logger=wandb").logger.offline is False


def test_errors_of_the_user_leave_one_line_and_status_1():
    with pytest.raises(SystemExit) as end, errors.errors_in_one_line():
        raise ValueError("this\nis  wrong")
    assert end.value.code == "error: this is wrong"


def test_errors_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), errors.errors_in_one_line():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.CheckpointError("last.ckpt is damaged"), 65),
        (errors.DivergedError("training diverged"), 70),
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 74),
    ],
)
def test_a_bad_checkpoint_a_divergence_and_a_full_disk_have_exit_statuses_of_their_own(capsys, error, status):
    for raised in (error, ValueError("what it means")):
        with pytest.raises(SystemExit) as end, errors.errors_in_one_line():
            raise raised from error if raised is not error else None
        assert end.value.code == status
        assert capsys.readouterr().err.startswith("error: ")


WALKED = {
    "scratch": ["stage=scratch", "split=kfold", "augment=strong", "callbacks=early_stopping", "logger=wandb"],
    "pretrain": ["model=vgg_small", "lr_scheduler=plateau", "dataset.num_train=70", "dataset.label_noise=0.1"],
    "cnn": ["model=cnn", "optimizer=adamw", "lr_scheduler=paper", "split=holdout", "trainer.gradient_clip_val=1"],
}
ODD = (-1, math.nan, 10**9, "word", [3], None)
MORE = (0, math.inf, 1e9, True)


@pytest.fixture(scope="module")
def tried():
    """(key, value) pairs that were checked in another configuration."""
    return set()


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("scratch", ODD),
        pytest.param("scratch", MORE, marks=pytest.mark.slow),
        *(pytest.param(name, (*ODD, *MORE), marks=pytest.mark.slow) for name in ("pretrain", "cnn")),
    ],
)
def test_every_number_is_allowed_or_refused_in_one_line(compose, tried, name, odd):
    """With values that nobody means; tests/integration/test_values.py trains with those that are allowed."""
    composed = compose(*WALKED[name])
    OmegaConf.resolve(composed)  # once, as it takes most of the time of a check
    values = flatten(OmegaConf.to_container(composed))
    keys = [key for key, value in values if type(value) in (int, float)]
    assert len(keys) > 12
    pairs = [(key, value) for key in keys for value in odd if (key, repr(value)) not in tried]
    tried.update((key, repr(value)) for key, value in pairs)
    for key, value in pairs:
        cfg = composed.copy()
        try:
            OmegaConf.update(cfg, key, value)
            check(cfg)
        except (ValueError, OmegaConfBaseException) as error:
            message = explain(error)
            assert "\n" not in message
            assert key in message, (key, value, message)
