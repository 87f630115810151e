"""What an argument may be, by the annotation of a constructor, and how it is said."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest

from engrec.models.vgg import VGG
from engrec.ranges import Count, NotNegative, Positive, Probability, Range, Share, Width, expected, problems
from engrec.schema import arguments, misfit

NUMBERS = [-1, 0, 0.5, 1, 2, 1e9, math.nan, math.inf, -math.inf, True, "1", [1], None]


@pytest.mark.parametrize(
    ("annotation", "allowed", "words"),
    [
        (Share, [0, 0.5, 1], "a number from 0 to 1"),
        (Probability, [0, 0.5], "a number from 0 and below 1"),
        (Positive, [0.5, 1, 2, 1e9], "a number above 0"),
        (NotNegative, [0, 0.5, 1, 2, 1e9], "a number of at least 0"),
        (Width, [0.5, 1, 2], "a number above 0 and at most 16"),
        (Count, [1, 2], "a whole number of at least 1"),
        (Annotated[float, Range(0, 1, above=True, below=True)], [0.5], "a number above 0 and below 1"),
        (Positive | None, [0.5, 1, 2, 1e9, None], "a number above 0 or null"),
        (Literal["a", True], [True], "one of a, true"),
        (Literal["balanced"] | Sequence[Positive] | None, [[1], None], None),
        (bool, [True], "true or false"),
        (Any, NUMBERS, None),
    ],
)
def test_a_value_is_allowed_or_told_what_it_must_be(annotation, allowed, words):
    for value in NUMBERS:
        found = expected(value, annotation)
        fits = any(type(value) is type(one) and (value == one or value is one) for one in allowed)
        assert (found == "") is fits, (value, found)
        if not fits and words:
            assert found == words


def test_the_element_of_a_list_is_named():
    assert expected([1, -1], Sequence[Positive]) == "a list, each a number above 0"
    assert expected(3, Sequence[Positive]) == "a list like [1,2]"


def test_arguments_of_a_class_and_of_a_function():
    class Thing:
        def __init__(self, size: Count, name: str = "", other: object = None) -> None: ...

    def thing(size: Count) -> None: ...

    for target in (Thing, thing):
        assert list(problems(target, {"size": 0, "unknown": 1}, "model")) == [
            "model.size=0 must be a whole number of at least 1"
        ]
    assert not list(problems(Thing, {"size": 1, "name": 3, "other": [1]}, "model"))


def test_a_checkpoints_values_are_held_against_the_same_ranges():
    found = misfit(arguments(VGG), {"width": -1})
    assert found == "width is -1.0: it must be a number above 0 and at most 16"
    assert misfit(arguments(VGG), {"dense": [0]}) == "dense.0 is 0: it must be a whole number from 1 to 65536"
    assert not misfit(arguments(VGG), {"width": 0.5, "dense": [8], "norm": "batch"})
