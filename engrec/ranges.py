"""The values that an argument may have: part of a constructor's signature, so that they are checked before it runs."""

import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Finite numbers from low to high. above, below: without low, without high itself; whole: integers."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high) and math.isfinite(value)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high == math.inf:
            return f"{kind} above {self.low}" if self.above else f"{kind} of at least {self.low}"
        first = f"above {self.low}" if self.above else f"from {self.low}"
        if self.below:
            return f"{kind} {first} and below {self.high}"
        return f"{kind} {first} and at most {self.high}" if self.above else f"{kind} {first} to {self.high}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """For the values of a checkpoint, which engrec.schema holds against the same signatures."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: float) -> float:
        if value not in self:
            raise ValueError(f"is {value}: it must be {self}")
        return value


Share = Annotated[float, Range(0, 1)]
Probability = Annotated[float, Range(0, 1, below=True)]  # of dropping, or of noise: at 1 nothing is left
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1, whole=True)]
Seed = Annotated[int, Range(0, 2**32 - 1, whole=True)]
# A factor on a network's channels, and the size of a layer: ten times more than any network of this kind has had.
Width = Annotated[float, Range(0, 16, above=True)]
Size = Annotated[int, Range(1, 2**16, whole=True)]


def problems(function: Callable[..., Any], values: Mapping[str, Any], key: str) -> Iterator[str]:
    """What is wrong with these arguments of a class or function, by its annotations; key: of its configuration."""
    hints = _annotations(function)
    for name, value in values.items():
        if name in hints and (allowed := expected(value, hints[name])):
            yield f"{key}.{name}={value} must be {allowed}"


@cache  # an augmentation is made, and so checked, for every batch
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function.__init__ if isinstance(function, type) else function, include_extras=True)


def check(function: Callable[..., Any], values: Mapping[str, Any], key: str) -> None:
    """Raise ValueError for what is wrong with these arguments."""
    if wrong := list(problems(function, values, key)):
        raise ValueError("; ".join(wrong))


def expected(value: object, annotation: Any) -> str:
    """What a value of this type must be, in words; empty if it is. Types that no configuration has are not checked."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [extra for extra in arguments[1:] if isinstance(extra, Range)]
        return expected(value, arguments[0]) if not limits else "" if value in limits[0] else str(limits[0])
    if origin in (Union, types.UnionType):
        words = [expected(value, option) for option in arguments]
        return " or ".join(words) if all(words) else ""
    if origin is Literal:
        fits = any(type(value) is type(choice) and value == choice for choice in arguments)
        return "" if fits else _one_of(arguments)
    if origin in (Sequence, list, tuple):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return "a list like [1,2]"
        words = [expected(item, arguments[0]) for item in value]
        return next((f"a list, each {word}" for word in words if word), "")
    if annotation is type(None):
        return "" if value is None else "null"
    if annotation is bool:
        return "" if isinstance(value, bool) else "true or false"
    if annotation in (int, float):
        return expected(value, Annotated[annotation, Range(-math.inf, whole=annotation is int)])
    return "a word" if annotation is str and isinstance(value, list | tuple) else ""


def _one_of(choices: Sequence[Any]) -> str:
    if len(choices) == 1:
        return str(choices[0])
    return f"one of {', '.join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices)}"
