"""Values from a file, held against a description of it: what does not fit is said in words, on one line."""

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

MOST_VALUES, DEEPEST, MOST_LETTERS = 100_000, 12, 1000  # of plain values
WORDS = {
    "Input should": "it must",
    "a valid integer": "a whole number",
    "a valid dictionary": "a mapping",
    "a valid string": "text",
    "a valid ": "a ",
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
    found = []
    for key in place:  # after the keys of the file come names that pydantic has for the alternatives of a type
        try:
            value = value[key]
        except (LookupError, TypeError):
            break
        found.append(key)
    name = ".".join(map(_word, found))
    if message == "Field required":
        return f"it lacks {'.'.join(map(_word, place))}"
    if message.startswith("Value error, "):
        ours = message.removeprefix("Value error, ")
        return f"{name}{ours}" if ours.startswith(".") else f"{name} {ours}"
    message = message.partition(" or instance of ")[0]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return f"{name or 'it'} is {shown(value)}: {message}"


def _word(key: Any) -> str:
    return shown(key).strip("'\"")


def shown(value: Any) -> str:
    """A value for an error message: short, printable and without a line break, whatever it is."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**64):
        return repr(value)
    return "a huge number" if isinstance(value, int) else f"a {type(value).__name__}"


def plain(value: Any) -> Any:
    """The same value. Raises ValueError unless it is nested dicts and lists of texts, numbers, true, false and None,
    not so many and not so deep that walking over them takes long."""
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    for number in range(MOST_VALUES):
        if not waiting:
            return value
        place, depth, node = waiting.pop()
        if isinstance(node, dict | list | tuple) and depth < DEEPEST:
            if len(waiting) + 2 * len(node) > MOST_VALUES - number:
                break
            items = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += [(f"{place}.{_word(key)}", depth + 1, part) for key, inner in items for part in (inner, key)]
        elif node is not None and (type(node) not in (bool, int, float, str) or is_huge(node)):
            raise ValueError(f"{place} is {shown(node)}: it must be text, a number, or a few of them")
    raise ValueError("has more values than any run writes")


def is_huge(value: Any) -> bool:
    """Whether it is a whole number of more digits than Python turns into text."""
    return isinstance(value, int) and value.bit_length() > 2**12


def one_line(value: Any) -> Any:
    """The same plain value. Raises ValueError where a text in it cannot be part of a message in one line."""
    plain(value)
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list | tuple):
            waiting += [*node, *node.values()] if isinstance(node, dict) else node
        elif isinstance(node, str) and not (node.isprintable() and len(node) <= MOST_LETTERS):
            raise ValueError(f"has {shown(node)}: it must be short text without control characters")
    return value


def arguments(function: Any) -> type[BaseModel]:
    """The description of what a class or a function is called with: its signature."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    config = ConfigDict(Record.model_config | ConfigDict(extra="forbid"))
    return create_model(function.__name__, __config__=config, **fields)
