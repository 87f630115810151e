"""The sheet of an explanation, for whatever images there are to show."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from engrec.pages.explanation import caution, number, overlaid, sheet, table
from engrec.use.explain import RANKINGS, Deletion, Explanation, Material, Shown


@pytest.fixture
def explanation(make_faces):
    def explanation(numbers=(3, 2), channels=1, low=0.1, **fields):
        faces = make_faces(num_classes=3, channels=channels, **fields)
        network = SimpleNamespace(backbone=nn.Identity())
        material = Material("run/best.ckpt", network, faces, np.arange(24), 1.0, "")
        shown = []
        for kind, many in zip(("right", "wrong"), numbers, strict=True):
            index = np.arange(many)
            predicted = (faces.labels[index] + (kind == "wrong")) % 3
            maps = np.random.default_rng(0).random((many, 16, 16)).astype(np.float32)
            shown.append(Shown(kind, index, predicted, np.linspace(1, 0.5, many), maps, many))
        deletions = [Deletion(0.1, dict(zip(RANKINGS, (0.3, 0.1, 0.2), strict=True)), 0.2, low, 0.3)]
        return Explanation(material, "blocks.1.5", (8, 8), shown, deletions, 20, by_person=True)

    return explanation


@pytest.mark.parametrize("numbers", [(3, 2), (12, 12), (8, 0), (0, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_stands_above_its_map_and_nothing_is_cut_off(explanation, tmp_path, numbers, channels):
    names = ("a class with a long name", "b", "$c$")
    given = explanation(numbers, channels, class_names=names, num_images=60)
    with Image.open(sheet(given, tmp_path / "new" / "sheet.png")) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 5
    assert min(pixels[edge].min() for edge in (0, -1)) == 255
    assert min(pixels[:, edge].min() for edge in (0, -1)) == 255
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_the_table_has_every_number_and_says_who_was_drawn(explanation):
    heading, row = table(explanation())
    assert heading[0] == "Drop in the answer's probability, 20 images"
    assert heading[-1] == "map − random [95 %, over people]"
    assert row == ["10 % of the pixels blurred", "0.300", "0.100", "0.200", "0.200 [0.100, 0.300]"]
    assert table(explanation(low=np.nan))[1][-1] == "0.200"


def test_maps_that_are_no_better_than_random_ones_are_not_to_be_trusted(explanation, tmp_path):
    assert caution(explanation()) == ""
    for low in (0.0, -0.1, np.nan):
        assert caution(explanation(low=low)).endswith("random maps (at 10 %): do not trust these maps.")
        assert caution(explanation(low=low)).startswith("No interval, as all images are of one person.") == np.isnan(
            low
        )
    one, other = (sheet(explanation(low=low), tmp_path / f"{low}.png").read_bytes() for low in (0.1, -0.1))
    with Image.open(tmp_path / "0.1.png") as plain, Image.open(tmp_path / "-0.1.png") as warned:
        assert warned.height > plain.height
    assert one != other
    assert number(-0.0001) == "0.000"


def test_no_text_is_written_over_another(explanation, monkeypatch):
    monkeypatch.setattr("engrec.pages.explanation.write", lambda figure, path, dpi: figure)
    names = ("disengaged", "nominally_engaged", "very_engaged")
    given = replace(explanation(class_names=names, num_images=60), num_images=123_456)
    figure = sheet(given, "")
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert len(boxes) > 15
    assert not [(one, other) for one, other in combinations(boxes, 2) if one.overlaps(other)]


def test_where_the_map_is_zero_the_image_is_left_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4), np.uint8)
    strength = np.zeros((4, 4))
    strength[1, 2] = 1
    found = overlaid(image, strength)
    unchanged = (found == image).all(0)
    assert found.shape == (3, 4, 4)
    assert unchanged.sum() == 15
    assert not unchanged[1, 2]
