"""The parts of a search: what its YAML means, a journal that is always readable, and trials told what they are due."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import sweep as script
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.trial import TrialState

from engrec import search
from engrec.config import check

SWEEPS = sorted((script.ROOT / "conf" / "sweep").glob("*.yaml"))
SMALL = {
    "overrides": ["stage=scratch"],
    "search": {"x": {"low": 0.0, "high": 1.0}, "kind": {"choices": ["a", "b"]}},
    "objectives": [{"metric": "val/auc"}],
}


def parsed(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    OmegaConf.save(OmegaConf.create(SMALL | changes), path)
    return search.read(path)


# What is searched.


def test_there_are_the_four_sweeps_that_the_docs_name():
    assert {path.stem for path in SWEEPS} >= {"small", "speed", "vgg_finetune", "vgg_pretrain"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_key_of_every_sweep_is_one_of_the_configuration(compose, path):
    sweep = search.read(path)
    needed = [f"init_from={path}"] if "stage=finetune" in sweep.overrides else []
    for key, values in sweep.search.items():
        drawn = script.example(values, 1)
        cfg = compose(*search.merged(sweep.overrides, needed, search.arguments({key: drawn})))
        check(cfg)
        if not OmegaConf.is_config(OmegaConf.select(cfg, key)):  # a group's option is no value
            assert OmegaConf.select(cfg, key) == drawn
    script.check_fits(sweep, cfg)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_says_its_command(path):
    assert f"python scripts/sweep.py sweep={path.stem} " in path.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"serch": {}}, r"serch is unknown \(did you mean search\?\); allowed: overrides, search"),
        ({"search": {}}, "search is missing"),
        ({"search": {"x": {"low": 1, "hihg": 2}}}, r"search.x.hihg is unknown \(did you mean high\?\)"),
        ({"search": {"x": {"low": 1}}}, "search.x.high= is not a number; it takes low and high, or choices"),
        ({"search": {"x": {"low": 2, "high": 1}}}, "search.x has to have low < high"),
        ({"search": {"x": {"low": 0, "high": 1, "log": True}}}, "with log: true, low > 0"),
        ({"search": {"x": {"low": True, "high": 2}}}, "search.x.low=True is not a number"),
        ({"search": {"x": {"choices": []}}}, r"search.x.choices is not a list such as \[16, 32\]"),
        ({"search": {"x": {"choices": [1], "low": 0}}}, "search.x.low is unknown; allowed: choices"),
        ({"search": {"x": 3}}, "search.x is not a list of KEY: VALUE"),
        ({"overrides": ["stage"]}, "overrides: stage is not KEY=VALUE"),
        ({"objectives": [{"metric": "test/auc"}]}, "test/auc would choose on the test images"),
        ({"objectives": [{"metric": "val/acuracy"}]}, r"val/acuracy is not known \(did you mean val/accuracy"),
        ({"objectives": [{"metric": "val/auc", "direction": "up"}]}, "direction=up is neither minimize nor maximize"),
        ({"objectives": [{"metric": "val/auc"}] * 2}, "one of them is there twice"),
        ({"pruner": {"name": "medain"}}, r"pruner.name=medain is not known \(did you mean median\?\)"),
        ({"pruner": {"name": "median", "reduction_factor": 3}}, "pruner.reduction_factor is unknown"),
        ({"pruner": {"name": "median", "n_warmup_steps": -1}}, "pruner.n_warmup_steps=-1 is not a whole number"),
        ({"sampler": {"name": "grid"}}, "sampler.name=grid is not known; allowed: tpe, random"),
        ({"folds": [0, 0]}, r"folds=\[0, 0\]: allowed are different whole numbers from 0"),
        ({"seed": -1}, "seed=-1 is not a whole number from 0"),
        (
            {"objectives": [{"metric": "val/auc"}, {"metric": "num_parameters"}], "pruner": {"name": "median"}},
            "with several objectives no trial is worse than others while it runs: type null",
        ),
        ({"objectives": [{"metric": "num_parameters"}], "pruner": {"name": "median"}}, "known at the end of a run"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_in_one_line(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as error:
        parsed(tmp_path, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("search: {x: [")
    with pytest.raises(ValueError, match=r"mine.yaml is not YAML") as error:
        search.read(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_less_is_better_of_losses_and_costs_unless_said_otherwise(tmp_path):
    metrics = ["val/auc", "val/loss", "seconds_per_epoch", "train_images_per_second", "num_parameters"]
    sweep = parsed(tmp_path, objectives=[{"metric": metric} for metric in metrics])
    assert [objective.sign for objective in sweep.objectives] == [1, -1, -1, 1, -1]
    assert parsed(tmp_path, objectives=[{"metric": "val/auc", "direction": "minimize"}]).objectives[0].sign == -1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.floats(1e-9, 1e9) | st.sampled_from(["relu", "32-true"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_hydra_reads_a_value_as_it_was_drawn(value):
    read = OverridesParser.create().parse_override(f"key={search.text(value)}").value()
    assert read == to_six_digits(value)


def to_six_digits(value):
    if isinstance(value, list):
        return [to_six_digits(part) for part in value]
    return float(f"{value:.5e}") if isinstance(value, float) else value


@pytest.mark.parametrize("path", ["plain/0", "with space", "a=b,c", "it's", "[x]{y}", "a\\b", "a\\'b\\", "grün"])
def test_hydra_reads_a_path_as_it_is(path):
    assert OverridesParser.create().parse_override(f"output_dir={search.quoted(Path(path))}").value() == path


def test_what_the_command_line_fixes_is_not_searched(tmp_path):
    sweep = parsed(tmp_path).fixed(["x=0.5", "stage=pretrain", "+new=1"])
    assert list(sweep.search) == ["kind"]
    assert sweep.overrides == ("stage=pretrain", "x=0.5", "+new=1")
    with pytest.raises(ValueError, match="leave nothing to search for"):
        sweep.fixed(["kind=a"])


# The command line.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep=smal"], r"sweep=smal is not there \(did you mean small\?\); allowed: small, "),
        (["sweep=gone.yaml"], "sweep=gone.yaml is not a file"),
        ([], "missing sweep, what is searched: sweep= with small"),
        (["sweep=small", "n_trials=0"], "n_trials=0 is not a whole number from 1"),
        (["sweep=small", "workers=two"], "workers=two is not a whole number from 1"),
        (["sweep=small", "timeout=-1"], "timeout=-1 is not a number of seconds"),
        (["sweep=small", "timeout=nan"], "timeout=nan is not a number of seconds"),
        (["sweep=small", "n_trial=3"], r"there is no n_trial \(did you mean n_trials\?\)"),
        (["sweep=small", "folds=[x]"], "allowed are different whole numbers from 0"),
        (["sweep=small", "output_dir=here"], "output_dir cannot be set in a search: .*type folder="),
        (["sweep=small", "ckpt_path=last.ckpt"], "ckpt_path cannot be set in a search"),
        (["sweep=small", "hydra.verbose=true"], "hydra.verbose cannot be set in a search"),
        (["small"], "small: every argument is KEY=VALUE"),
    ],
)
def test_what_is_mistyped_is_said(arguments, said):
    with pytest.raises(ValueError, match=said):
        script.parse(arguments)


def test_what_is_typed_goes_where_it_belongs():
    typed = script.parse(
        ["sweep=small", "n_trials=7", "workers=2", "timeout=9", "folds=[0,2]", "seed=3", "batch_size=16"]
    )
    assert (typed.n_trials, typed.workers, typed.timeout) == (7, 2, 9)
    assert typed.sweep.folds == (0, 2)
    assert {"seed=3", "batch_size=16"} <= set(typed.sweep.overrides)
    assert typed.freed == ("batch_size",)
    assert typed.folder == Path("outputs/sweeps/small")
    assert typed.command.startswith("python scripts/sweep.py sweep=small n_trials=7")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["monitor=val/f1"], "type monitor=val/auc"),
        (["trainer.devices=2"], "type trainer.devices=1"),
        (["stage=test"], "stage=test trains nothing"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(compose, changes, said):
    sweep = search.read(script.sweep_file("small"))
    with pytest.raises(ValueError, match=said):
        script.check_fits(sweep, compose(*search.merged(sweep.overrides, changes)))


def test_every_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch):
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto"}})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(script, "cores", lambda: 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert script.machine(cfg, None) == [{"OMP_NUM_THREADS": "9"}]
    assert script.machine(cfg, 4) == [{"OMP_NUM_THREADS": "2"}] * 4
    assert script.machine(cfg, 20) == [{"OMP_NUM_THREADS": "1"}] * 20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in script.machine(cfg, None)] == ["3", "GPU-8f"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in script.machine(cfg, 3)] == ["3", "GPU-8f", "3"]
    cfg.trainer.accelerator = "cpu"
    assert "CUDA_VISIBLE_DEVICES" not in script.machine(cfg, 2)[0]


def test_pruning_knows_the_most_epochs_that_a_trial_may_have(tmp_path):
    cfg = OmegaConf.create({"max_epochs": 8})
    assert script.most_epochs(parsed(tmp_path), cfg) == 8
    assert script.most_epochs(parsed(tmp_path, search={"max_epochs": {"low": 2, "high": 20}}), cfg) == 20
    assert script.most_epochs(parsed(tmp_path, search={"max_epochs": {"choices": [30, 5]}}), cfg) == 30


# The folder.


def test_a_journal_that_is_cut_anywhere_is_read_and_gone_on_with(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    storage = optuna.storages.JournalStorage(search.Journal(whole))
    study = optuna.create_study(study_name="s", storage=storage)
    for value in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    journal = whole.read_bytes()
    for end in range(journal.index(b"\n") + 1, len(journal), 3):
        cut.write_bytes(journal[:end])
        storage = optuna.storages.JournalStorage(search.Journal(cut))
        assert cut.read_bytes() == journal[: journal.rfind(b"\n", 0, end) + 1]
        if end % 11 == 0:
            before = len(storage.get_all_trials(0))
            storage.create_new_trial(0)
            again = optuna.storages.JournalStorage(search.Journal(cut))
            assert len(again.get_all_trials(0)) == before + 1


def test_a_last_line_of_zeros_is_cut_off_and_damage_elsewhere_is_said(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n\0\0\0\n')
    search.repair(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    path.write_bytes(b'{"a": 1}\n{"b"\n{"c": 3}\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        search.repair(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b"\n{"c": 3}\n'


def test_a_write_that_fails_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    storage = optuna.storages.JournalStorage(search.Journal(path))
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"journal cannot be written \(No space left on device\)"):
            study.tell(trial, 0.5)
    assert path.read_bytes() == before
    study.tell(trial, 0.5)
    [told] = optuna.storages.JournalStorage(search.Journal(path)).get_all_trials(0)
    assert told.values == [0.5]


def test_optunas_own_backend_reads_the_journal(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), n_trials=4)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name="mine", storage=optuna.storages.JournalStorage(backend))
    assert [(t.params, t.values) for t in study.trials] == [(t.params, t.values) for t in searching.trials()]


def test_the_lock_is_held_by_the_process_and_goes_with_it(tmp_path):
    code = f"""
import time, pathlib
from engrec import search
with search.locked(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=script.ROOT)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(ValueError, match=f"by process {holder.pid}: stop that one"), search.locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with search.locked(tmp_path), (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# The search, with trials that are made up.


class Made:
    """A run that is over at once, or after as many looks as it has epochs; `values` are its epochs'."""

    def __init__(self, folder, values, status=0, result=None):
        self.folder, self.values, self.status, self.result = folder, values, status, result
        self.epochs, self.stopped = 0, False

    def ended(self):
        if self.stopped:
            return 143
        if self.epochs == len(self.values):
            if self.result is not None:
                (self.folder / "result.json").write_text(json.dumps(self.result))
            return self.status
        self.epochs += 1
        lines = [f"{number},{value}" for number, value in enumerate(self.values[: self.epochs])]
        (self.folder / "metrics.csv").write_text("\n".join(["epoch,val/auc", *lines, ""]))
        return None

    def stop(self):
        self.stopped = True

    kill = stop


class Launcher:
    """What `run(overrides, folder)` makes of each trial; kept: the overrides of each start."""

    def __init__(self, run, workers=1):
        self.run, self.slots, self.started = run, [{}] * workers, []

    def start(self, command, folder, slot):
        overrides = dict(word.split("=", 1) for word in command)
        self.started.append(overrides)
        return self.run(overrides, folder)

    def wait(self, jobs, seconds):
        pass

    def end(self, jobs):
        for job in jobs:
            job.stop()

    def end_left_over(self, folders):
        pass


WATCH = SimpleNamespace(draw=lambda searching: None, settled=lambda searching, record: None)


def result(value, **others):
    return {"validation": {"val/auc": value}, "metrics": {"test/auc": 0.0}, **others}


def good(overrides, folder):
    value = 1 - (float(overrides["x"]) - 0.3) ** 2
    return Made(folder, [value], result=result(value))


def searched(folder, sweep, run=good, n_trials=5, workers=1, epochs=10, **how):
    """A whole search in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = run if isinstance(run, Launcher) else Launcher(run, workers)
    study = search.open_study(folder, sweep)
    searching = search.Search(sweep, study, folder, launcher, [], n_trials, epochs, WATCH, **how)
    searching.run()
    return searching


def states(searching):
    return [trial.state.name for trial in searching.trials()]


def test_what_is_told_is_what_the_runs_wrote(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), n_trials=6, workers=2)
    for trial in searching.trials():
        written = json.loads((tmp_path / "trials" / str(trial.number) / "result.json").read_text())
        assert trial.values == [written["validation"]["val/auc"]]
    assert [float(started["x"]) for started in searching.launcher.started] == [
        pytest.approx(trial.params["x"], rel=1e-5) for trial in searching.trials()
    ]


@pytest.mark.parametrize("objectives", [[{"metric": "val/auc"}], [{"metric": "val/auc"}, {"metric": "num_parameters"}]])
def test_what_is_drawn_does_not_depend_on_where_a_search_was_stopped(tmp_path, objectives):
    sweep = parsed(tmp_path, objectives=objectives, sampler={"name": "tpe", "n_startup_trials": 4})

    def run(overrides, folder):
        value = 1 - (float(overrides["x"]) - 0.3) ** 2
        return Made(folder, [], result=result(value, num_parameters=float(overrides["x"])))

    def drawn(folder):
        return [trial.params for trial in search.open_study(folder, sweep).trials]

    searched(tmp_path / "whole", sweep, run, n_trials=14)
    for stop in range(1, 14):
        searched(tmp_path / "parts", sweep, run, n_trials=stop)
    with pytest.raises(ZeroDivisionError):
        searched(tmp_path / "parts", sweep, lambda *_: 1 / 0, n_trials=14)  # as it is about to start one
    searched(tmp_path / "parts", sweep, run, n_trials=14)
    assert drawn(tmp_path / "parts") == drawn(tmp_path / "whole")
    assert len({json.dumps(params) for params in drawn(tmp_path / "whole")}) == 14


@pytest.mark.parametrize("startup", [2, 9])
def test_a_trial_that_was_killed_while_it_was_drawn_is_taken_up(tmp_path, startup):
    """Every cut of the journal inside the last trial ends in the same trial, drawn at random or from the others."""
    sweep = parsed(tmp_path, sampler={"name": "tpe", "n_startup_trials": startup})
    searching = searched(tmp_path / "whole", sweep, n_trials=6)
    params = [trial.params for trial in searching.trials()]
    lines = (tmp_path / "whole" / "journal.log").read_bytes().splitlines(keepends=True)
    created = [number for number, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    for cut in range(created[-1], len(lines)):
        folder = tmp_path / str(cut)
        for number in range(5):
            (folder / "trials" / str(number)).mkdir(parents=True)
        (folder / "journal.log").write_bytes(b"".join(lines[: cut + 1]))
        again = searched(folder, sweep, n_trials=6)
        assert [trial.params for trial in again.trials()] == params
        assert states(again) == ["COMPLETE"] * 6


def test_a_run_that_ended_while_nobody_looked_is_told_and_not_run_again(tmp_path):
    sweep = parsed(tmp_path)
    searching = searched(tmp_path, sweep, lambda o, f: Made(f, [0.5] * 9, result=result(0.7)), timeout=1e-9)
    assert states(searching) == []
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, interrupted)
    (tmp_path / "trials" / "0" / "result.json").write_text(json.dumps(result(0.7)))
    launcher = Launcher(good)
    searching = searched(tmp_path, sweep, launcher, n_trials=1)
    assert (states(searching), searching.trials()[0].values) == (["COMPLETE"], [0.7])
    assert launcher.started == []


def interrupted(overrides, folder):
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_from_its_last_checkpoint(tmp_path):
    sweep = parsed(tmp_path).fixed(["init_from=best.ckpt"])
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, interrupted)
    last = tmp_path / "trials" / "0" / "last.ckpt"
    last.touch()
    launcher = Launcher(good)
    searched(tmp_path, sweep, launcher, n_trials=2)
    assert launcher.started[0]["ckpt_path"] == search.quoted(last)
    assert launcher.started[0]["init_from"] == "null"
    assert "ckpt_path" not in launcher.started[1]
    assert launcher.started[1]["init_from"] == "best.ckpt"


def test_a_checkpoint_that_cannot_be_gone_on_with_costs_only_the_time(tmp_path):
    sweep = parsed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, interrupted)
    (tmp_path / "trials" / "0" / "last.ckpt").touch()
    launcher = Launcher(lambda o, f: Made(f, [], 1) if "ckpt_path" in o else good(o, f))
    assert states(searched(tmp_path, sweep, launcher, n_trials=1)) == ["COMPLETE"]
    assert ["ckpt_path" in started for started in launcher.started] == [True, False]


@pytest.mark.parametrize("status", [-signal.SIGKILL, 143, 130])
def test_a_run_that_was_killed_from_outside_has_a_second_chance_and_no_third(tmp_path, status):
    launcher = Launcher(lambda o, f: Made(f, [], status))
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert states(searching) == ["FAIL"]
    assert len(launcher.started) == 2
    assert launcher.started[0] == launcher.started[1]


def test_a_crash_is_a_result_and_the_search_goes_on(tmp_path):
    def run(overrides, folder):
        if folder.name != "1":
            return good(overrides, folder)
        (folder / "stderr.log").write_text("".join(f"line {n}\n" for n in range(9)) + "10%|#\r20%|##\rerror: no\n")
        return Made(folder, [], 1)

    searching = searched(tmp_path, parsed(tmp_path), run, n_trials=4)
    assert states(searching) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    error = search.record(searching.trials()[1], tmp_path)["error"]
    assert error.splitlines() == ["line 5", "line 6", "line 7", "line 8", "error: no"]


def test_five_failures_end_a_search_only_where_nothing_ever_went_well(tmp_path):
    def fails_but(first):
        return lambda o, f: good(o, f) if int(f.name) < first else Made(f, [], 1)

    assert states(searched(tmp_path / "one", parsed(tmp_path), fails_but(1), n_trials=9)) == ["COMPLETE"] + ["FAIL"] * 8
    with pytest.raises(
        ValueError, match="the first 5 trials have all failed, the last one saying: ended with status 1"
    ):
        searched(tmp_path / "none", parsed(tmp_path), fails_but(0), n_trials=9)


def test_a_full_disk_in_a_trial_stops_the_search_and_the_trial_can_be_gone_on_with(tmp_path):
    def full(overrides, folder):
        (folder / "stderr.log").write_text(f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}\n")
        return Made(folder, [], 1)

    with pytest.raises(OSError, match="Make room, and type the same command again"):
        searched(tmp_path, parsed(tmp_path), full)
    for log in tmp_path.rglob("stderr.log"):
        log.unlink()
    assert states(searched(tmp_path, parsed(tmp_path), n_trials=1)) == ["COMPLETE"]


@pytest.mark.parametrize("written", [result(None), {"metrics": {"val/auc": 0.9}}, {"validation": {}}, result("good")])
def test_an_objective_that_is_undefined_fails_the_trial(tmp_path, written):
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], result=written), n_trials=1)
    assert states(searching) == ["FAIL"]
    assert "val/auc is" in searching.trials()[0].user_attrs["error"]


def test_costs_are_read_from_what_a_run_measured(tmp_path):
    metrics = ["val/loss", "seconds_per_epoch", "train_images_per_second", "num_parameters"]
    objectives = parsed(tmp_path, objectives=[{"metric": metric} for metric in metrics]).objectives
    written = {
        "validation": {"val/loss": 0.5}, "num_images": {"train": 600}, "train_images_per_second": 200.0,
        "num_parameters": 7, "seconds": 99.0,
    }  # fmt: skip
    assert search.figures(written, objectives) == dict(zip(metrics, [0.5, 3.0, 200.0, 7.0], strict=True))
    with pytest.raises(ValueError, match="seconds_per_epoch is not in it"):
        search.figures(written | {"train_images_per_second": None}, objectives)


def test_folds_are_run_in_turn_and_their_mean_is_told(tmp_path):
    sweep = parsed(tmp_path, folds=[2, 0, 5])
    values = {"2": 0.9, "0": 0.3, "5": 0.6}

    def run(overrides, folder):
        value = values[overrides["split.fold"]]
        assert folder.name == f"fold{overrides['split.fold']}"
        return Made(folder, [value / 2, value], result=result(value))

    launcher = Launcher(run)
    searching = searched(tmp_path, sweep, launcher, n_trials=1)
    assert [started["split.fold"] for started in launcher.started] == ["2", "0", "5"]
    [trial] = searching.trials()
    assert trial.values == [pytest.approx(0.6)]
    expected = {1: 0.45, 2: 0.9, 11: (0.9 + 0.15) / 2, 12: 0.6, 21: (0.9 + 0.3 + 0.3) / 3, 22: 0.6}
    assert trial.intermediate_values == pytest.approx(expected)


def test_finished_folds_are_not_run_again(tmp_path):
    sweep = parsed(tmp_path, folds=[0, 1])
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, lambda o, f: good(o, f) if o["split.fold"] == "0" else interrupted(o, f))
    launcher = Launcher(good)
    searching = searched(tmp_path, sweep, launcher, n_trials=1)
    assert [started["split.fold"] for started in launcher.started] == ["1"]
    assert states(searching) == ["COMPLETE"]


# Pruning.


def test_the_best_epoch_so_far_is_reported_and_undefined_ones_are_not(tmp_path):
    values = [math.nan, 0.6, 0.5, math.nan, 0.8]
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, values, result=result(0.8)), n_trials=1)
    assert searching.trials()[0].intermediate_values == {2: 0.6, 3: 0.6, 4: 0.6, 5: 0.8}


@pytest.mark.parametrize("metric", ["val/auc", "val/loss"])
def test_a_trial_is_pruned_when_its_best_is_worse_than_the_median_at_its_epoch(tmp_path, metric):
    """Against the rule written out; checkpoints of the pruned go, those of the others stay."""
    pruner = {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 2}
    sweep, sign = parsed(tmp_path, pruner=pruner, objectives=[{"metric": metric}]), 1 if metric == "val/auc" else -1
    curves = {
        0: [5, 6, 7, 8],
        1: [3, 4, 5, 6],
        2: [4, 3, 9, 9],
        3: [1, 9, 1, 1],
        4: [9, 4, 4, 6],
        5: [1, 3, 9, 9],
        6: [9, 9, 9, 9],
    }

    def run(overrides, folder):
        for name in ("best.ckpt", "last.ckpt"):
            (folder / name).touch()
        made = Made(folder, [sign * value for value in curves[int(folder.name)]], result={"validation": {}})
        made.result["validation"][metric] = max(made.values, key=lambda value: sign * value)
        ended = made.ended

        def renamed():
            status = ended()
            path = folder / "metrics.csv"
            path.write_text(path.read_text().replace("val/auc", metric))
            return status

        made.ended = renamed
        return made

    searching = searched(tmp_path, sweep, run, n_trials=len(curves))
    complete, expected = [], []
    for curve in curves.values():
        best = [max(curve[:epoch]) for epoch in range(1, len(curve) + 1)]
        for epoch in range(2, len(curve) + 1) if len(complete) >= 3 else ():
            others = sorted(other[epoch - 1] for other in complete)
            middle = (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2
            if best[epoch - 1] < middle:
                expected.append("PRUNED")
                break
        else:
            expected.append("COMPLETE")
            complete.append(best)
    assert states(searching) == expected
    assert {"PRUNED", "COMPLETE"} == set(expected[3:])
    for number, state in enumerate(expected):
        left = {path.name for path in (tmp_path / "trials" / str(number)).glob("*.ckpt")}
        assert left == (set() if state == "PRUNED" else {"best.ckpt", "last.ckpt"})


def test_hyperband_stops_some_and_not_the_best(tmp_path):
    sweep = parsed(tmp_path, pruner={"name": "hyperband"})

    def run(overrides, folder):
        value = 1 - abs(float(overrides["x"]) - 0.5)
        return Made(folder, [value * epoch / 9 for epoch in range(1, 10)], result=result(value))

    searching = searched(tmp_path, sweep, run, n_trials=30, epochs=9)
    assert 3 <= states(searching).count("PRUNED") <= 27
    best = max(searching.trials(), key=lambda trial: 1 - abs(trial.params["x"] - 0.5))
    assert best.state is TrialState.COMPLETE


# What is left.


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A search with two objectives that are at odds."""
    folder = tmp_path_factory.mktemp("search")
    sweep = parsed(folder, objectives=[{"metric": "val/auc"}, {"metric": "num_parameters"}])

    def run(overrides, name):
        x = float(overrides["x"])
        return Made(name, [], result=result(math.sin(5 * x), num_parameters=1000 * abs(x - 0.1)))

    return searched(folder, sweep, run, n_trials=20), folder


def test_the_front_is_what_no_trial_beats_in_all(of_two):
    searching, _ = of_two
    points = {trial.number: (trial.values[0], -trial.values[1]) for trial in searching.trials()}
    front = {
        n for n, p in points.items()
        if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points.values())
    }  # fmt: skip
    assert {trial.number for trial in search.chosen(searching.study)} == front


def test_importances_are_those_of_good_trials(tmp_path, of_two):
    """Optuna's own of a study with one objective, whichever way it goes."""
    for metric, sign in (("val/auc", 1), ("val/loss", -1)):
        sweep = parsed(tmp_path, objectives=[{"metric": metric}])

        def run(overrides, folder, metric=metric, sign=sign):
            value = sign * (float(overrides["x"]) ** 3 + (overrides["kind"] == "a"))
            return Made(folder, [], result={"validation": {metric: value}})

        searching = searched(tmp_path / metric, sweep, run, n_trials=25)
        reference = optuna.importance.get_param_importances(searching.study)
        assert search.importances(searching.study, sweep)[metric] == pytest.approx(reference)
    assert set(search.importances(of_two[0].study, of_two[0].sweep)) == {"val/auc", "num_parameters"}
    few = searched(tmp_path / "few", parsed(tmp_path), n_trials=3)
    with pytest.raises(ValueError, match="3 complete trials are too few"):
        search.importances(few.study, few.sweep)


def test_the_best_trials_command_trains_as_it_did(tmp_path):
    launcher = Launcher(good)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=6)
    [best] = search.chosen(searching.study)
    assert best.values[0] == max(trial.values[0] for trial in searching.trials())
    command = search.best_command(searching.sweep, best)
    assert command.startswith("python train.py stage=scratch x=")
    words = dict(word.split("=", 1) for word in command.split()[2:])
    assert words == {key: value for key, value in launcher.started[best.number].items() if key != "output_dir"}


def test_the_files_hold_every_trial_and_nothing_of_the_test(of_two):
    searching, folder = of_two
    state = json.loads((folder / "sweep.json").read_text())
    assert [trial["number"] for trial in state["trials"]] == list(range(20))
    assert set(state["trials"][0]) >= {"number", "state", "values", "params", "folder", "seconds"}
    text, paths = search.write_summary(searching.sweep, searching.study, folder, "the command")
    page = paths[1].read_text()
    assert "test/auc" not in text + page + (folder / "trials.csv").read_text() + (folder / "sweep.json").read_text()
    assert "<script src" not in page
    assert page.count("<tr><td>") == 20
    for trial in search.chosen(searching.study):
        assert search.best_command(searching.sweep, trial) in text


def test_a_summary_of_nothing_says_so(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], 1), n_trials=2)
    text, _ = search.write_summary(searching.sweep, searching.study, tmp_path, "the command")
    assert "2 failed." in text
    assert "No trial has been completed." in text


# Processes.


def test_a_process_is_known_by_more_than_its_number():
    one = subprocess.Popen(["sleep", "60"])
    time.sleep(0.02)
    two = subprocess.Popen(["sleep", "60"])
    assert search.started_at(one.pid) == search.started_at(one.pid) != search.started_at(two.pid)
    for process in (one, two):
        process.kill()
        process.wait()
    assert search.started_at(one.pid) is None


def test_what_a_trial_started_itself_ends_with_it(tmp_path):
    launcher = search.Launcher([{"ENGREC_SLOT": "7"}])
    job = launcher.start(
        ["sh", "-c", f"echo $ENGREC_SLOT > {tmp_path}/slot; sleep 60 & echo $! > {tmp_path}/child"], tmp_path, 0
    )
    start = time.monotonic()
    launcher.wait([job], 30)
    assert time.monotonic() - start < 10
    assert job.ended() == 0
    assert (tmp_path / "slot").read_text() == "7\n"
    child = int((tmp_path / "child").read_text())
    while search.started_at(child) is not None:
        assert time.monotonic() - start < 10


def test_another_process_with_the_number_of_a_dead_trial_is_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    record = {"pid": other.pid, "started": "another boot 17"}
    (tmp_path / "process.json").write_text(json.dumps(record))
    search.Launcher([{}]).end_left_over([tmp_path])
    assert other.poll() is None
    record["started"] = search.started_at(other.pid) or ""
    (tmp_path / "process.json").write_text(json.dumps(record))
    search.Launcher([{}]).end_left_over([tmp_path])
    assert other.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("log", "said"),
    [("", ""), ("a\n\nb\n", "a\nb"), ("1%\r2%\r3%\nerror: it\n", "3%\nerror: it"), ("x\n" * 9, "x\nx\nx\nx\nx")],
)
def test_the_end_of_a_log_is_without_what_a_bar_has_overwritten(tmp_path, log, said):
    (tmp_path / "log").write_text(log)
    assert search.last_lines(tmp_path / "log") == said
    assert search.last_lines(tmp_path / "none") == ""
