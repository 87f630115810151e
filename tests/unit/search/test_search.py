"""The search itself: each trial has its value, wherever the search was stopped."""

import json
import math
import os
import signal

import pytest
from optuna.trial import TrialState
from searches import Launcher, Made, good, interrupted, parsed, result, searched, states

from engrec.errors import BAD_CHECKPOINT, DISK_FULL
from engrec.search import outcome, study
from engrec.search.launcher import INTERRUPTED


def test_the_values_of_trials_are_what_the_runs_wrote(tmp_path):
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
        return [trial.params for trial in study.open_study(folder, sweep).trials]

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


def test_a_run_that_ended_without_a_search_is_told_and_not_run_again(tmp_path):
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


def test_an_interrupted_run_resumes_from_its_last_checkpoint(tmp_path):
    sweep = parsed(tmp_path).fixed(["init_from=best.ckpt"])
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, interrupted)
    last = tmp_path / "trials" / "0" / "last.ckpt"
    last.touch()
    launcher = Launcher(good)
    searched(tmp_path, sweep, launcher, n_trials=2)
    assert [started["ckpt_path"] for started in launcher.started] == ["last", "last"]
    assert [started["init_from"] for started in launcher.started] == ["best.ckpt", "best.ckpt"]
    assert last.is_file()


def left_with_a_checkpoint(tmp_path):
    """A search whose first trial was killed after an epoch; the checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, parsed(tmp_path), interrupted)
    last = tmp_path / "trials" / "0" / "last.ckpt"
    last.write_bytes(b"PK")
    return last


def fails(folder, *lines, status=1):
    with (folder / "stderr.log").open("a") as log:
        log.writelines(f"{line}\n" for line in lines)
    return Made(folder, [], status)


def test_a_checkpoint_that_cannot_be_used_costs_only_the_time(tmp_path):
    last = left_with_a_checkpoint(tmp_path)

    def run(overrides, folder):
        return (
            fails(folder, "error: it is damaged", status=BAD_CHECKPOINT) if last.is_file() else good(overrides, folder)
        )

    launcher = Launcher(run)
    assert states(searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)) == ["COMPLETE"]
    assert len(launcher.started) == 2
    assert not last.exists()


def test_a_bad_checkpoint_that_all_trials_start_from_is_no_fault_of_the_trials_own(tmp_path):
    launcher = Launcher(lambda o, f: fails(f, "error: best.ckpt is damaged", status=BAD_CHECKPOINT))
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert (states(searching), len(launcher.started)) == (["FAIL"], 1)


@pytest.mark.parametrize("lines", [["error: {last} is damaged"], ["error: data/fer2013.npz is not there"], []])
def test_a_run_that_fails_of_something_else_keeps_its_checkpoint(tmp_path, lines):
    """Whatever it prints: what counts is the exit status."""
    last = left_with_a_checkpoint(tmp_path)
    printed = [line.format(last=last) for line in lines]
    launcher = Launcher(lambda o, f: fails(f, *printed))
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert (states(searching), len(launcher.started)) == (["FAIL"], 1)
    assert searching.trials()[0].user_attrs["error"] == ("\n".join(printed) or "ended with status 1")
    assert last.is_file()


def test_a_trial_starts_from_scratch_once(tmp_path):
    last = left_with_a_checkpoint(tmp_path)

    def run(overrides, folder):
        assert len(launcher.started) < 9
        if last.is_file():
            return fails(folder, "error: it is damaged", status=BAD_CHECKPOINT)
        last.touch()
        return Made(folder, [], INTERRUPTED)

    launcher = Launcher(run)
    assert states(searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)) == ["FAIL"]
    assert len(launcher.started) == 3
    assert last.is_file()


@pytest.mark.parametrize("status", [-signal.SIGKILL, 143, 130])
def test_a_run_that_was_killed_from_outside_has_a_second_chance_and_no_third(tmp_path, status):
    launcher = Launcher(lambda o, f: Made(f, [], status))
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert states(searching) == ["FAIL"]
    assert len(launcher.started) == 2
    assert launcher.started[0] == launcher.started[1]


def test_a_crash_is_a_result_and_the_search_continues(tmp_path):
    def run(overrides, folder):
        if folder.name != "1":
            return good(overrides, folder)
        (folder / "stderr.log").write_text("".join(f"line {n}\n" for n in range(9)) + "10%|#\r20%|##\rerror: no\n")
        return Made(folder, [], 1)

    searching = searched(tmp_path, parsed(tmp_path), run, n_trials=4)
    assert states(searching) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    error = outcome.record(searching.trials()[1], tmp_path)["error"]
    assert error.splitlines() == ["line 5", "line 6", "line 7", "line 8", "error: no"]


def test_five_failures_end_a_search_only_where_nothing_ever_went_well(tmp_path):
    def fails_but(first):
        return lambda o, f: good(o, f) if int(f.name) < first else Made(f, [], 1)

    assert states(searched(tmp_path / "one", parsed(tmp_path), fails_but(1), n_trials=9)) == ["COMPLETE"] + ["FAIL"] * 8
    with pytest.raises(ValueError, match="the first 5 trials have all failed, the last one with: ended with status 1"):
        searched(tmp_path / "none", parsed(tmp_path), fails_but(0), n_trials=9)


def test_a_full_disk_in_a_trial_ends_the_search_and_the_trial_can_be_resumed(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device\. Make room, and run the same command again"):
        searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], DISK_FULL))
    assert states(searched(tmp_path, parsed(tmp_path), n_trials=1)) == ["COMPLETE"]


def test_the_message_of_a_trial_is_from_its_last_start(tmp_path):
    with pytest.raises(OSError, match="Make room"):
        searched(tmp_path, parsed(tmp_path), lambda o, f: fails(f, "error: no space", status=DISK_FULL))
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: fails(f, "error: no"), n_trials=1)
    assert [trial.user_attrs["error"] for trial in searching.trials()] == ["error: no"]


def test_a_full_disk_leaves_the_checkpoint_of_a_run_that_resumes(tmp_path):
    last = left_with_a_checkpoint(tmp_path)
    with pytest.raises(OSError, match="Make room"):
        searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], DISK_FULL))
    assert last.is_file()
    assert states(searched(tmp_path, parsed(tmp_path), n_trials=1)) == ["COMPLETE"]
    assert last.is_file()


@pytest.mark.parametrize("written", [result(None), {"metrics": {"val/auc": 0.9}}, {"validation": {}}, result("good")])
def test_an_objective_that_is_undefined_fails_the_trial(tmp_path, written):
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: Made(f, [], result=written), n_trials=1)
    assert states(searching) == ["FAIL"]
    assert "val/auc is" in searching.trials()[0].user_attrs["error"]


def test_folds_are_run_in_turn_and_their_mean_is_the_value(tmp_path):
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


@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_what_is_pruned_does_not_depend_on_how_often_a_search_looks(tmp_path, name):
    """Late epochs of one trial are not compared with early ones of another."""

    def states_of(at_once):
        def run(overrides, folder):
            x = float(overrides["x"])
            values = [(1 - abs(x - 0.5)) * min(epoch, 9 * x) for epoch in range(1, 10)]
            return Made(folder, [*values, max(values)], result=result(max(values)), at_once=at_once)

        sweep = parsed(tmp_path, pruner={"name": name}, sampler={"name": "random"})
        return states(searched(tmp_path / str(at_once), sweep, run, n_trials=20, epochs=10))

    assert states_of(1) == states_of(4) == states_of(7)
    assert {"PRUNED", "COMPLETE"} <= set(states_of(1))


@pytest.mark.parametrize(
    ("epochs", "starts"),
    [
        ([1, 1, 1, 1, 1], 6),  # as often as it gets further
        ([0, 1, 0, 1, 1, 0], 7),
        ([0, 0], 2),
        ([1, 0, 0], 3),
        ([1, 0, 1, 0, 0], 5),
    ],
)
def test_an_interrupted_run_resumes_as_long_as_it_saves_epochs_and_else_once(tmp_path, epochs, starts):
    """epochs: that each start brings to an end before it is taken away; after the last of them it would finish."""
    left = list(enumerate(epochs, start=1))

    def run(overrides, folder):
        if not left:
            return good(overrides, folder)
        when, saved = left.pop(0)
        if saved:
            (folder / "last.ckpt").touch()
            os.utime(folder / "last.ckpt", (when, when))
        return Made(folder, [], INTERRUPTED)

    launcher = Launcher(run)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=1)
    assert len(launcher.started) == starts
    assert states(searching) == ["COMPLETE" if starts > len(epochs) else "FAIL"]
    if starts <= len(epochs):
        assert searching.trials()[0].user_attrs["error"] == "interrupted twice in a row before another epoch was saved"


def test_a_fold_that_is_finished_is_further_too(tmp_path):
    taken = {"0": [INTERRUPTED], "1": [INTERRUPTED]}

    def run(overrides, folder):
        left = taken[overrides["split.fold"]]
        return Made(folder, [], left.pop()) if left else good(overrides, folder)

    assert states(searched(tmp_path, parsed(tmp_path, folds=[0, 1]), run, n_trials=1)) == ["COMPLETE"]


def test_a_run_that_a_dead_search_left_is_watched_and_not_started_again(tmp_path):
    sweep = parsed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, sweep, interrupted)
    folder = tmp_path / "trials" / "0"
    launcher = Launcher(good, left={folder: Made(folder, [0.4, 0.6], result=result(0.6))})
    searching = searched(tmp_path, sweep, launcher, n_trials=2)
    assert (states(searching), searching.trials()[0].values) == (["COMPLETE", "COMPLETE"], [0.6])
    assert [started["output_dir"] for started in launcher.started] == [str(tmp_path / "trials" / "1")]


def test_runs_that_were_left_and_have_no_slot_are_stopped_and_started_again(tmp_path):
    sweep = parsed(tmp_path)
    with pytest.raises(ZeroDivisionError):
        searched(tmp_path, sweep, lambda o, f: Made(f, [0.1] * 9) if f.name == "0" else 1 / 0, workers=2)
    first, second = (tmp_path / "trials" / number for number in "01")
    left = {first: Made(first, [0.4], result=result(0.4)), second: Made(second, [0.4], result=result(0.4))}
    launcher = Launcher(good, workers=1, left=left)
    assert states(searched(tmp_path, sweep, launcher, n_trials=2)) == ["COMPLETE", "COMPLETE"]
    assert (left[first].stopped, left[second].stopped) == (False, True)
    assert [started["output_dir"] for started in launcher.started] == [str(second)]
