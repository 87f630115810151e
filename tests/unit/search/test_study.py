"""A journal that is always readable, and a folder that one search at a time has."""

import errno
import fcntl
import os
import subprocess
import sys

import optuna
import pytest
import sweep as script
from searches import parsed, searched

from engrec.search.study import Journal, forget, locked, open_study, reopened, repair


def test_a_journal_that_is_cut_anywhere_can_be_read_and_continued(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    storage = optuna.storages.JournalStorage(Journal(whole))
    study = optuna.create_study(study_name="s", storage=storage)
    for value in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    written = whole.read_bytes()
    for end in range(written.index(b"\n") + 1, len(written), 3):
        cut.write_bytes(written[:end])
        storage = optuna.storages.JournalStorage(Journal(cut))
        assert cut.read_bytes() == written[: written.rfind(b"\n", 0, end) + 1]
        if end % 11 == 0:
            before = len(storage.get_all_trials(0))
            storage.create_new_trial(0)
            again = optuna.storages.JournalStorage(Journal(cut))
            assert len(again.get_all_trials(0)) == before + 1


def test_a_last_line_of_zeros_is_cut_off_and_damage_elsewhere_is_reported(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n\0\0\0\n')
    repair(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    path.write_bytes(b'{"a": 1}\n{"b"\n{"c": 3}\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        repair(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b"\n{"c": 3}\n'


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"op_code":0}',
        '{"op_code":99,"worker_id":"x"}',
        '{"op_code":[]}',
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_line_that_is_no_change_of_a_search_is_reported(tmp_path, line, number):
    searched(tmp_path, parsed(tmp_path), n_trials=1)
    journal = tmp_path / "journal.log"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[: number - 1], line, *lines[number - 1 :], ""]))
    with pytest.raises(ValueError, match=rf"journal.log, line {number} is damaged: restore that file from a copy"):
        open_study(tmp_path, parsed(tmp_path))


def test_a_write_that_fails_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    storage = optuna.storages.JournalStorage(Journal(path))
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
    [told] = optuna.storages.JournalStorage(Journal(path)).get_all_trials(0)
    assert told.values == [0.5]


def test_optunas_own_backend_reads_the_journal(tmp_path):
    searching = searched(tmp_path, parsed(tmp_path), n_trials=4)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name="mine", storage=optuna.storages.JournalStorage(backend))
    assert [(t.params, t.values) for t in study.trials] == [(t.params, t.values) for t in searching.trials()]


def test_the_lock_is_held_by_the_process_and_goes_with_it(tmp_path):
    code = f"""
import time, pathlib
from engrec.search import study
with study.locked(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=script.ROOT)
    assert holder.stdout is not None
    holder.stdout.readline()
    with (
        pytest.raises(ValueError, match=f"in use by another search, process {holder.pid}: stop that one"),
        locked(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path), (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_trials_without_their_journal_are_not_taken_for_others(tmp_path):
    searched(tmp_path, parsed(tmp_path), n_trials=1)
    (tmp_path / "journal.log").unlink()
    with pytest.raises(ValueError, match="has trials that have no journal: remove it, or set another folder="):
        searched(tmp_path, parsed(tmp_path), n_trials=1)


def test_a_search_that_is_removed_can_start_from_scratch(tmp_path):
    searching = searched(tmp_path / "found", parsed(tmp_path), n_trials=1)
    (tmp_path / "found" / "of-others").touch()
    forget(searching.study, tmp_path / "found")
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["of-others"]
    searched(tmp_path / "found", parsed(tmp_path, seed=1), n_trials=1)


def test_a_trial_that_another_process_began_is_continued(tmp_path):
    """With a constructor that is Optuna's own: this fails where an upgrade changes it."""
    searching = searched(tmp_path, parsed(tmp_path), n_trials=1)
    number = searching.study.ask().number
    trial = reopened(open_study(tmp_path, parsed(tmp_path)), number)
    assert (trial.number, trial.suggest_float("x", 0, 1)) == (number, trial.params["x"])
    trial.report(0.5, 1)
    assert not trial.should_prune()
    searching.study.tell(number, 0.25)
    assert searching.trials()[number].values == [0.25]
