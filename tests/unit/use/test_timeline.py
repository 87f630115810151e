"""The timeline shows what was answered when, at any length."""

import numpy as np
import pytest
from PIL import Image
from tiny_networks import fake

from engrec.use.answers import Answer, Answerer, Seen, SeenFace
from engrec.use.limits import LIMITS
from engrec.use.timeline import MOST_BINS, MOST_KEPT, Timeline, _clock, _runs, _step

NETWORKS = Answerer([fake("expression", ("angry", "neutral")), fake("engagement", ("low", "middle", "high"))])


def seen(seconds, *tracks, high=0.5, px=50.0):
    answers = (
        Answer("expression", "expression", {"angry": 0.2, "neutral": 0.8}, {"angry": 0.1, "neutral": 0.9}),
        Answer("engagement", "engagement", {"low": 0.1, "middle": 0.9 - high, "high": high}),
    )
    faces = tuple(SeenFace("a.mp4", 0, seconds, n, (30.0, 40.0, px, px), 0.9, px, 0.0, answers) for n in tracks)
    crops = tuple(np.full((1, 48, 48), n % 256, np.uint8) for n in tracks)
    return Seen("a.mp4", 0, seconds, faces, crops, np.full((200, 300, 3), 90, np.uint8))


def test_a_timeline_of_a_day_has_as_many_bins_as_one_of_a_minute():
    timeline = Timeline("a.mp4", NETWORKS)
    for n in range(6000):
        timeline.add(seen(n * 14.4, 0, high=0.25 if n < 3000 else 0.75))
    bins = timeline.faces[0].bins
    assert MOST_BINS / 2 <= len(bins) <= MOST_BINS
    assert sum(number for number, _ in bins.values()) == timeline.faces[0].num_frames == 6000
    means = np.array([bins[n][1][1][2] / bins[n][0] for n in sorted(bins)])
    assert means[: len(means) // 2 - 1] == pytest.approx(0.25)
    assert means[len(means) // 2 + 1 :] == pytest.approx(0.75)


def test_the_faces_that_were_seen_longest_are_shown(tmp_path):
    timeline = Timeline("a.mp4", NETWORKS)
    for n in range(60):
        timeline.add(seen(n / 10, *[track for track in range(6) if n >= 10 * track or track == 5]))
    assert [track for track, _ in timeline.shown()] == [0, 1, 2, 5]
    figure = timeline.figure()
    assert len(figure.axes) == 4 * 3
    assert "4 of 6 faces" in figure.get_suptitle()
    assert LIMITS in figure.get_supxlabel()
    path = timeline.write(tmp_path / "x.png")
    with Image.open(path) as picture:
        assert picture.width > 1000


def test_of_many_faces_that_come_and_go_few_are_kept():
    timeline = Timeline("a.mp4", NETWORKS)
    for n in range(2000):
        timeline.add(seen(n / 10, n // 10 + 1, *([0] if 500 <= n < 600 else [])))
    assert timeline.num_faces == 201
    assert len(timeline.faces) <= MOST_KEPT
    assert 0 in dict(timeline.shown())
    assert "4 of 201 faces" in timeline.figure().get_suptitle()


def test_a_gap_stays_a_gap():
    timeline = Timeline("a.mp4", NETWORKS)
    for n in range(30):
        timeline.add(seen(n / 30, *([0] if not 10 <= n < 20 else [])))
    [_, top, _] = timeline.figure().axes
    corners = [path.vertices[:, 0] for part in top.collections for path in part.get_paths() if len(path.vertices)]
    spans = {(round(float(x.min()), 2), round(float(x.max()), 2)) for x in corners}
    assert spans == {(0.0, 0.3), (0.65, 1.0)}


@pytest.mark.parametrize("rate", [0.2, 1, 5, 10, 29.97, 120])
def test_frames_that_are_far_apart_leave_no_gaps(rate):
    timeline = Timeline("a.mp4", NETWORKS)
    for n in range(60):
        timeline.add(seen(n / rate, 0))
    [(start, rows)] = _runs(timeline.faces[0], 0, timeline.reach)
    assert start == 0
    assert len(rows) * timeline.width >= 59 / rate - 1e-6


def test_without_faces_there_is_no_picture(tmp_path):
    timeline = Timeline("a.mp4", NETWORKS)
    timeline.add(seen(0.0))
    assert timeline.write(tmp_path / "x.png") is None
    assert list(tmp_path.iterdir()) == []


def test_the_crop_shown_is_that_of_the_largest_face():
    timeline = Timeline("a.mp4", NETWORKS)
    for px in (50.0, 80.0, 60.0):
        one = seen(px / 100, 0, px=px)
        timeline.add(Seen(one.source, 0, one.seconds, one.faces, (np.full((1, 48, 48), int(px), np.uint8),)))
    assert timeline.faces[0].crop.max() == 80


def test_times_are_read_as_on_a_clock():
    assert [_clock(seconds) for seconds in (0, 45, 75, 3661)] == ["0:00", "0:45", "1:15", "1:01:01"]


@pytest.mark.parametrize(
    ("end", "step"), [(0, 0.1), (5, 0.5), (11, 1), (60, 5), (2700, 300), (86400, 7200), (1e7, 1e7 / 12)]
)
def test_few_times_are_written(end, step):
    assert _step(end) == step
