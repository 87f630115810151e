"""Numbers with their nouns, and text that every terminal and file takes."""

from engrec.words import counted, printable


def test_one_is_singular():
    assert counted(1, "face") == "1 face"
    assert counted(0, "face") == "0 faces"
    assert counted(2_000, "face") == "2,000 faces"
    assert [counted(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]


def test_control_characters_are_spelt_out():
    assert printable("\x1b[31mred\n\x9b \udcff") == r"\x1b[31mred\n\x9b \udcff"
    assert printable("Zoë 表情 −\u00a0½") == "Zoë 表情 −\u00a0½"
