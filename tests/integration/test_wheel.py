"""A wheel alone is enough: it has all files of engrec, and engrec-predict works where there is nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from PIL import Image
from skimage.data import astronaut

from engrec import weights_file
from engrec.use.page import contents

pytestmark = pytest.mark.slow

BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
PREDICT = """\
import sys
from importlib.metadata import entry_points
import engrec
print(engrec.__file__)
[command] = entry_points(group="console_scripts", name="engrec-predict")
command.load()()
print(*{module.__file__ for name, module in sys.modules.items() if name.startswith("engrec")}, sep="\\n")
"""


def python(code, *arguments, cwd, **env):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=os.environ | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What a wheel is built from, as a copy: setuptools writes into it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "engrec", folder / "engrec", ignore=shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    )
    return folder


@pytest.fixture(scope="module")
def unpacked(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    python(BUILD, str(folder), cwd=source)
    [wheel] = folder.glob("engrec-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_has_all_files_of_engrec(source, unpacked):
    packed = files_in(unpacked / "engrec")
    assert packed == files_in(source / "engrec")
    weights = {f"weights/{name}/model.safetensors" for name in weights_file.names()}
    page = {f"use/page/{name}" for name in (*contents.files(), "page.html")}
    assert len(weights) == 3
    assert weights | page | {"faces/yunet.onnx", "faces/LICENSE-yunet.txt"} <= packed


def test_it_has_the_licences(unpacked):
    [licences] = unpacked.glob("engrec-*.dist-info/licenses")
    assert files_in(licences) == {"LICENSE", "engrec/faces/LICENSE-yunet.txt"}


def test_the_command_reads_a_photograph(unpacked, tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "photo.png")
    out = python(PREDICT, "photo.png", cwd=tmp_path, PYTHONPATH=str(unpacked)).splitlines()
    assert out[0] == str(unpacked / "engrec" / "__init__.py")  # not that of the checkout, which may be installed too
    assert "1 picture, 1 face; 0 without a face" in out
    modules = {Path(line) for line in out if line.endswith(".py")}
    assert unpacked / "engrec" / "use" / "network.py" in modules
    assert all(path.is_relative_to(unpacked) for path in modules)
    assert (tmp_path / "outputs" / "predictions" / "photo" / "predictions.csv").is_file()
