"""The files of a run's folder, read although they may be damaged or hostile."""

import csv
import errno
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from engrec import schema


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a run. kind: "damaged" for its contents, "refused" for what is never opened: a link,
    a pipe, a file larger than any run writes."""

    kind: str
    file: str
    text: str


class FileError(ValueError):
    """A file that cannot be read, and why."""

    def __init__(self, kind: str, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} {reason}")
        self.problem = Problem(kind, path.name, str(self))


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Each value with the dotted path of its key; lists are values."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def format_value(value: Any) -> str:
    """A setting as an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)


MOST_TABLE = 2**27  # bytes of predictions.csv and of each control, which has a name of its own
MOST_BYTES = {
    "config.yaml": 2**20,
    "result.json": 2**22,
    "metrics.csv": 2**24,
    "status.json": 2**16,
    "sweep.json": 2**26,
    "predictions.csv": MOST_TABLE,
}
MOST_SETTINGS, MOST_LETTERS = 1000, 400
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SECTION = re.compile(r"^(?=\w[\w.]*:(?:\s|$))", re.MULTILINE)


def read_text(path: Path, tail: int | None = None, links: bool = False) -> str:
    """The text of a regular file, or of its last bytes. Raises FileError for anything else, such as a pipe, or a link
    unless links are followed, and for a file larger than any run writes."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileError("refused", path, "is a link, which is not followed") from error
        gone = isinstance(error, FileNotFoundError)
        raise FileError("refused", path, "is missing" if gone else f"cannot be read ({error.strerror})") from error
    with os.fdopen(number, "rb") as file:
        at = os.fstat(number)
        if not stat.S_ISREG(at.st_mode):
            raise FileError("refused", path, "is not a plain file")
        if tail is not None:
            file.seek(max(0, at.st_size - tail))
            return file.read(tail).decode("utf-8", "replace")
        if at.st_size > MOST_BYTES.get(path.name, MOST_TABLE):
            raise FileError("refused", path, f"has {at.st_size / 1e6:,.0f} MB, which no run writes")
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError("damaged", path, "is not text") from error


def read_json(path: Path, links: bool = False) -> dict[str, Any]:
    text = read_text(path, links=links)
    try:
        node = json.loads(text)
        escapes = re.search(r"\\u[dD]", text)  # few files have one: the others are not walked over
        half = escapes and schema.SURROGATE.search(json.dumps(node, ensure_ascii=False))
    except json.JSONDecodeError as error:
        raise FileError("damaged", path, f"is damaged (line {error.lineno}: {error.msg})") from error
    except ValueError as error:
        raise FileError("damaged", path, "is damaged (a number that no run writes)") from error
    except RecursionError as error:
        raise FileError("damaged", path, "is nested more deeply than any run writes") from error
    if half:
        raise FileError("damaged", path, f"is damaged ({half[0]!a} is half of a character)")
    if not isinstance(node, dict):
        raise FileError("damaged", path, "is damaged (not a mapping of keys to values)")
    return node


def read_yaml(path: Path, links: bool = False) -> dict[str, Any]:
    """config.yaml, nested."""
    text = read_text(path, links=links)
    try:
        node = schema.plain(by_section(text), keys_are_text=True)
    except FileError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError) as error:
        reason = str(error if type(error) is ValueError else getattr(error, "problem", type(error).__name__))
        raise FileError("damaged", path, f"is damaged ({reason.lstrip('.')})") from error
    if not isinstance(node, dict) or not node:
        raise FileError("damaged", path, "is damaged (it has no settings)")
    return node


def read_settings(path: Path) -> dict[str, Any]:
    """config.yaml with its keys joined by dots; a value is text, a finite number, true, false or null."""
    settings = {key[:MOST_LETTERS]: plain(value) for key, value in flatten(read_yaml(path))}
    if len(settings) > MOST_SETTINGS:
        raise FileError("refused", path, f"has {len(settings):,} settings, which no run has")
    return settings


def by_section(text: str) -> Any:
    """YAML, parsed one top-level key at a time and kept: most runs have most sections in common."""
    before, *sections = SECTION.split(text)
    if before.strip() or not sections:
        return _parsed(text)
    node: dict[str, Any] = {}
    try:
        for section in sections:
            node |= _parsed(section)
    except (yaml.YAMLError, TypeError):  # a text value that continues at the start of a line
        return _parsed(text)
    return node


@lru_cache(4096)
def _parsed(text: str) -> Any:
    """A value in YAML. Raises ValueError where it is nested deeply, which ends the process of the C parser, and for
    anchors and tags: a few lines of aliases (*name) stand for more than fits into memory."""
    depth = 0
    for event in yaml.parse(text, LOADER):  # unlike loading it neither recurses nor builds anything
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FileError("refused", Path("config.yaml"), "has aliases (*name), which no run writes")
        if getattr(event, "tag", None):
            raise ValueError(f"line {event.start_mark.line + 1}: a tag, which no run writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > schema.DEEPEST:
            raise ValueError("it is nested more deeply than any run writes")
    return yaml.load(text, LOADER)


def plain(value: Any) -> Any:
    """A value that JSON has; everything else as text."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return format_value(value)[:MOST_LETTERS]


def number(value: Any) -> float | None:
    """A finite number as it is; None for anything else."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return value if finite else None


def word(value: Any) -> str:
    return value[:MOST_LETTERS] if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def read_history(path: Path) -> dict[str, list[float]]:
    """The columns of metrics.csv; empty where the run has no epochs. Raises ValueError for anything wrong in it."""
    if not path.is_file():
        return {}
    try:
        columns, problem = parse_history(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        columns, problem = {}, str(error)
    if problem:
        raise ValueError(f"{path} is damaged ({problem}): run it again, or remove it")
    return columns


def parse_history(text: str) -> tuple[dict[str, list[float]], str]:
    """The columns of metrics.csv up to the first problem, and that problem with its line, empty if there is none.

    NaN where a cell is empty.
    """
    columns: dict[str, list[float]] = {}
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        if "epoch" not in header or len(set(header)) < len(header):
            return {}, "line 1: the columns must include epoch, and each must appear once"
        columns = {name: [] for name in header}
        for row in rows:
            if len(row) != len(header):
                return columns, f"line {rows.line_num}: {len(row)} cells, the header has {len(header)}"
            values = [float(cell or "nan") for cell in row]
            if not math.isfinite(values[header.index("epoch")]):
                return columns, f"line {rows.line_num}: the epoch is not a number"
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    except (ValueError, csv.Error) as error:
        return columns, f"line {rows.line_num}: {error}"
    return columns, ""
