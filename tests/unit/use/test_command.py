"""engrec-predict as it is typed: what it says, where it writes, and how it ends."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny_networks import faking, picture

from engrec.faces.video import write_video
from engrec.use import command, predict
from engrec.use.timeline import Timeline

ROOT = Path(__file__).parents[3]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with networks and a detector that need no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict.Predictor, "load", lambda _: faking())
    monkeypatch.setattr(Timeline, "figure", lambda _: Figure(figsize=(1, 1)))
    return tmp_path


def typed(capsys, *arguments):
    """Exit status, output and errors."""
    status = 0
    try:
        command.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    said = capsys.readouterr()
    return status, said.out, said.err


def save(path, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(**how)).save(path)


def test_a_picture(work, capsys):
    save(work / "face.png")
    status, out, err = typed(capsys, "face.png")
    assert (status, err) == (0, "")
    assert "1 picture, 1 face; 0 without a face" in out
    assert "outputs/predictions/face: predictions.csv, pictures.png, predictions.json" in out
    assert "face.png: face 0, happy 78%, high 78%" in out
    assert "expression: expression.ckpt (angry, happy), trained on fer2013, cropped as here" in out
    assert "not what a person felt" in out
    assert "Not for judging" in out
    assert (work / "outputs/predictions/face/predictions.csv").is_file()


def test_after_two_dashes_a_name_may_begin_with_one(work, capsys):
    save(work / "-face.png")
    status, out, err = typed(capsys, "--out", "here", "--", "-face.png")
    assert (status, err) == (0, "")
    assert "1 picture, 1 face" in out


def test_earlier_predictions_stay_unless_the_folder_is_named(work, capsys):
    save(work / "face.png")
    for _ in range(3):
        typed(capsys, "face.png")
    assert sorted(path.name for path in (work / "outputs/predictions").iterdir()) == ["face", "face-2", "face-3"]
    for _ in range(2):
        assert typed(capsys, "face.png", "--out", "mine")[0] == 0
    assert sorted(path.name for path in (work / "mine").iterdir()) == [
        "pictures.png",
        "predictions.csv",
        "predictions.json",
    ]


def test_folders_and_videos_mixed_with_what_cannot_be_read(work, capsys):
    save(work / "class/one/a.png", side=30)
    save(work / "class/two/b.jpg", value=0)
    save(work / "class/.hidden/c.png")
    (work / "class/notes.txt").write_text("x")
    (work / "class/phone.HEIC").write_bytes(b"x")
    (work / "class/broken.png").write_bytes(b"x")
    (work / "class/gone.png").symlink_to("nowhere.png")
    os.mkfifo(work / "class/pipe.png")
    (work / "empty").mkdir()
    write_video(work / "lesson.mp4", [picture()] * 6, 10)
    status, out, err = typed(capsys, "class", "lesson.mp4", "none.png", "empty", "class/one/a.png")
    assert status == 1
    assert err.splitlines() == [
        "error: class has 1 picture that cannot be read, such as phone.HEIC: save as JPEG",
        "error: none.png does not exist",
        "error: empty holds no pictures or videos",
        "error: class/broken.png is damaged, or no picture: replace or remove it",
        "error: class/gone.png does not exist",
        "error: class/pipe.png is a pipe or device: give the path of a picture, video or folder",
        "error: 6 of 9 inputs could not be read, or not to their end",
    ]
    assert "2 pictures, 1 face; 1 without a face" in out
    assert "lesson.mp4: 6 frames, 0.5 s, 1 face followed; 0 frames without a face" in out
    assert "1 of 7 faces under 40 pixels" in out
    assert "a.png: face 0 (small), " in out


def test_where_there_is_nothing_to_read_one_line_says_so(work, capsys):
    (work / "broken.png").write_bytes(b"")
    status, _, err = typed(capsys, "broken.png")
    assert status == 1
    assert "broken.png is empty" in err
    status, _, err = typed(capsys, "none.png")
    assert status == 1
    assert err.splitlines() == ["error: none.png does not exist", "error: 1 of 1 inputs could not be read"]
    assert [path.name for path in work.iterdir()] == ["broken.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["face.png", "--every", "0"], "--every: '0' must be a number of seconds above 0"),
        (["face.png", "--every", "nan"], "must be a number of seconds above 0"),
        (["face.png", "--names", "openface"], "invalid choice: 'openface'"),
        ([], "the following arguments are required: PATH"),
        (["face.png", "--out", "face.png"], "face.png is a file: choose another folder"),
        (["face.png", "--weights", "engrec:expressions", "engrec:ferplus"], "engrec:ferplus is a network: give each"),
        (["face.png", "--out", "."], "holds other files (face.png): choose another folder"),
    ],
)
def test_a_mistake_is_said_before_anything_is_read(work, capsys, arguments, said):
    save(work / "face.png")
    status, out, err = typed(capsys, *arguments)
    assert status in (1, 2)
    assert said in err
    assert out == ""
    assert [path.name for path in work.iterdir()] == ["face.png"]


def test_names_that_no_terminal_shows_are_shown_all_the_same(work, capsys):
    for name in (b"a\xff.png", b"line\nbreak.png"):
        save(work / "in" / os.fsdecode(name))
    status, out, _ = typed(capsys, "in")
    assert status == 0
    assert "2 pictures, 2 faces" in out
    table = (work / "outputs/predictions/in/predictions.csv").read_text(encoding="utf-8")
    assert "a\\xff.png" in table
    assert "line\\nbreak.png" in table


def test_options_go_where_they_belong(work, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(predict.Predictor, "load", lambda weights: given.append(weights) or faking())
    write_video(work / "lesson.mp4", [picture()] * 10, 10)
    options = ["--weights", "a.ckpt", "--weights", "b.onnx", "--every", "0.3", "--video", "--names", "py-feat"]
    assert typed(capsys, "lesson.mp4", *options)[0] == 0
    assert given == [["a.ckpt", "b.onnx"]]
    folder = work / "outputs/predictions/lesson"
    assert (folder / "lesson_boxes.mp4").is_file()
    assert (folder / "predictions.csv").read_text().startswith("input,frame,approx_time,Identity,")
    assert json.loads((folder / "predictions.json").read_text())["rows"] == 4


def test_help_loads_neither_torch_nor_numpy():
    code = (
        "import sys; from engrec.use.command import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "not for judging, grading or watching people" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_script_is_the_same_command(work, capsys, monkeypatch):
    save(work / "face.png")
    monkeypatch.setattr(sys, "argv", ["scripts/predict.py", "face.png"])
    runpy.run_path(str(ROOT / "scripts" / "predict.py"), run_name="__main__")
    assert "1 picture, 1 face" in capsys.readouterr().out
