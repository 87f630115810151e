"""Numbers with their nouns."""

from engrec.words import counted


def test_one_is_singular():
    assert counted(1, "face") == "1 face"
    assert counted(0, "face") == "0 faces"
    assert counted(2_000, "face") == "2,000 faces"
    assert [counted(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]
