"""Archives are untrusted and images come in every mode."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from engrec.importers import files

PACKINGS = ("folder", "zip", "tar", "tar.gz", "tar.xz", "tar.bz2")


def names(source):
    return [name for name, _ in files.open_files(source)]


def add_entry(path, name, kind, target=""):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_gives_the_same_files(pack, packing):
    content = {"a/1.txt": b"one", "b/2.txt": b"two", "b/empty.txt": b""}
    hidden = {".DS_Store": b"x", "__MACOSX/a/._1.txt": b"x", "b/Thumbs.db": b"x", ".git/config": b"x"}
    source = pack(content | hidden, packing)
    assert {name: files.read(file, source, name) for name, file in files.open_files(source)} == content


@pytest.mark.parametrize("packing", PACKINGS[1:])
@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png"])
def test_a_name_that_leaves_the_archive_is_refused(pack, packing, name):
    source = pack({"a/1.png": b"x", name: b"x"}, packing)
    with pytest.raises(ValueError, match=rf"faces.{packing}.*evil.png.*leads out of the archive.*download"):
        names(source)


def test_backslashes_of_a_windows_archive_cannot_hide_a_way_out(pack):
    with pytest.raises(ValueError, match="leads out"):
        names(pack({"..\\evil.png": b"x"}, "zip"))
    assert names(pack({"a\\1.png": b"x"}, "zip", "good")) == ["a/1.png"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    add_entry(tmp_path / "x.tar.gz", "a/1.png", kind, "/etc/passwd")
    with pytest.raises(ValueError, match=r"x.tar.gz: a/1.png is a link or not a regular file.*tar --dereference"):
        names(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("target_is_folder", [False, True])
def test_a_link_that_leaves_the_folder_is_refused(pack, tmp_path, target_is_folder):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.png").write_bytes(b"x")
    source = pack({"a/1.png": b"x"})
    (source / "b").symlink_to(tmp_path / "secret" / ("" if target_is_folder else "1.png"))
    with pytest.raises(ValueError, match=r"faces/b is a link.*replace it with the file itself"):
        names(source)


def test_a_link_inside_the_folder_is_a_file(pack):
    source = pack({"a/1.png": b"x"})
    (source / "a/2.png").symlink_to(source / "a/1.png")
    assert names(source) == ["a/1.png", "a/2.png"]


@pytest.mark.parametrize("packing", PACKINGS[1:])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_archive_says_so(pack, packing, share):
    noise = np.random.default_rng(0).bytes(20_000)
    source = pack({"a/1.png": noise, "a/2.png": noise[::-1]}, packing)
    source.write_bytes(source.read_bytes()[: int(share * 40_000)])
    with pytest.raises(ValueError, match=rf"faces.{packing} is truncated or damaged \(.+\): download it again"):
        [files.read(file, source, name) for name, file in files.open_files(source)]


@pytest.mark.parametrize("packing", ["tar.gz", "tar.xz", "tar.bz2"])
def test_a_cut_behind_the_last_file_is_noticed(pack, packing):
    source = pack({"a/1.png": b"x"}, packing)
    source.write_bytes(source.read_bytes()[:-6])
    with pytest.raises(ValueError, match="truncated"):
        names(source)


@pytest.mark.parametrize("name", ["", ".", "a/\n.png", "a/\x1b[31m.png", "a/\udce9.png"])
def test_a_name_that_cannot_be_printed_is_refused_in_one_line(pack, name):
    with pytest.raises(ValueError, match=r"faces.tar: .* is not a printable UTF-8 name") as error:
        names(pack({name: b"x"}, "tar"))
    assert str(error.value).isprintable()


def test_a_web_page_instead_of_an_archive(tmp_path):
    (tmp_path / "x.zip").write_text("<html>log in</html>")
    with pytest.raises(ValueError, match=r"x.zip is neither a folder nor a .zip.*download it again"):
        names(tmp_path / "x.zip")


def test_what_is_not_there_and_what_comes_twice(pack, tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        names(tmp_path / "nowhere")
    source = pack({"a/1.png": b"x"}, "tar")
    with tarfile.open(source, "a") as archive:
        archive.addfile(tarfile.TarInfo("./a/1.png"), io.BytesIO())
    with pytest.raises(ValueError, match=r"faces.tar contains a/1.png twice"):
        names(source)


def test_a_file_beyond_reason_is_refused(pack, monkeypatch):
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 1 << 20)
    source = pack({"a/1.png": bytes((1 << 20) + 1)}, "zip")
    with pytest.raises(ValueError, match=r"a/1.png is larger than 1 MiB"):
        [files.read(file, source, name) for name, file in files.open_files(source)]


GREY = np.arange(48 * 48, dtype=np.uint32).reshape(48, 48) % 256


def with_alpha():
    return Image.fromarray(np.stack([GREY.astype(np.uint8), np.full((48, 48), 255, np.uint8)], axis=-1), "LA")


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(GREY.astype(np.uint8)), "PNG"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("RGB"), "PNG"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("RGBA"), "PNG"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("P"), "PNG"),
        (with_alpha(), "PNG"),
        (Image.fromarray((GREY * 257).astype(np.uint16)), "PNG"),
        (Image.fromarray((GREY * 257).astype(np.int32)), "TIFF"),
        (Image.fromarray(GREY.astype(np.uint8)).convert("P"), "GIF"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_one_grey_image_in_every_mode_keeps_its_pixels(encode, image, kind):
    pixels, found = files.decode(encode(image, kind), "x")
    np.testing.assert_array_equal(pixels, GREY.astype(np.uint8)[None])
    assert found.startswith(kind)
    assert found.endswith("48x48")


def test_transparency_lies_on_black(encode):
    pixels, _ = files.decode(encode(np.full((48, 48, 4), [255, 255, 255, 0], np.uint8)), "x")
    assert pixels.max() == 0


def test_colour_keeps_its_channels(encode):
    red = np.zeros((48, 48, 3), np.uint8)
    red[..., 0] = 200
    pixels, _ = files.decode(encode(red), "x", colour="rgb")
    assert pixels.shape == (3, 48, 48)
    assert pixels.max(axis=(1, 2)).tolist() == [200, 0, 0]


def test_the_orientation_of_the_camera_is_applied(encode):
    upright = np.zeros((48, 48), np.uint8)
    upright[:24] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    pixels, _ = files.decode(encode(upright[::-1].copy(), exif=exif), "x")
    np.testing.assert_array_equal(pixels[0], upright)


def test_shrinking_is_anti_aliased(encode):
    """A fine checkerboard becomes its mean, not a moiré of black and white."""
    pixels, found = files.decode(encode((np.indices((384, 384)).sum(0) % 2 * 255).astype(np.uint8)), "x")
    assert found == "PNG L 384x384"
    assert np.abs(pixels.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png is empty"),
        (b"no image", "x.png is damaged, or no picture: replace or remove it"),
        (b"\0\0\0\x18ftypheic rest", "x.png is a picture in HEIC or AVIF, which is not read: save it as JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png is damaged, or no picture"),
        ("truncated", "x.png cannot be read as an image"),
        ("bomb", "x.png has more than 1,000 pixels, the most allowed"),
        ("float", "x.png cannot be read as an image .*floating-point"),
    ],
)
def test_an_unreadable_image_is_named(encode, monkeypatch, content, message):
    if content == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    content = {
        "truncated": encode()[:200],
        "bomb": encode(),
        "float": encode(np.ones((8, 8), np.float32), "TIFF"),
    }.get(content, content)
    with pytest.raises(ValueError, match=message) as error:
        files.decode(content, "x.png")
    assert "\n" not in str(error.value)
    assert "remove it" in str(error.value)


def test_a_recipe_names_the_source_without_its_folder(pack, tmp_path):
    source = pack({"a/1.png": b"x"})
    recipe = files.recipe(source, "manifest", "mine")
    assert recipe["source"] == "faces"
    assert str(tmp_path) not in str(recipe)
    assert recipe["sha256"] == files.sha256(source)
    (source / "a/2.png").write_bytes(b"y")
    assert recipe["sha256"] != files.sha256(source)
