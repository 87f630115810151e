"""The film has faces that a detector finds, and the right one is away for five seconds."""

import numpy as np
import pytest

from engrec.faces.detect import Detector
from engrec.use.film import LEFT, RATE, RIGHT, acted, film


def test_both_faces_are_found():
    [first, *_] = frames = list(film(0.2))
    assert len(frames) == RATE // 5
    assert first.shape == (360, 640, 3)
    found = sorted(face.box[0] for face in Detector(320)(first))
    assert len(found) == 2
    assert found[0] < 320 < found[1]
    assert np.array_equal(first, next(film()))


@pytest.mark.parametrize(("time", "there"), [(0, True), (25.9, True), (26, False), (31, True)])
def test_the_right_face_is_away_for_a_while(time, there):
    assert (acted(RIGHT, time) is not None) == there
    assert acted(LEFT, time) is not None


def test_an_expression_comes_little_by_little():
    smile = [float(acted(LEFT, time)["AU12"][0]) for time in (8.9, 9.3, 9.6, 10.2, 15)]
    assert smile == sorted(smile)
    assert (smile[0], smile[-1]) == (0, 1)
