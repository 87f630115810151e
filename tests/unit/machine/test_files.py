"""A file appears complete or not at all; what a killed process leaves is removed by the next that writes there."""

import subprocess
import sys

import pytest

from engrec.machine.files import atomic_write, remove_abandoned, write_text

HALF = (
    "import sys, time; from engrec.machine.files import atomic_write\n"
    "with atomic_write(sys.argv[1]) as file: file.write('half'); file.flush(); print(flush=True); time.sleep(60)"
)


@pytest.fixture
def half_written(tmp_path):
    """A process in the middle of writing last.ckpt."""
    with subprocess.Popen([sys.executable, "-c", HALF, tmp_path / "last.ckpt"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, half_written):
    half_written.kill()
    half_written.wait()
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "other.txt", "whole")
    assert names(tmp_path) == ["other.txt"]


def test_what_a_process_is_writing_stays(tmp_path, half_written):
    partial = f".last.ckpt.{half_written.pid}.part"
    write_text(tmp_path / "other.txt", "whole")
    assert names(tmp_path) == [partial, "other.txt"]
    remove_abandoned.cache_clear()
    with atomic_write(tmp_path / "mine.txt") as file:
        file.write("1")
        remove_abandoned(tmp_path)
    assert names(tmp_path) == [partial, "mine.txt", "other.txt"]


def test_no_other_file_is_taken_for_an_incomplete_one(tmp_path):
    kept = [".part", ".notes.part", "x.1.part", ".x.1.part.txt", ".link.1.part"]
    for name in kept[:-1]:
        (tmp_path / name).touch()
    (tmp_path / kept[-1]).symlink_to(tmp_path / "x.1.part")
    write_text(tmp_path / "other.txt", "whole")
    assert names(tmp_path) == sorted([*kept, "other.txt"])


def test_a_full_disk_is_said_with_the_file_for_which_there_was_no_room(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*metrics\.csv'"),
        atomic_write(tmp_path / "metrics.csv"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []
