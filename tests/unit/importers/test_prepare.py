"""scripts/prepare.py: what it writes, what it prints, what it leaves behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import Namespace

import numpy as np
import prepare
import pytest
from hydra.utils import instantiate

from engrec.config import check, composed
from engrec.data import divide
from engrec.datasets.prepared import load
from engrec.errors import CONF
from engrec.search.grid import runs_to_check


@pytest.fixture
def source(pack, encode):
    return pack({f"{label}/s{number}_1.png": encode(seed=number) for label in "ab" for number in range(3)}, "zip")


def run(source, out, *options):
    return prepare.main(["manifest", str(source), "--name", "mine", "--out", str(out), *options])


def test_the_file_and_the_summary(source, tmp_path, capsys):
    out = tmp_path / "data" / "mine.npz"
    assert run(source, out, "--subject-regex", r"(s\d+)_") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^a +3$", printed, re.MULTILINE)
    assert re.search(r"^all +6$", printed, re.MULTILINE)
    assert "subjects: 3" in printed
    assert "F1 will be that of b, the second class; --classes sets their order" in printed
    assert f"dataset=prepared dataset.path={out} split=kfold" in printed
    faces = load(out)
    assert (faces.name, len(faces), faces.class_names) == ("mine", 6, ("a", "b"))
    assert [path.name for path in out.parent.iterdir()] == ["mine.npz"]


def test_near_copies_across_splits_and_placeholders_are_marked(pack, encode, tmp_path, capsys):
    face, sign = np.random.default_rng(0).integers(0, 200, (48, 48), np.uint8), np.full((48, 48), 255, np.uint8)
    sign[:9] = face[:9]
    other = np.random.default_rng(1).integers(0, 256, (48, 48), np.uint8)
    images = {"train/a/1": face, "train/b/2": other, "train/b/3": sign, "test/a/4": face[:, ::-1] + 20}
    content = {f"{name}.png": encode(image) for name, image in images.items()}
    assert run(pack(content, "zip"), tmp_path / "mine.npz") == 0
    faces = load(tmp_path / "mine.npz")
    assert faces.sources[faces.near_duplicates].tolist() == ["train/a/1.png"]
    assert faces.sources[faces.placeholders].tolist() == ["train/b/3.png"]
    assert "can leave out: 0 blank, 0 test_duplicates, 0 conflicts, 1 near_duplicates, 1 placeholders" in (
        capsys.readouterr().out
    )


def test_without_official_splits_nothing_is_searched_for(source, tmp_path, capsys):
    run(source, tmp_path / "mine.npz")
    faces = load(tmp_path / "mine.npz")
    assert (faces.near_duplicates, faces.placeholders) == (None, None)
    assert "can leave out" not in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(source, tmp_path, monkeypatch, error):
    out = tmp_path / "data" / "mine.npz"
    run(source, out)
    before = out.read_bytes()

    def fails(file, **_):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", fails)
    assert run(source, out) == (130 if error is KeyboardInterrupt else 1)
    assert out.read_bytes() == before
    assert len(list(out.parent.iterdir())) == 1


@pytest.mark.parametrize("moment", ["engrec.importers.files.decode", "prepare.mark_faults", "numpy.savez"])
def test_ctrl_c_ends_an_import_with_130_and_leaves_nothing(source, tmp_path, monkeypatch, capsys, moment):
    monkeypatch.setattr(moment, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert run(source, tmp_path / "data" / "mine.npz") == 130
    assert capsys.readouterr().err == f"interrupted: {tmp_path / 'data' / 'mine.npz'} was not written\n"
    assert list(tmp_path.glob("data/*")) == list(tmp_path.glob("data/.*")) == []


def test_a_data_set_larger_than_the_memory_is_one_line(source, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(np, "stack", fails)
    assert run(source, tmp_path / "mine.npz") == 1
    assert capsys.readouterr().err == "error: Unable to allocate 9 TiB\n"


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "faces.zip")
    assert run(tmp_path / "faces.zip", tmp_path / "mine.npz") == 1
    assert "is a pipe or device" in capsys.readouterr().err


def test_a_traceback_on_request(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "mine.npz", "--traceback")


def test_a_name_that_is_no_file_name_is_refused(source, capsys):
    with pytest.raises(SystemExit):
        prepare.main(["manifest", str(source), "--name", "../mine"])
    assert "letters, digits" in capsys.readouterr().err


def test_out_must_be_an_npz_and_is_checked_first(source, tmp_path, capsys):
    assert run(source, tmp_path / "mine.csv") == 1
    assert "must be a file name that ends in .npz" in capsys.readouterr().err


OFFICIAL = {"splits": np.repeat(["train", "val", "test"], 12), "subjects": None}
DISTRIBUTED = {"fer2013": [OFFICIAL], "ferplus": [OFFICIAL], "wacv2016": [{}]}


def followed(importer, faces, folder):
    """The arguments of the printed command, after each of its runs was composed, checked and its data set divided."""
    out = folder / "it's mine.npz"
    faces.save(out)
    command, _, caution = prepare._next(Namespace(importer=importer, out=out), faces, out).partition("\n")
    python, script, *words = shlex.split(command)
    assert (python, script, "split=random" in words) == ("python", "train.py", bool(caution))
    for overrides in list(runs_to_check([word for word in words if word != "-m"])) or [words]:
        cfg = composed([*overrides, "dataset.classes=null"] if importer == "wacv2016" else overrides)
        check(cfg)
        divide(instantiate(cfg.dataset, _convert_="all"), instantiate(cfg.split))
    return words


@pytest.mark.parametrize(
    ("importer", "fields"),
    [
        (importer, fields)
        for importer in prepare.EXAMPLES
        for fields in DISTRIBUTED.get(importer, [{}, OFFICIAL, {"subjects": None}])
    ],
)
def test_the_next_command_can_be_pasted(importer, fields, make_faces, tmp_path):
    words = followed(importer, make_faces(36, 2, 48, **fields), tmp_path)
    options = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert f"experiment={importer}" in words or importer not in options
    assert ("split.fold=range(5)" in words, "-m" in words) == (fields == {},) * 2


@pytest.mark.parametrize(("people", "split"), [(2, "split=random"), (3, "split.num_folds=3"), (5, "split=kfold")])
def test_no_more_folds_than_people(people, split, make_faces, tmp_path):
    subjects = np.array([f"s{number // 2 % people}" for number in range(36)])
    assert split in followed("faces", make_faces(36, 2, 48, subjects=subjects), tmp_path)


def test_images_of_another_size_are_trained_from_scratch(make_faces, tmp_path):
    words = followed("manifest", make_faces(36, 2, 32), tmp_path)
    assert {"stage=scratch", "model=resnet_small"} <= set(words)
    assert "init_from=" not in " ".join(words)


@pytest.mark.parametrize("importer", prepare.EXAMPLES)
def test_help_has_an_example(importer, capsys):
    with pytest.raises(SystemExit):
        prepare.main([importer, "--help"])
    assert f"python scripts/prepare.py {importer} " in capsys.readouterr().out


def test_it_starts_without_torch():
    code = "import sys, prepare; sys.exit(bool({'torch', 'hydra', 'sklearn'} & sys.modules.keys()))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": prepare.__file__.rpartition("/")[0]}, check=False
        ).returncode
        == 0
    )
