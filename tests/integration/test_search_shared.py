"""scripts/sweep.py storage=URL: several controllers with one study, in SQLite and in a real PostgreSQL."""

import os
import signal

import optuna
import postgres_server
import pytest
from optuna.trial import TrialState
from searching import Searching, assert_each_once, is_alive, one_line


@pytest.fixture(scope="module")
def postgres():
    if reason := postgres_server.missing():
        pytest.skip(reason)
    with postgres_server.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def searching(request, tmp_path):
    url = f"sqlite:///{tmp_path}/search.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    found = Shared(tmp_path, url)
    yield found
    if found.name in optuna.get_all_study_names(url):
        optuna.delete_study(study_name=found.name, storage=url)


class Shared(Searching):
    name = "found"

    def __init__(self, path, url):
        super().__init__(path)
        self.url, self.always = url, (f"storage={url}",)

    def trials(self):
        return optuna.load_study(study_name=self.name, storage=self.url).trials


def test_two_controllers_share_one_study(searching):
    """Each trial is run once, by one of them, and there are as many as asked for."""
    both = [searching.start("n_trials=16", "workers=2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    trials, ended = assert_each_once(searching, 16)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(ended) == len(set(ended))
    owners = {trial.user_attrs["owner"]["process"]["pid"] for trial in trials}
    assert owners == {process.pid for process in both}


def test_trials_of_a_dead_controller_are_resumed_by_the_living_one(searching):
    dying = searching.start("n_trials=6", mode="slow")
    searching.until(lambda: len(searching.noted("start")) == 2, dying)
    living = searching.start("n_trials=6")
    searching.until(lambda: len(searching.noted("end")) >= 1, living)
    assert len(searching.noted("start")) >= 3  # other trials than those of the first, which is alive
    assert all(is_alive(pid) for *_, pid, _ in searching.noted("start")[:2])
    dying.kill()
    dying.communicate()
    _, err = living.communicate(timeout=60)
    assert living.returncode == 0, err
    if any(trial.state is TrialState.RUNNING for trial in searching.trials()):  # it had ended before the other died
        assert searching.run("n_trials=6")[0] == 0
    trials, ended = assert_each_once(searching, 6)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(ended) == len(set(ended))


def test_stopped_it_says_how_to_resume_and_resumes(searching):
    process = searching.start("n_trials=4", mode="slow")
    searching.until(lambda: len(searching.noted("start")) == 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert f"storage={searching.url}" in out.splitlines()[-1]
    status, out, err = searching.run("n_trials=4")
    assert status == 0, err
    assert "2 interrupted will be resumed" in out
    assert_each_once(searching, 4)


def test_a_server_that_cannot_be_reached_is_reported_in_one_line(tmp_path):
    searching = Shared(tmp_path, "postgresql://me:secret@127.0.0.1:1/nothing")
    searching.around = {**os.environ, "PGCONNECT_TIMEOUT": "5"}
    status, _, err = searching.run("n_trials=1")
    assert status == 1
    assert "storage=postgresql://me:***@127.0.0.1:1/nothing cannot be used: connection failed" in one_line(err)
    assert not searching.noted("start")
