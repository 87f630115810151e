"""The pictures: written completely or not at all, and showing what they were given."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from engrec.pages.contact_sheet import contact_sheet
from engrec.runs import pictures


def faces(num_classes, channels=1, num_images=60):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, channels, 48, 48), dtype=np.uint8)
    return images, np.arange(num_images) % num_classes, [f"class {k}" for k in range(num_classes)]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("num_classes", [2, 7, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_has_a_row_per_class(tmp_path, num_classes, channels):
    path = contact_sheet(*faces(num_classes, channels), tmp_path / "new" / "sheet.png", "title", per_class=4)
    sheet = pixels(path)
    dark = (sheet[:, -300:].min(axis=2) < 100).any(axis=1)
    assert np.count_nonzero(np.diff(dark.astype(int)) == 1) == num_classes
    assert np.all(sheet[[0, -1]] == 255)
    assert np.all(sheet[:, [0, -1]] == 255)


def test_contact_sheet_is_the_same_each_time_and_follows_its_seed(tmp_path):
    same, again, other = (
        pixels(contact_sheet(*faces(3), tmp_path / f"{k}.png", "title", per_class=3, seed=seed))
        for k, seed in enumerate((0, 0, 1))
    )
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)


def test_contact_sheet_shows_the_pixels_and_the_colour(tmp_path):
    images = np.zeros((2, 3, 48, 48), np.uint8)
    images[0, 0], images[1, 2] = 255, 255
    sheet = pixels(contact_sheet(images, np.arange(2), ("red", "blue"), tmp_path / "s.png", "title", per_class=1))
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert np.all(sheet == colour, axis=2).sum() > 100**2


def test_contact_sheet_takes_a_class_with_few_images_and_captions(tmp_path):
    images, _, _ = faces(2, num_images=3)
    captions = ["$s_1", "a_very_long_subject_name", "s3"]
    path = contact_sheet(images, np.array([0, 0, 1]), ("a", "b"), tmp_path / "s.png", "t", captions=captions)
    assert path.stat().st_size > 0


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def fail(self, file, **_):
        file.write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(pictures.Figure, "savefig", fail)
    (tmp_path / "sheet.png").write_bytes(b"the one before")
    with pytest.raises(OSError, match="disk full"):
        contact_sheet(*faces(2), tmp_path / "sheet.png", "title", per_class=1)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_bytes() == b"the one before"


def test_a_row_of_no_faces_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 faces in a row"):
        contact_sheet(*faces(2), tmp_path / "sheet.png", "title", per_class=0)


def history(num_epochs=4):
    sides = [f"{side}/{name}" for side in ("train", "val") for name in ("loss", "accuracy", "f1", "auc")]
    return [{"epoch": epoch} | dict.fromkeys(sides, 0.5 + 0.1 * epoch) for epoch in range(num_epochs)]


def drawn(monkeypatch):
    """Everything written into a picture."""
    texts = []
    save = pictures.Figure.savefig

    def savefig(figure, *arguments, **settings):
        save(figure, *arguments, **settings)
        texts.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(pictures.Figure, "savefig", savefig)
    return texts


def test_curves_are_a_picture_with_the_best_values(tmp_path, monkeypatch):
    texts = drawn(monkeypatch)
    path = pictures.curves(history(), tmp_path / "curves.png")
    assert (pixels(path) < 250).any()
    assert texts.count("0.800") == 3
    assert texts.count("0.500") == 1  # the lowest loss
    assert {"train", "validation", "loss", "accuracy", "F1", "AUC"} <= set(texts)


@pytest.mark.parametrize("undefined", [[0], [1, 2], [0, 1, 2, 3]])
def test_curves_take_the_best_of_the_values_that_are_defined(tmp_path, monkeypatch, undefined):
    texts, epochs = drawn(monkeypatch), history()
    for epoch in undefined:
        epochs[epoch]["val/auc"] = epochs[epoch]["train/f1"] = float("nan")
    assert (pixels(pictures.curves(epochs, tmp_path / "curves.png")) < 250).any()
    assert "nan" not in texts
    assert texts.count("0.800") == (2 if 3 in undefined else 3)


def test_curves_of_one_epoch(tmp_path):
    assert (pixels(pictures.curves(history(1), tmp_path / "curves.png")) < 250).any()


@pytest.mark.parametrize("num_classes", [2, 8])
def test_confusion_shows_every_count_and_its_share(tmp_path, monkeypatch, num_classes):
    texts = drawn(monkeypatch)
    matrix = np.arange(num_classes**2, dtype=float).reshape(num_classes, num_classes) * 100
    names = [f"name {k}" for k in range(num_classes)]
    path = pictures.confusion(matrix, names, tmp_path / "confusion.png", "a title")
    assert (pixels(path) < 250).any()
    for row in matrix:
        assert all(f"{count / row.sum():.0%}\n{count:,.0f}" in texts for count in row)
    assert {"a title", "predicted", "labelled", *names} <= set(texts)


def test_confusion_takes_a_class_that_does_not_occur(tmp_path, monkeypatch):
    texts = drawn(monkeypatch)
    pictures.confusion(np.array([[3.0, 1.0], [0.0, 0.0]]), ["a", "b"], tmp_path / "confusion.png", "t")
    assert texts.count("0%\n0") == 2


@pytest.mark.parametrize("draw", ["curves", "confusion"])
def test_a_picture_is_written_completely_or_not_at_all(tmp_path, monkeypatch, draw):
    def fail(self, file, **_):
        file.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures.Figure, "savefig", fail)
    arguments = [history()] if draw == "curves" else [np.eye(2), ["a", "b"]]
    with pytest.raises(KeyboardInterrupt):
        getattr(pictures, draw)(*arguments, tmp_path / "p.png", **({} if draw == "curves" else {"title": "t"}))
    assert not list(tmp_path.iterdir())
