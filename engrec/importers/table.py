"""Tables with a header, as people and spreadsheets write them: CSV and .xlsx."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from engrec.importers import files, xlsx

MOST_LETTERS = 1000  # of a cell, so that it can be shown in a message


def read(source: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row that is not empty: its place for messages, and its cells by column, in lower case and without spaces.

    Line numbers are those of an editor: the header is line 1. Raises ValueError for a file that is neither UTF-8 text
    nor .xlsx, a missing or repeated column, and a row of another length.
    """
    rows = _rows(source)
    header = _header(next(rows, ("", []))[1], source, needed, optional)
    for where, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise ValueError(
                f"{where} has {len(cells)} cells, expected {len(header)}: quote cells that contain the "
                "separator, or download the file again"
            )
        if (longest := max(map(len, cells))) > MOST_LETTERS:
            raise ValueError(f"{where} has a cell of {longest} letters, allowed: {MOST_LETTERS}; shorten it")
        row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
        yield where, {column: row[column] for column in (*needed, *optional) if column in row}


def columns(source: Path) -> list[str]:
    """The names of the columns, as `read` takes them."""
    return [cell.strip().lower() for cell in next(_rows(source), ("", []))[1]]


def _rows(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each row; the first is the header."""
    return _of_spreadsheet(source) if source.suffix.lower() == ".xlsx" else _of_csv(source)


def _of_csv(source: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=_delimiter(file.readline()))
            file.seek(0)
            for cells in lines:
                yield f"{source.name} line {lines.line_num}", cells
    except UnicodeDecodeError as error:
        raise ValueError(f"{source.name} is not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise ValueError(
            f"{source.name} is not a CSV file ({files.one_line(error)}): save it as CSV in UTF-8"
        ) from error


def _of_spreadsheet(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows as long as the header: a spreadsheet leaves out empty cells at the end."""
    length = 0
    for number, cells in xlsx.rows(source):
        length = length or len(cells)
        yield f"{source.name} row {number}", cells + [""] * (length - len(cells))


def _delimiter(header: str) -> str:
    """Separator: the one that occurs most in the header, whose column names contain none."""
    return max(",;\t", key=header.count)


def _header(cells: list[str], source: Path, needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    where = f"{source.name} line 1"
    if missing := [column for column in needed if column not in names]:
        found = ascii(", ".join(names)[:80])[1:-1] or "nothing"
        also = f", and may name {' and '.join(optional)}" if optional else ""
        raise ValueError(
            f"{where} lacks the column {', '.join(missing)}; found {found}: "
            f"the header must name {_listed(needed)}{also}"
        )
    if twice := [column for column in (*needed, *optional) if names.count(column) > 1]:
        raise ValueError(f"{where} names the column {', '.join(twice)} twice: keep one")
    return names


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
