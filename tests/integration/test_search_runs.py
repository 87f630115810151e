"""scripts/sweep.py as users run it: killed at any moment and resumed, stopped, refused; and once with real runs.

Most of it with a stand-in for train.py.
"""

import csv
import json
import os
import random
import re
import resource
import shlex
import signal
import sys
import time

import pytest
from commands import FEW, PLAIN, Folder
from optuna.trial import TrialState
from searching import DRIVER, ROOT, Searching, assert_each_once, is_alive, one_line


@pytest.fixture
def searching(tmp_path):
    return Searching(tmp_path)


@pytest.mark.parametrize("seed", [0])
def test_killed_three_times_nothing_is_lost_or_done_twice(searching, seed):
    rng = random.Random(seed)
    for threshold in (rng.randrange(2, 8), rng.randrange(10, 16), rng.randrange(18, 25)):
        process = searching.start("n_trials=30", "workers=3")
        searching.until(lambda: len(searching.noted("end")) >= threshold, process)  # noqa: B023 (called here alone)
        time.sleep(rng.uniform(0, 0.06))
        if rng.random() < 0.5:  # a trial too
            pid = searching.noted("start")[-1][2]
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    status, out, err = searching.run("n_trials=30", "workers=3")
    assert status == 0, err
    assert "resuming: " in out
    trials, ended = assert_each_once(searching, 30)
    assert len(ended) == len(set(ended))
    rows = list(csv.DictReader((searching.folder / "trials.csv").open()))
    assert [int(row["number"]) for row in rows] == list(range(30))
    state = json.loads((searching.folder / "sweep.json").read_text())
    assert state["state"] == "done"
    assert [t["values"] for t in state["trials"]] == [
        t.values if t.state is TrialState.COMPLETE else None for t in trials
    ]


def test_the_same_trials_whether_it_was_killed_or_not(searching, tmp_path):
    """With one worker, all that is drawn follows from the seed and the trials before."""
    process = searching.start("n_trials=9", "workers=1")
    searching.until(lambda: len(searching.noted("end")) >= 4, process)
    process.kill()
    process.communicate()
    assert searching.run("n_trials=9", "workers=1")[0] == 0
    (tmp_path / "other").mkdir()
    other = Searching(tmp_path / "other")
    assert other.run("n_trials=9", "workers=1")[0] == 0
    assert [trial.params for trial in searching.trials()] == [trial.params for trial in other.trials()]


def test_trials_of_a_killed_search_do_not_live_on_beside_the_next(searching):
    """One that ignores SIGTERM, as where the system does not tell children that their parent died."""
    process = searching.start("n_trials=2", mode="slow stubborn")
    searching.until(lambda: len(searching.noted("start")) == 2, process)
    process.kill()
    process.communicate()
    left = [pid for *_, pid, _ in searching.noted("start")]
    assert all(map(is_alive, left))
    status, _, err = searching.run("n_trials=2")
    assert status == 0, err
    assert not any(map(is_alive, left))
    assert_each_once(searching, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next search ends them")
def test_trials_die_with_a_killed_search(searching):
    process = searching.start("n_trials=2", mode="slow")
    searching.until(lambda: len(searching.noted("start")) == 2, process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while any(is_alive(pid) for *_, pid, _ in searching.noted("start")):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_trial_is_run_once_more_with_the_same_values(searching):
    process = searching.start("n_trials=1", mode="slow")
    for attempt in (1, 2):
        searching.until(lambda: len(searching.noted("start")) == attempt, process)  # noqa: B023
        os.kill(searching.noted("start")[-1][2], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.endswith("error: all trials have failed\n")
    assert len({lr for _, lr, *_ in searching.noted("start")}) == 1
    assert len(searching.noted("start")) == 2


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_it_says_how_to_resume_and_resumes(searching, signum, status):
    process = searching.start("n_trials=4", mode="slow")
    searching.until(lambda: len(searching.noted("start")) == 2, process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, "")
    assert not any(is_alive(pid) for *_, pid, _ in searching.noted("start"))
    command = out.splitlines()[-1].partition("Resume with: ")[2]
    assert shlex.split(command)[:2] == ["python", "scripts/sweep.py"]
    assert {t["state"] for t in json.loads((searching.folder / "sweep.json").read_text())["trials"]} == {"interrupted"}
    before = [trial.params for trial in searching.trials()]
    status, out, err = searching.run("n_trials=4")
    assert status == 0, err
    assert "2 interrupted will be resumed" in out
    assert [trial.params for trial in searching.trials()][:2] == before
    assert_each_once(searching, 4)


def test_two_searches_do_not_share_a_gpu(searching, tmp_path):
    (tmp_path / "other").mkdir()
    other = Searching(tmp_path / "other")
    searching.around = other.around = {**os.environ, "CUDA_VISIBLE_DEVICES": "7", "TMPDIR": str(tmp_path)}
    first = searching.start("n_trials=1", mode="slow")
    searching.until(lambda: searching.noted("start"), first)
    second = other.popen("n_trials=1")
    assert second.stderr.readline() == "all GPUs (7) are in use by other sweeps or searches: waiting for one\n"
    assert not other.noted("start")
    first.kill()
    first.communicate()
    assert "on 1 GPU" in second.communicate(timeout=30)[0]
    assert_each_once(other, 1)


def test_out_of_time_it_stops_and_can_resume(searching):
    status, out, err = searching.run("n_trials=2", "timeout=1", mode="slow")
    assert status == 0, err
    assert "timeout=1: resume with: " in out
    assert searching.run("n_trials=2", "timeout=100")[0] == 0
    assert_each_once(searching, 2)


def test_a_second_search_in_the_folder_is_refused(searching):
    process = searching.start("n_trials=2", mode="slow")
    searching.until(lambda: len(searching.noted("start")) == 2, process)
    status, _, err = searching.run("n_trials=2")
    assert status == 1
    assert f"in use by another search, process {process.pid}" in one_line(err)
    lines = (searching.folder / "journal.log").read_text().splitlines()
    assert len({json.loads(line)["worker_id"] for line in lines}) == 1
    process.kill()  # which frees the folder
    process.communicate()
    assert searching.run("n_trials=2")[0] == 0


def test_another_search_in_the_folder_is_refused(searching):
    assert searching.run("n_trials=1")[0] == 0
    status, _, err = searching.run("n_trials=1", "max_epochs=3")
    assert status == 1
    assert "there max_epochs=8, here max_epochs=3" in one_line(err)
    assert searching.run("n_trials=3")[0] == 0  # more of the same is no other search
    assert_each_once(searching, 3)


def test_what_is_wrong_is_reported_before_the_first_trial_and_nothing_is_left(searching):
    """A key that is unknown to the class that it is for, which has to be loaded to know."""
    searching.driver = DRIVER.replace("checking.check = lambda cfg: None\n", "")
    status, _, err = searching.run("n_trials=500", "+model.heigth=3", mode="slow")
    assert status == 1
    assert one_line(err).startswith("error: model.heigth is unknown")
    assert not searching.noted("start")
    assert {path.name for path in searching.folder.iterdir()} == {"lock"}
    assert searching.run("n_trials=2")[0] == 0


def test_a_full_disk_stops_it_in_one_line_and_the_journal_stays_readable(searching):
    """The limit lets the line of the journal that crosses it be written in part."""
    limit = 9000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = searching.popen("n_trials=30", preexec_fn=limited)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "journal.log cannot be written" in one_line(err)
    trials = searching.trials()
    assert 2 < len(trials) < 30
    journal = (searching.folder / "journal.log").read_bytes()
    assert limit - 1000 < len(journal) <= limit
    assert all(json.loads(line) for line in journal.splitlines())
    assert journal.endswith(b"\n")
    assert searching.run("n_trials=30")[0] == 0
    assert_each_once(searching, 30)


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(searching):
    searching.folder.write_text("a file")
    status, _, err = searching.run("n_trials=1")
    assert status == 1
    assert str(searching.folder) in one_line(err)


def test_trials_that_fail_are_shown_and_five_at_the_start_are_enough(searching):
    status, out, err = searching.run("n_trials=30", "workers=1", mode="fails")
    assert status == 1
    assert "the first 5 trials have all failed, the last one with: error: the data are nowhere" in one_line(err)
    assert len(searching.noted("start")) == 5
    assert "trial 4: failed" in out
    assert "    error: the data are nowhere" in out
    assert "the data are nowhere" in (searching.folder / "trials" / "0" / "stderr.log").read_text()
    status, out, _ = searching.run("n_trials=8", "workers=1")
    assert status == 0
    assert [t.state for t in searching.trials()] == [TrialState.FAIL] * 5 + [TrialState.COMPLETE] * 3


def test_the_table_and_the_summary(searching):
    status, out, err = searching.run("n_trials=12")
    assert (status, err) == (0, "")
    assert sum(" begins: lr=" in line for line in out.splitlines()) == 12
    assert sum(bool(re.match(r"trial \d+: ", line)) for line in out.splitlines()) == 12
    best = max(searching.trials(), key=lambda trial: trial.values[0])
    assert f"best val/auc {best.values[0]:.4g} (trial {best.number})" in out
    [command] = [line for line in out.splitlines() if line.startswith("python train.py ")]
    assert f"optimizer.lr={best.params['optimizer.lr']:.6g}" in command
    assert f"(trial {best.number}, in {searching.folder}/trials/{best.number}): " in out
    assert "Importances for val/auc: optimizer.lr" in out
    page = (searching.folder / "summary.html").read_text()
    assert "<script src" not in page
    for written in (
        out,
        page,
        *((searching.folder / n).read_text() for n in ("trials.csv", "sweep.json", "summary.md")),
    ):
        assert "123454321" not in written  # the test's figures


def test_without_a_terminal_the_start_is_printed_at_once(searching):
    process = searching.popen("n_trials=2", mode="slow")
    lines = [process.stdout.readline().partition(":")[0] for _ in range(4)]
    process.kill()
    process.communicate()
    assert lines[-2:] == ["trial 0 begins", "trial 1 begins"]
    assert "2 trials in parallel, " in lines[-3]


@pytest.mark.skipif(sys.platform != "linux", reason="pty and its sizes")
def test_on_a_terminal_the_table_is_drawn_over(searching):
    import pty

    main, side = pty.openpty()
    process = searching.popen("n_trials=4", stdout=side)
    os.close(side)
    seen = b""
    while True:
        try:
            seen += (block := os.read(main, 65536))
        except OSError:
            break
        if not block:
            break
    assert process.wait(timeout=30) == 0
    text = seen.decode()
    assert "\x1b[3F\x1b[J" in text  # head and two rows, gone again
    assert "small: 0 of 4 done" in text
    assert "  trial 0: epoch " in text
    drawn = [line for line in text.replace("\x1b[J", "").splitlines() if line.startswith(("small: ", "  trial "))]
    assert max(map(len, drawn)) <= 89


@pytest.mark.slow
def test_two_real_trials(tmp_path):
    """Of vgg_small, a tenth as wide, on 70 synthetic faces. As if the search had died before the first one ended, and
    its last checkpoint were damaged, that trial is trained again from scratch."""
    words = [
        "sweep=small", "n_trials=2", "workers=2", f"folder={tmp_path / 'a folder'}", "max_epochs=1", "model.width=0.1",
        "trainer.accelerator=cpu", *PLAIN, *FEW,
    ]  # fmt: skip

    work = Folder(tmp_path)

    def searched():
        done = work.finish(work.start(*words, script=ROOT / "scripts" / "sweep.py"))
        assert done.status == 0, done.stderr + done.stdout
        return done

    done = searched()
    for number in (0, 1):
        folder = tmp_path / "a folder" / "trials" / str(number)
        result = json.loads((folder / "result.json").read_text())
        assert f"trial {number}: val/auc {result['validation']['val/auc']:.4g}" in done.stdout
        assert (folder / "best.ckpt").is_file()
        assert "it/s" not in (folder / "stderr.log").read_text()  # no progress bar
    first, journal = tmp_path / "a folder" / "trials" / "0", tmp_path / "a folder" / "journal.log"
    before = json.loads((first / "result.json").read_text())["validation"]
    told = [line for line in journal.read_text().splitlines(keepends=True) if is_told(line)]
    journal.write_text(journal.read_text().replace(told[0], "").replace(told[1], ""))
    (first / "result.json").unlink()
    (first / "last.ckpt").write_bytes(b"PK")
    assert "2 interrupted" in searched().stdout
    assert json.loads((first / "result.json").read_text())["validation"] == before


def is_told(line):
    entry = json.loads(line)
    return entry["op_code"] == 6 and entry["state"] == 1
