"""Tiny data sets packed in every way, and what a refusal must look like."""

import io
import tarfile
import zipfile

import numpy as np
import prepare
import pytest
from PIL import Image


@pytest.fixture
def encode():
    """An image file's bytes: random pixels unless an array is given."""

    def encode(pixels=None, kind="PNG", seed=0, **options):
        if pixels is None:
            pixels = np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)
        file = io.BytesIO()
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def pack(tmp_path):
    """Write {name: bytes} as a folder or an archive and return its path."""

    def pack(content, packing="folder", name="faces"):
        path = tmp_path / (name if packing == "folder" else f"{name}.{packing}")
        if packing == "folder":
            for member, data in content.items():
                (path / member).parent.mkdir(parents=True, exist_ok=True)
                (path / member).write_bytes(data)
        elif packing == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, data in content.items():
                    archive.writestr(member, data)
        else:
            with tarfile.open(path, "w:" + packing.removeprefix("tar").removeprefix(".")) as archive:
                for member, data in content.items():
                    entry = tarfile.TarInfo(member)
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        return path

    return pack


@pytest.fixture
def refused(tmp_path, capsys):
    """Run scripts/prepare.py on bad input; it must say one line, end with status 1 and leave nothing."""

    def refused(*argv):
        out = tmp_path / "out" / "faces.npz"
        assert prepare.main([*map(str, argv), "--out", str(out)]) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        assert not out.parent.exists()
        return message

    return refused


@pytest.fixture
def assert_same():
    """Two results of read() hold the same data set, whatever their recipes."""

    def assert_same(one, other):
        assert one.keys() == other.keys()
        for key in one.keys() - {"recipe", "class_names"}:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
        assert one["class_names"] == other["class_names"]

    return assert_same
