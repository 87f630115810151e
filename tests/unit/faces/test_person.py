"""Whose face is taken from a video."""

import numpy as np
import pytest

from engrec.faces.detect import Face
from engrec.faces.person import CANDIDATES, frames_of_one_person

LEFT, RIGHT, FRONT = (10, 10, 40, 40), (110, 10, 60, 60), (100, 5, 90, 90)


def taken(*boxes, every=1.0):
    """x of the face that is taken from each frame, None without; boxes: of the faces of each frame."""
    frames = [(every * number, np.full((120, 200, 3), number, np.uint8)) for number in range(len(boxes))]

    def detect(rgb):
        return [Face(box, 0.9, None) for box in boxes[rgb[0, 0, 0]]]

    found = frames_of_one_person(frames, every, detect, lambda rgb, face: np.array([rgb[0, 0, 0], *face.box]))
    assert [frame.num_faces for frame in found] == [len(of_frame) for of_frame in boxes]
    assert [(frame.seconds, frame.width, frame.height) for frame in found] == [(t, 200, 120) for t, _ in frames]
    for number, frame in enumerate(found):
        assert (frame.face is None) == (frame.number is None) == (frame.image is None)
        assert frame.image is None or frame.image.tolist() == [number, *frame.face.box]
    return [frame.face and frame.face.box[0] for frame in found]


def test_who_is_seen_longest_is_taken_and_not_who_passes_in_front():
    passing = [[LEFT]] * 4 + [[LEFT, FRONT], [FRONT], [LEFT]]
    assert taken(*passing) == [10, 10, 10, 10, 10, None, 10]


def test_of_those_who_are_seen_as_long_the_largest_is_taken():
    assert taken([LEFT, RIGHT], [RIGHT, LEFT]) == [110, 110]


def test_a_face_that_follows_another_is_taken_too():
    assert taken([LEFT], [LEFT], [], [], [RIGHT]) == [10, 10, None, None, 110]


@pytest.mark.parametrize("every", [0.1, 1.0, 20.0])
def test_a_face_that_is_missed_in_a_frame_is_still_the_same(every):
    assert taken([RIGHT], [LEFT, RIGHT], [LEFT], [LEFT, RIGHT], [RIGHT], every=every) == [110, 110, None, 110, 110]


def test_a_cut_ends_what_is_known():
    dark, light = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 200, np.uint8)
    frames = [(0.0, dark), (1.0, dark), (2.0, light)]
    found = frames_of_one_person(frames, 1.0, lambda rgb: [Face(LEFT, 0.9, None)], lambda rgb, face: rgb)
    assert [frame.number for frame in found] == [0, 0, 1]


def test_no_frames_and_no_faces():
    assert taken() == []
    assert taken([], []) == [None, None]


def test_of_a_crowd_the_largest_faces_are_candidates():
    crowd = [(40 * number, 0, 20 + number, 20) for number in range(CANDIDATES + 3)]
    assert taken(crowd, crowd) == [40 * (CANDIDATES + 2)] * 2
