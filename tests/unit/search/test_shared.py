"""Searches in a database: who owns a trial, and what is resumed by whom."""

import json
import os
import socket
import subprocess
import time
from types import SimpleNamespace

import optuna
import pytest
from searches import Launcher, good, interrupted, parsed, searched, states
from sqlalchemy.exc import OperationalError

from engrec.machine.processes import process
from engrec.search import shared
from engrec.search.study import forget


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/search.db"


def owned_by(owner):
    return SimpleNamespace(user_attrs={} if owner is None else {"owner": owner})


def test_an_owner_is_alive_while_its_process_is_or_elsewhere_while_it_is_heard_of():
    here, now = socket.gethostname(), time.time()
    dead = subprocess.Popen(["sleep", "60"])
    gone = process(dead.pid)
    dead.kill()
    dead.wait()
    mine = {"host": here, "process": process(os.getpid()), "seen": now}
    assert shared.is_owned(owned_by(mine))
    assert shared.is_mine(owned_by(mine))
    assert not shared.is_owned(owned_by(mine | {"process": gone}))
    assert not shared.is_owned(owned_by(None))
    other = {"host": "elsewhere", "process": gone, "seen": now}
    assert shared.is_owned(owned_by(other))
    assert not shared.is_mine(owned_by(other))
    assert not shared.is_owned(owned_by(other | {"seen": now - 2 * shared.SILENCE}))


def test_the_same_trials_in_a_database_as_in_a_journal(tmp_path, url):
    sweep = parsed(tmp_path)
    journal = searched(tmp_path / "journal", sweep, n_trials=12)
    searched(tmp_path / "base", sweep, n_trials=5, url=url)
    database = searched(tmp_path / "base", sweep, n_trials=12, url=url)
    assert [t.params for t in database.trials()] == [t.params for t in journal.trials()]
    assert [t.values for t in database.trials()] == [t.values for t in journal.trials()]
    assert not (tmp_path / "base" / "journal.log").exists()


def own(url, owner):
    """Give the first trial of the only study to another owner."""
    [name] = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, "owner", owner)


def left_running(tmp_path, url, owner):
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, parsed(tmp_path), interrupted, url=url)
    own(url, {"host": socket.gethostname(), "seen": time.time(), **owner})


def test_a_trial_of_a_living_controller_is_left_to_it_and_counts(tmp_path, url):
    left_running(tmp_path, url, {"process": process(os.getpid())})
    assert states(searched(tmp_path, parsed(tmp_path), n_trials=3, url=url)) == ["RUNNING", "COMPLETE", "COMPLETE"]


def test_a_trial_of_a_dead_controller_is_resumed(tmp_path, url):
    left_running(tmp_path, url, {"process": {"pid": 1, "began": "long ago"}})
    launcher = Launcher(good)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=3, url=url)
    assert states(searching) == ["COMPLETE"] * 3
    assert launcher.started[0]["output_dir"].endswith("/0")


def test_a_trial_that_another_controller_took_is_left_to_it(tmp_path, url, monkeypatch):
    """As of one that was suspended for longer than others wait for it."""
    monkeypatch.setattr("engrec.search.search.BEAT", 0.0)

    def run(overrides, folder):
        made = good(overrides, folder)
        if folder.name == "0":
            own(url, {"host": "elsewhere", "process": {"pid": 1, "began": "x"}, "seen": time.time()})
            made.values = [0.5] * 99
        return made

    launcher = Launcher(run)
    searching = searched(tmp_path, parsed(tmp_path), launcher, n_trials=3, url=url)
    assert states(searching) == ["RUNNING", "COMPLETE", "COMPLETE"]
    assert [started["output_dir"].rpartition("/")[2] for started in launcher.started] == ["0", "1", "2"]


def test_trials_that_are_stopped_are_free_for_others_at_once(tmp_path, url):
    searching = searched(tmp_path, parsed(tmp_path), lambda o, f: good(o, f), n_trials=3, timeout=1e-9, url=url)
    assert states(searching) == []

    def run(overrides, folder):
        searching.timeout = 1e-9
        return good(overrides, folder)

    searching.launcher.run, searching.timeout = run, 60
    searching.run()
    assert states(searching) == ["RUNNING"]
    assert searching.interrupted == [0]
    assert json.loads((tmp_path / "sweep.json").read_text())["trials"][0]["state"] == "interrupted"


def test_another_search_in_the_same_database_is_refused_and_has_room_beside_it(tmp_path, url):
    searched(tmp_path / "one", parsed(tmp_path), n_trials=1, url=url)
    with pytest.raises(ValueError, match="one holds a search with other seed"):
        searched(tmp_path / "one", parsed(tmp_path, seed=1), n_trials=1, url=url)
    assert states(searched(tmp_path / "two", parsed(tmp_path, seed=1), n_trials=1, url=url)) == ["COMPLETE"]


def test_a_search_that_is_removed_is_not_in_the_database(tmp_path, url):
    searching = searched(tmp_path / "found", parsed(tmp_path), n_trials=1, url=url)
    forget(searching.study, tmp_path / "found", url)
    assert optuna.get_all_study_names(url) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/search.db", "storage=sqlite:////nowhere/search.db cannot be used: unable to open"),
        ("nosuch://host/name", "nosuch://host/name cannot be used: Can't load plugin: sqlalchemy.dialects:nosuch"),
        ("postgresql://me:secret@127.0.0.1:1/name", r"//me:\*\*\*@127.0.0.1:1/name cannot be used: connection"),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be_used_is_reported_in_one_line(url, message):
    with pytest.raises(OSError, match=message) as error, shared.database_errors(url):
        shared.open_database(url)
    assert "\n" not in str(error.value)


def test_a_database_that_goes_away_is_reported_too(url):
    error = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("SELECT", {}, OSError("the server is gone\nits log has more"))
    with pytest.raises(OSError, match=r"cannot be used: the server is gone$"), shared.database_errors(url):
        raise error
