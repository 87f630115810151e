"""Numbers of faces over time."""

from types import SimpleNamespace

import numpy as np
import pytest
from skimage import data

from engrec.faces.track import Tracker, is_cut


def face(x, y, side=80.0):
    return SimpleNamespace(box=(x, y, 0.8 * side, side))


def test_two_people_who_sway_keep_their_numbers_in_any_order_and_at_any_rate():
    for rate in (5, 10, 30):
        tracker = Tracker()
        for number in range(4 * rate):
            seconds = number / rate
            sway = 30 * np.sin(2 * np.pi * 0.4 * seconds)
            two = [(0, face(100 + sway, 100)), (1, face(300 - sway, 110))]
            two = two[:: -1 if number % 2 else 1]
            assert tracker([one for _, one in two], seconds) == [person for person, _ in two]


@pytest.mark.parametrize(("away", "number"), [(1.4, 0), (1.6, 1)])
def test_who_is_away_for_longer_than_the_gap_gets_a_new_number(away, number):
    tracker = Tracker(gap=1.5)
    assert tracker([face(100, 100)], 0.0) == [0]
    assert tracker([], away / 2) == []
    assert tracker([face(100, 100)], away) == [number]


def test_faces_are_followed_from_frame_to_frame_however_far_apart_these_are():
    tracker = Tracker(gap=1.5)
    assert [tracker([face(100 + t, 100), face(300, 100)], t) for t in (0.0, 2.0, 7.0, 67.0)] == [[0, 1]] * 4
    assert tracker([face(300, 100)], 69.0) == [1]
    assert tracker([face(167, 100), face(300, 100)], 71.0) == [2, 1]  # away for longer, and from the frame before


def test_a_face_elsewhere_is_another_person():
    tracker = Tracker()
    tracker([face(100, 100)], 0.0)
    assert tracker([face(300, 100)], 0.1) == [1]
    assert tracker([face(300, 100), face(102, 100)], 0.2) == [1, 0]


def test_someone_who_walks_is_followed_through_missed_frames():
    tracker = Tracker()
    numbers = [tracker([face(300 * t, 100)] if round(10 * t) % 3 else [], t) for t in np.arange(0.1, 2, 0.1)]
    assert {number for frame in numbers for number in frame} == {0}


def test_a_cut_ends_all_tracks():
    tracker = Tracker()
    tracker([face(100, 100), face(300, 100)], 0.0)
    tracker.cut()
    assert tracker([face(100, 100), face(300, 100)], 0.04) == [2, 3]


def test_boxes_without_area_are_no_error():
    assert Tracker()([face(10, 10, side=0.0), face(10, 10, side=0.0)], 0.0) == [0, 1]


def test_another_scene_is_a_cut_but_movement_and_light_are_none():
    scene = data.astronaut()
    assert is_cut(scene[:300, :451], data.chelsea())
    assert is_cut(scene[:400, :400], data.coffee()[:400, :400])
    assert not is_cut(scene[:400, :400], scene[20:420, 20:420])
    assert not is_cut(scene, (scene * 0.8).astype(np.uint8))
    assert is_cut(scene, scene[:100])
