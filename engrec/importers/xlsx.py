"""The first sheet of an Excel file (.xlsx) as text: a zip of XML files, see ECMA-376 part 1, section 18.3."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from engrec.importers import files

MOST_BYTES, MOST_COLUMNS = 2**26, 2**14  # of a part of the file, unpacked; of a sheet


def rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row that has any. Raises ValueError for a file that is damaged or no .xlsx."""
    try:
        with zipfile.ZipFile(source) as archive:
            texts = _texts(archive)
            sheet = _parsed(archive, _first_sheet(archive))
        for number, row in enumerate(sheet.findall(".//{*}row"), 1):
            yield int(row.get("r", number)), _cells(row, texts)
    except (*files.DAMAGE, *files.UNSUPPORTED, ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = files.one_line(error)
        raise ValueError(f"{source.name} is not a readable .xlsx file ({reason}): save it as CSV in UTF-8") from error


def _first_sheet(archive: zipfile.ZipFile) -> str:
    sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
    if not sheets:
        raise LookupError("it has no sheet")
    return min(sheets, key=lambda name: (len(name), name))  # sheet2 before sheet10


def _texts(archive: zipfile.ZipFile) -> list[str]:
    """The texts that cells name by their number."""
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    return [_text(item) for item in _parsed(archive, "xl/sharedStrings.xml").findall("{*}si")]


def _parsed(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{name} is larger than {MOST_BYTES >> 20} MiB")
    if b"<!DOCTYPE" in content:
        raise ValueError(f"{name} defines entities, which no spreadsheet does")
    return ElementTree.fromstring(content)


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.findall(".//{*}t"))


def _cells(row: ElementTree.Element, texts: list[str]) -> list[str]:
    """Cells that are left out of the file are empty."""
    cells: list[str] = []
    for cell in row.findall("{*}c"):
        column = _column(cell.get("r", "")) if cell.get("r") else len(cells)
        if not len(cells) <= column < MOST_COLUMNS:
            raise ValueError(f"cell {cell.get('r')} is out of order")
        cells += [""] * (column - len(cells))
        value = cell.findtext("{*}v") or ""
        kind = cell.get("t")
        cells.append(_text(cell) if kind == "inlineStr" else texts[int(value)] if kind == "s" else value)
    return cells


def _column(reference: str) -> int:
    """0 for A1, 27 for AB3."""
    number = 0
    for letter in filter(str.isalpha, reference[:4].upper()):
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1
