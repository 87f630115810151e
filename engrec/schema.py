"""Values from a file, validated against a description of it: what does not fit is named on one line."""

import inspect
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

MOST_VALUES, DEEPEST = 100_000, 12  # of plain values
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: JSON can name it, and no file or terminal takes it
WORDS = {  # of pydantic, as regular expressions, and ours
    " or instance of .*": "",
    "Input should": "it must",
    "a valid string": "text",
    "a valid dictionary": "a mapping",
    "a valid integer": "a whole number",
    "a valid": "a",
    "Extra inputs are not permitted": "there is no such setting",
}


class Record(BaseModel):
    """A description: its fields have exactly these types, numbers are finite, and further keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, arbitrary_types_allowed=True)


def misfit(record: type[BaseModel], value: Any) -> str:
    """The first thing in which a value differs from its description; empty if it fits."""
    try:
        record.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _in_words(first["loc"], first["msg"], value)
    return ""


def _in_words(place: Sequence[int | str], message: str, value: Any) -> str:
    if message == "Field required":
        return f"it lacks {_name(place)}"
    for number, key in enumerate(place):
        try:
            value = value[key]
        except (LookupError, TypeError):  # after the keys of the file come pydantic's names for alternatives of a type
            place = place[:number]
    if message.startswith("Value error, "):  # one of ours
        return f"{_name(place)}{message.removeprefix('Value error,')}".replace(" .", ".")
    for theirs, ours in WORDS.items():
        message = re.sub(theirs, ours, message)
    return f"{_name(place) or 'it'} is {shown(value)}: {message}"


def _name(place: Sequence[Any]) -> str:
    return ".".join(shown(key).strip("'\"") for key in place)


def shown(value: Any) -> str:
    """A value for an error message: short, printable and without a line break, whatever it is."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**64):
        return repr(value)
    return "a huge number" if isinstance(value, int) else f"a {type(value).__name__}"


def plain(value: Any, for_messages: bool = False, keys_are_text: bool = False) -> Any:
    """The same value. Raises ValueError unless it is nested dicts and lists of texts, numbers, true, false and None,
    not so many and not so deep that walking over them takes long. for_messages: nor a text longer than a line."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    for number in range(MOST_VALUES):
        if not waiting:
            return value
        place, node = waiting.pop()
        if isinstance(node, dict | list | tuple) and len(place) < DEEPEST:
            if len(waiting) + 2 * len(node) > MOST_VALUES - number:
                break
            odd = [key for key in node if not isinstance(key, str)] if keys_are_text and isinstance(node, dict) else []
            if odd:
                raise ValueError(f".{_name(place) or 'it'} has the key {shown(odd[0])}: a key must be text")
            items = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += [((*place, key), part) for key, inner in items for part in (inner, key)]
        elif node is not None and type(node) not in (bool, int, float, str):
            raise ValueError(f".{_name(place)} is {shown(node)}: it must be text, a number, or a few of them")
        elif isinstance(node, int) and node.bit_length() > 2**12:  # Python does not turn it into text
            raise ValueError(f".{_name(place)} is a huge number")
        elif isinstance(node, str) and SURROGATE.search(node):
            raise ValueError(f".{_name(place)} is {shown(node)}: it has half of a character")
        elif isinstance(node, str) and for_messages and not (node.isprintable() and len(node) < 1000):
            raise ValueError(f".{_name(place)} is {shown(node)}: it must be short text without control characters")
    raise ValueError("has more values than any run writes")


def same_plain(one: Any, other: Any) -> bool:
    """Whether two nested values are the same once they were written as JSON, in which a tuple is a list."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


@cache
def arguments(function: Any) -> type[BaseModel]:
    """The description of what a class or a function is called with: its signature."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    config = ConfigDict(Record.model_config | ConfigDict(extra="forbid"))
    return create_model(function.__name__, __config__=config, **fields)
