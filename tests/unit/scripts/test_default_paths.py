"""Where the commands about a data set write when --out is not given: in one folder, whatever the file is called."""

import json

import audit
import contact_sheet
import numpy as np
import pytest

from engrec.errors import errors_in_one_line
from engrec.pages import contact_sheet as sheets


def stored(path, faces, **recipe):
    """A prepared file with another recipe."""
    faces.save(path)
    np.savez(path, **dict(np.load(path)) | {"recipe": np.array(json.dumps(faces.recipe | recipe))})
    return ["dataset=prepared", f"dataset.path={path}"]


def refused(main, arguments, capsys):
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        main(arguments)
    message = str(ended.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert capsys.readouterr().out == ""
    return message


@pytest.mark.parametrize("main", [audit.main, contact_sheet.main])
@pytest.mark.parametrize("key", ["name", "task"])
@pytest.mark.parametrize("value", ["../../stolen", "/stolen", "a/b", "..", ".hidden", "", "x" * 101, "a\n", "a b", 3])
def test_a_name_that_is_no_plain_file_name_is_refused(make_faces, tmp_path, capsys, main, key, value):
    arguments = stored(tmp_path / "faces.npz", make_faces(), **{key: value})
    assert f"recipe.{key} must be 1 to 100 letters, digits" in refused(main, arguments, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["faces.npz"]


def test_the_default_paths_have_name_and_task(make_faces, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = stored(tmp_path / "faces.npz", make_faces(), name="my-data_2.0", task="engagement")
    audit.main(arguments)
    contact_sheet.main(arguments)
    assert (tmp_path / "outputs/audit/my-data_2.0-engagement/audit.html").is_file()
    assert (tmp_path / "outputs/contact_sheets/my-data_2.0-engagement.png").is_file()


@pytest.mark.parametrize(("per_class", "number"), [(3, "6 of 24"), (12, "24"), (99, "24")])
def test_the_sheet_says_how_many_of_the_faces_it_shows(make_faces, tmp_path, monkeypatch, per_class, number):
    titles = []
    monkeypatch.setattr(sheets, "contact_sheet", lambda *_, title, **__: titles.append(title) or tmp_path)
    contact_sheet.main([*stored(tmp_path / "faces.npz", make_faces()), f"--per-class={per_class}"])
    assert titles == [f"random: {number} faces, 8 people"]


@pytest.mark.parametrize("option", ["--per-class=1000000", "--per-class=0", "--seed=-1"])
def test_a_sheet_of_another_size_is_refused(make_faces, tmp_path, capsys, option):
    arguments = stored(tmp_path / "faces.npz", make_faces())
    assert " must be " in refused(contact_sheet.main, [*arguments, option], capsys)
