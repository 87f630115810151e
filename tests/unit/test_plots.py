"""The pictures: written whole or not at all, and showing what they were given."""

import numpy as np
import pytest
from PIL import Image

from engrec import plots


def faces(num_classes, channels=1, num_images=60):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, channels, 48, 48), dtype=np.uint8)
    return images, np.arange(num_images) % num_classes, [f"class {k}" for k in range(num_classes)]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("num_classes", [2, 7, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_has_a_row_per_class(tmp_path, num_classes, channels):
    path = plots.contact_sheet(*faces(num_classes, channels), tmp_path / "new" / "sheet.png", "title", per_class=4)
    sheet = pixels(path)
    dark = (sheet[:, -300:].min(axis=2) < 100).any(axis=1)
    assert np.count_nonzero(np.diff(dark.astype(int)) == 1) == num_classes
    assert np.all(sheet[[0, -1]] == 255)
    assert np.all(sheet[:, [0, -1]] == 255)


def test_contact_sheet_is_the_same_each_time_and_follows_its_seed(tmp_path):
    same, again, other = (
        pixels(plots.contact_sheet(*faces(3), tmp_path / f"{k}.png", "title", per_class=3, seed=seed))
        for k, seed in enumerate((0, 0, 1))
    )
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)


def test_contact_sheet_shows_the_pixels_and_the_colour(tmp_path):
    images = np.zeros((2, 3, 48, 48), np.uint8)
    images[0, 0], images[1, 2] = 255, 255
    sheet = pixels(plots.contact_sheet(images, np.arange(2), ("red", "blue"), tmp_path / "s.png", "title", per_class=1))
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert np.all(sheet == colour, axis=2).sum() > 100**2


def test_contact_sheet_takes_a_class_with_few_images_and_captions(tmp_path):
    images, _, _ = faces(2, num_images=3)
    captions = ["$s_1", "a_very_long_subject_name", "s3"]
    path = plots.contact_sheet(images, np.array([0, 0, 1]), ("a", "b"), tmp_path / "s.png", "t", captions=captions)
    assert path.stat().st_size > 0


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def fail(self, file, **_):
        file.write_bytes(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(plots.Figure, "savefig", fail)
    (tmp_path / "sheet.png").write_bytes(b"the one before")
    with pytest.raises(OSError, match="disk full"):
        plots.contact_sheet(*faces(2), tmp_path / "sheet.png", "title", per_class=1)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_bytes() == b"the one before"


def test_a_row_of_no_faces_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 faces in a row"):
        plots.contact_sheet(*faces(2), tmp_path / "sheet.png", "title", per_class=0)
