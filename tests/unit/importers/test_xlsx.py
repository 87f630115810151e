"""Sheets of Excel as text."""

import zipfile

import pytest
import video_sets
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, drawn, in_one_line

from engrec.importers import table, xlsx

ROWS = [("", "chunk", "label"), ("0", "a b.mp4", "Not-Engaged"), ("1", "ü&<.mp4", ""), ("2", "", "0.33")]


def test_rows_have_their_empty_cells(tmp_path):
    video_sets.write_xlsx(tmp_path / "a.xlsx", ROWS)
    found = list(xlsx.rows(tmp_path / "a.xlsx"))
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert [cells for _, cells in found] == [[*ROWS[0]], [*ROWS[1]], ["1", "ü&<.mp4"], [*ROWS[3]]]


def test_a_table_may_be_a_sheet(tmp_path):
    video_sets.write_xlsx(tmp_path / "a.xlsx", ROWS)
    found = list(table.read(tmp_path / "a.xlsx", ("chunk", "label")))
    assert found[0] == ("a.xlsx row 2", {"chunk": "a b.mp4", "label": "Not-Engaged"})
    assert [row["label"] for _, row in found] == ["Not-Engaged", "", "0.33"]


def write_sheet(path, sheet, name="xl/worksheets/sheet1.xml"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, sheet)


def test_texts_inside_cells_and_formulas(tmp_path):
    cells = '<c t="inlineStr"><is><r><t>two </t></r><r><t>runs</t></r></is></c><c t="str"><f>A1</f><v>x</v></c><c/>'
    write_sheet(tmp_path / "a.xlsx", f"<worksheet><sheetData><row>{cells}</row></sheetData></worksheet>")
    assert list(xlsx.rows(tmp_path / "a.xlsx")) == [(1, ["two runs", "x", ""])]


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;&b;">]><worksheet>&c;</worksheet>'


@pytest.mark.parametrize(
    ("sheet", "name", "reason"),
    [
        (BOMB, "xl/worksheets/sheet1.xml", "defines entities"),
        ("<worksheet><row>", "xl/worksheets/sheet1.xml", ""),
        ("<worksheet/>", "other.xml", "no sheet"),
        ('<worksheet><row><c t="s"><v>7</v></c></row></worksheet>', "xl/worksheets/sheet1.xml", ""),
        ('<worksheet><row><c r="ZZZZ1"/></row></worksheet>', "xl/worksheets/sheet1.xml", "out of order"),
        ('<worksheet><row r="x"><c/></row></worksheet>', "xl/worksheets/sheet1.xml", ""),
    ],
)
def test_damage_is_one_line(tmp_path, sheet, name, reason):
    write_sheet(tmp_path / "a.xlsx", sheet, name)
    with pytest.raises(ValueError, match=r"a\.xlsx is not a readable \.xlsx file") as caught:
        list(xlsx.rows(tmp_path / "a.xlsx"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@drawn(2)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.xlsx"
    video_sets.write_xlsx(path, ROWS)
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    else:  # a whole zip with a damaged sheet
        with zipfile.ZipFile(path) as archive:
            sheet = archive.read("xl/worksheets/sheet1.xml")
        write_sheet(path, data.draw(damaged(sheet)))
    for _, cells in in_one_line(lambda: list(xlsx.rows(path))) or []:
        assert all(isinstance(cell, str) for cell in cells)


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"\xd0\xcf\x11\xe0 an old .xls")
    with pytest.raises(ValueError, match="save it as CSV"):
        list(xlsx.rows(tmp_path / "a.xlsx"))
