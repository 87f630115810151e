"""Searches with trials that are made up: no process is started, nothing is trained."""

import json
import math
from types import SimpleNamespace

from omegaconf import OmegaConf

from engrec.runs.folder import last_lines
from engrec.search import search, space
from engrec.search.study import open_study

SMALL = {
    "overrides": ["stage=scratch"],
    "search": {"x": {"low": 0.0, "high": 1.0}, "kind": {"choices": ["a", "b"]}},
    "objectives": [{"metric": "val/auc"}],
}


def parsed(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    OmegaConf.save(OmegaConf.create(SMALL | changes), path)
    return space.read(path)


class Made:
    """A run that is over at once, or after as many looks as it has epochs, if one ends between two looks; `values` are
    its epochs'."""

    def __init__(self, folder, values, status=0, result=None, at_once=1):
        self.folder, self.values, self.status, self.result = folder, values, status, result
        self.at_once = at_once
        self.epochs, self.stopped = 0, False

    def ended(self):
        if self.stopped:
            return 143
        if self.epochs == len(self.values):
            if self.result is not None:
                (self.folder / "result.json").write_text(json.dumps(self.result))
            return self.status
        self.epochs = min(self.epochs + self.at_once, len(self.values))
        lines = [f"{number},{value}" for number, value in enumerate(self.values[: self.epochs])]
        (self.folder / "metrics.csv").write_text("\n".join(["epoch,val/auc", *lines, ""]))
        return None

    def stop(self):
        self.stopped = True


class Launcher:
    """What `run(overrides, folder)` makes of each trial; kept: the overrides of each start. left: of a dead search."""

    def __init__(self, run, workers=1, left=()):
        self.run, self.slots, self.started, self.left = run, [{}] * workers, [], dict(left)

    def start(self, command, folder, slot):
        overrides = dict(word.split("=", 1) for word in command)
        self.started.append(overrides)
        return self.run(overrides, folder)

    def wait(self, jobs, seconds):
        pass

    def end(self, jobs):
        for job in jobs:
            job.stop()

    def left_over(self, folders):
        return {folder: job for folder, job in self.left.items() if folder in folders}

    def message(self, folder):
        return last_lines(folder / "stderr.log")


WATCH = SimpleNamespace(draw=lambda searching: None, settled=lambda searching, record: None)


def result(value, **others):
    return {"validation": {"val/auc": value}, "metrics": {"test/auc": 0.0}, **others}


def good(overrides, folder):
    value = 1 - (float(overrides["x"]) - 0.3) ** 2
    return Made(folder, [value], result=result(value))


def searched(folder, sweep, run=good, n_trials=5, workers=1, epochs=10, url=None, **how):
    """A complete search in the folder. url: of a database."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = Launcher(run, workers) if callable(run) else run
    study = open_study(folder, sweep, url)
    how["shared"] = url is not None
    searching = search.Search(sweep, study, folder, launcher, [], n_trials, epochs, WATCH, **how)
    searching.run()
    return searching


def two_objectives(folder):
    """A search of twenty trials whose objectives are at odds."""
    sweep = parsed(folder, objectives=[{"metric": "val/auc"}, {"metric": "num_parameters"}])

    def run(overrides, name):
        x = float(overrides["x"])
        return Made(name, [], result=result(math.sin(5 * x), num_parameters=1000 * abs(x - 0.1)))

    return searched(folder, sweep, run, n_trials=20)


def states(searching):
    return [trial.state.name for trial in searching.trials()]


def interrupted(overrides, folder):
    raise KeyboardInterrupt
