"""Answers belong to their faces, whatever is gathered to a batch, and smoothing goes by seconds."""

import math
import weakref

import numpy as np
import pytest
from tiny_networks import bright_square, fake, picture

from engrec.faces.detect import Face
from engrec.use.answers import Answer, Answerer, Smoother, given_faces
from engrec.use.follow import Shot


def shot(number=0, seconds=None, values=(200,)):
    """A picture with stripes of these values side by side, and a face in each."""
    rgb = np.zeros((60, 80 * max(1, len(values)), 3), np.uint8)
    for n, value in enumerate(values):
        rgb[:, 80 * n : 80 * n + 80] = value
    faces = [Face((80.0 * n + 10, 0.0, 60.0, 60.0), 0.9) for n in range(len(values))]
    return Shot(number, seconds, rgb, tuple(enumerate(faces)))


def test_each_face_gets_its_own_answer_in_batches_of_any_size():
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, rng.integers(0, 5)).tolist() for _ in range(60)]
    answerer = Answerer([fake()])
    seen = list(answerer((f"{n}.png", shot(values=given)) for n, given in enumerate(values)))
    assert [one.source for one in seen] == [f"{n}.png" for n in range(60)]
    for one, given in zip(seen, values, strict=True):
        found = [face.expression.probabilities["happy"] for face in one.faces]
        assert found == pytest.approx([value / 255 for value in given], abs=1e-6)
        assert [face.face_id for face in one.faces] == list(range(len(given)))
        assert [int(crop.mean()) for crop in one.crops] == given


def test_two_networks_of_other_sizes_and_colours_see_the_same_face():
    small = fake("engagement", ("low", "high"))
    small.preprocessing.update(channels=3, height=32, width=32)
    answerer = Answerer([fake(), small])
    assert answerer.kinds == [(48, "grey"), (32, "rgb")]
    [seen] = answerer([("a.png", shot())])
    assert seen.crops[0].shape == (1, 48, 48)
    [face] = seen.faces
    assert (face.expression.label, face.engagement.label) == ("happy", "high")
    assert face.engagement.probability == pytest.approx(200 / 255)
    assert face.answers[0].smoothed is None


def test_pixels_are_dropped_unless_they_are_asked_for():
    shots = [shot(number=n, seconds=float(n)) for n in range(5)]
    [*kept] = Answerer([fake()])((("a.mp4", one) for one in shots), keep=True)
    assert all(one.rgb is frame.rgb for one, frame in zip(kept, shots, strict=True))
    assert all(one.rgb is None for one in Answerer([fake()])(("a.mp4", one) for one in shots))


@pytest.mark.parametrize("keep", [False, True])
def test_few_pictures_are_in_memory_at_a_time(keep):
    alive = weakref.WeakSet()

    class Pixels(np.ndarray):
        """An array that can be counted."""

        __hash__ = object.__hash__

    def shots():
        for n in range(300):
            rgb = picture(value=0).view(Pixels)
            alive.add(rgb)
            yield "a.mp4", Shot(n, n / 30, rgb, ())

    most = max(len(alive) for _ in Answerer([fake()])(shots(), keep))
    assert most <= 10


def test_smoothing_is_the_same_at_every_frame_rate():
    ends = []
    for rate in (5, 30, 120):
        smoother = Smoother()
        for n in range(4 * rate + 1):
            [mean] = smoother(0, n / rate, [np.array([0.0, 1.0]) if n else np.array([1.0, 0.0])])
        ends.append(mean[0])
    assert ends == pytest.approx([math.exp(-4)] * 3)


def test_smoothing_keeps_faces_apart_and_forgets_those_of_long_ago():
    smoother = Smoother()
    smoother(0, 0.0, [np.array([1.0, 0.0])])
    [other] = smoother(1, 0.1, [np.array([0.0, 1.0])])
    assert other.tolist() == [0.0, 1.0]
    [same] = smoother(0, 0.0, [np.array([0.0, 1.0])])
    assert same.tolist() == [1.0, 0.0]  # no time has passed
    smoother.forget(5.0)
    assert set(smoother.states) == {0, 1}
    smoother.forget(10.05)
    assert set(smoother.states) == {1}


def test_an_answer_names_its_most_probable_class():
    answer = Answer("mine", "engagement", {"low": 0.2, "high": 0.8})
    assert (answer.label, answer.probability) == ("high", 0.8)


def test_own_boxes_are_faces():
    [face] = given_faces([[1, 2, 30, 20]], 100, 100)
    assert face == Face((1.0, 2.0, 30.0, 20.0), 1.0, None)
    assert given_faces(np.array([[1, 2, 30, 20]]), 100, 100) == [face]


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (1, 2, 0, 5), (1, 2, -3, 5), (1, 2, math.nan, 5), (100, 2, 5, 5), (-9, 2, 5, 5), (1, 99, 5, 0)]
)
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(ValueError, match=r"^(a|the) box .*(must be|beside)"):
        given_faces([box], 100, 100)


def test_the_detector_of_the_tests_finds_the_square():
    assert bright_square(picture(x=7, y=9, side=20))[0].box == (7.0, 9.0, 20.0, 20.0)
