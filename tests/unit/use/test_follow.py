"""Every frame comes back in order, with the faces that were there, and few frames are detected."""

import numpy as np
import pytest
from tiny_networks import bright_square, picture

from engrec.faces.detect import Face
from engrec.faces.track import Tracker
from engrec.use.follow import Shot, followed, mixed


class Watched:
    """A detector that counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self, rgb):
        self.calls += 1
        return bright_square(rgb)


def moving(number, rate):
    """A square that moves a pixel a frame."""
    return [(n / rate, picture(x=10 + n % 60)) for n in range(number)]


@pytest.mark.parametrize(("rate", "apart"), [(30, 3), (29.97, 3), (25, 3), (60, 6), (15, 2), (10, 1), (5, 1)])
def test_ten_frames_a_second_are_detected_whatever_the_rate(rate, apart):
    detect = Watched()
    shots = list(followed(moving(60, rate), detect, Tracker()))
    assert [shot.number for shot in shots] == list(range(60))
    assert detect.calls == pytest.approx(60 / apart, abs=1.1)


def test_between_two_detections_a_box_is_where_the_face_is():
    shots = list(followed(moving(40, 30), Watched(), Tracker()))
    for shot in shots:
        [(track, face)] = shot.faces
        assert track == 0
        assert face.box == pytest.approx(bright_square(shot.rgb)[0].box)


def test_a_face_that_is_gone_at_the_next_detection_is_not_said_to_be_there():
    frames = [(n / 30, picture() if n < 4 or n > 8 else picture(value=0)) for n in range(13)]
    found = [len(shot.faces) for shot in followed(frames, Watched(), Tracker())]
    assert found == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_no_box_is_interpolated_across_a_cut():
    bright = np.full((80, 120, 3), 255, np.uint8)
    bright[50:70, 90:110] = 254
    frames = [(n / 30, picture(side=50)) for n in range(5)] + [(n / 30, bright) for n in range(5, 9)]
    shots = list(followed(frames, Watched(), Tracker()))
    assert [[track for track, _ in shot.faces] for shot in shots] == [[0]] * 5 + [[1]] * 4
    for shot in shots:
        assert shot.faces[0][1].box == pytest.approx(bright_square(shot.rgb)[0].box)


@pytest.mark.parametrize("times", [[0.0] * 20, [5.0 - n / 30 for n in range(20)]])
def test_a_broken_clock_neither_loses_frames_nor_keeps_them_waiting(times):
    detect = Watched()
    frames = [(seconds, picture()) for seconds in times]
    shots = followed(iter(frames), detect, Tracker())
    assert [shot.number for shot in shots] == list(range(20))
    assert detect.calls >= 4


def test_no_frames_are_no_shots():
    assert list(followed([], Watched(), Tracker())) == []


def test_a_face_halfway_has_eyes_halfway():
    one = Face((0.0, 0.0, 10.0, 10.0), 1.0, ((2.0, 2.0), (8.0, 2.0), (5.0, 5.0), (2.0, 8.0), (8.0, 8.0)))
    other = Face((10.0, 20.0, 10.0, 30.0), 0.5, ((4.0, 2.0), (8.0, 4.0), (5.0, 5.0), (2.0, 8.0), (8.0, 8.0)))
    half = mixed(one, other, 0.5)
    assert half.box == (5.0, 10.0, 10.0, 20.0)
    assert half.score == 0.75
    assert half.landmarks[:2] == ((3.0, 2.0), (8.0, 3.0))
    assert mixed(one, Face(other.box, 0.5, None), 0.5).landmarks is None
    assert isinstance(Shot(0, 0.0, None, ((0, half),)).faces[0][1].roll, float)
