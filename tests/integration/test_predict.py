"""scripts/predict.py as it is typed, with a real detector, on a photograph and on videos of it."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import ROOT, Folder
from PIL import Image
from skimage.data import astronaut
from tiny_networks import engagement, expressions

from engrec.faces.video import write_video

PREDICT = ROOT / "scripts" / "predict.py"
# Prints the resident memory after 800 frames of a video and after the last one.
MEASURED = """\
import os, sys
from pathlib import Path
from engrec.use import command, recording

class Measured(recording.Video):
    def frames(self, every=None):
        for number, frame in enumerate(super().frames(every), 1):
            yield frame
            if number in (800, self.num_frames):
                pages = Path("/proc/self/statm").read_text().split()[1]
                print("bytes", int(pages) * os.sysconf("SC_PAGE_SIZE"))

recording.Video = Measured
command.main(sys.argv[1:])
"""
WEIGHTS = ["--weights", "faces.ckpt", "--weights", "engaged.ckpt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, a photograph, and a video of it that has no face in the middle."""
    folder = Folder(tmp_path_factory.mktemp("work"))
    torch.save(expressions(), folder.path / "faces.ckpt")
    torch.save(engagement(), folder.path / "engaged.ckpt")
    photo = Image.fromarray(astronaut())
    photo.save(folder.path / "photo.jpg", quality=95)
    write_video(folder.path / "lesson.mp4", (view(photo, n) for n in range(60)), 20)
    return folder


def view(photo, number):
    """160×120 pixels of the photograph, around the face or, in the second of three seconds, beside it."""
    left, top = (120 + number, 20) if not 20 <= number < 40 else (0, 330)
    return np.asarray(photo.resize((160, 120), Image.Resampling.BILINEAR, box=(left, top, left + 200, top + 150)))


def predicted(folder, *arguments):
    return folder.finish(folder.start(*arguments, *WEIGHTS, script=PREDICT))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_photograph_and_a_video(folder):
    done = predicted(folder, "photo.jpg", "lesson.mp4", "none.jpg", "--out", "both", "--video")
    assert done.status == 1
    assert done.stderr.splitlines() == [
        "error: none.jpg does not exist",
        "error: 1 of 3 inputs could not be read, or not to their end",
    ]
    rows = rows_of(folder.path / "both" / "predictions.csv")
    [photo] = [row for row in rows if row["input"] == "photo.jpg"]
    assert photo["success"] == "1"
    assert 150 < float(photo["FaceRectX"]) + float(photo["FaceRectWidth"]) / 2 < 290
    video = [row for row in rows if row["input"] == "lesson.mp4"]
    found = [row["success"] for row in video]
    assert len(video) == 60
    assert found[:18].count("1") >= 17
    assert found[20:38].count("0") >= 17
    assert found[42:].count("1") >= 16
    for row in video:
        p = [float(row[name] or 0) for name in ("not_engaged", "nominally_engaged", "very_engaged")]
        assert sum(p) == pytest.approx(float(row["success"]), abs=2e-4)
    assert (folder.path / "both" / "lesson_timeline.png").stat().st_size > 10_000
    assert (folder.path / "both" / "lesson_boxes.mp4").stat().st_size > 2_000


def test_ctrl_c_says_what_is_kept(folder):
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(600))
    write_video(folder.path / "long.mp4", noise, 30)
    process = folder.start("long.mp4", *WEIGHTS, "--out", "stopped", script=PREDICT)
    while not any(path.stat().st_size > 8_000 for path in (folder.path / "stopped").glob(".predictions.csv.*")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    done = folder.finish(process)
    assert done.status == 130
    assert "rows kept in stopped" in done.stderr
    assert "Traceback" not in done.stderr
    lines = (folder.path / "stopped" / "predictions.csv").read_text().splitlines()
    assert 100 < len(lines) < 600
    assert len({line.count(",") for line in lines}) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_a_video(folder):
    """That of FFmpeg, onnxruntime and torch too: the process's. The pixels of 1600 frames would take 92 MB."""
    number, photo = 2400, Image.fromarray(astronaut())
    views = [view(photo, n) for n in range(60)]
    write_video(folder.path / "lessons.mp4", (views[n % 60] for n in range(number)), 30)
    arguments = ["lessons.mp4", *WEIGHTS, "--out", "measured", "--video"]
    command, env = [sys.executable, "-c", MEASURED, *arguments], folder.env | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=folder.path, env=env, capture_output=True, text=True, check=True).stdout
    early, late = (int(line.split()[1]) for line in out.splitlines() if line.startswith("bytes "))
    assert late - early < 8_000_000
    faces = [row for row in rows_of(folder.path / "measured" / "predictions.csv") if row["success"] == "1"]
    assert len(faces) > number / 2


def test_weights_that_are_none_end_it_before_anything_is_written(folder):
    done = folder.finish(folder.start("photo.jpg", "--weights", "photo.jpg", "--out", "no", script=PREDICT))
    assert done.status == 65
    assert done.stderr.count("\n") == 1
    assert "photo.jpg cannot be read safely: it is damaged, or not a checkpoint of engrec" in done.stderr
    assert not (folder.path / "no").exists()
