"""scripts/baseline.py from what is typed to the folders that summarize.py reads."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import baseline
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from engrec.evidence import comparison, groups, verdicts
from engrec.modules.expression import ExpressionModule
from engrec.runs import record

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge", "ignore:test has images of class")


@pytest.fixture
def typed(make_faces, tmp_path, monkeypatch):
    """Type the script's arguments in a folder with one data set: 60 images of 20 people, two formats, two classes."""
    formats = np.where(np.arange(60) % 4 < 2, "PNG L 16x16", "JPEG L 20x16")
    make_faces(60, formats=formats).save(tmp_path / "mine.npz")
    make_faces(60, subjects=None).save(tmp_path / "nobody.npz")
    make_faces(60, size=20).save(tmp_path / "large.npz")
    monkeypatch.chdir(tmp_path)
    data = ["dataset=prepared", "dataset.path=mine.npz"]
    return lambda *arguments: baseline.main(["hog_svm", *(a for a in data if not _given(a, arguments)), *arguments])


def _given(argument, arguments):
    return any(a.partition("=")[0] == argument.partition("=")[0] for a in arguments)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_fold_leaves_a_run_that_pools(typed, tmp_path, capsys):
    typed("split=kfold", "split.num_folds=3", "seed=4", "output_dir=out")
    printed = capsys.readouterr().out
    assert [f"test of fold {i}: accuracy 0." in printed for i in range(3)] == [True] * 3
    assert printed.rstrip().endswith("python scripts/summarize.py out")
    assert "leakage" not in printed
    runs = record.find_runs([tmp_path / "out"])
    assert [run.folder.name for run in runs] == ["0", "1", "2"]
    [group] = groups.read_groups(runs)
    assert len(group.labels) == 60
    assert group.seeds == [4]
    assert sorted(group.controls) == ["file_format", "majority", "nearest_neighbour", "subject_majority"]
    assert group.name["stage"] == "baseline"
    assert group.name["model"] == "hog_svm"


def test_a_run_says_what_it_was(typed, tmp_path):
    typed("split=kfold", "split.num_folds=3", "split.fold=1", "seed=4", "output_dir=one fold")
    folder = tmp_path / "one fold"
    assert {p.name for p in folder.iterdir()} == {
        "predictions.csv",
        "controls",
        "confusion.png",
        "config.yaml",
        "result.json",
    }
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["split"] == {
        "_target_": "engrec.splits.KFold",
        "fold": 1,
        "num_folds": 3,
        "val_fraction": 0.15,
        "seed": 0,
        "train_people": None,
    }
    assert (config["seed"], config["baseline"]["name"], config["dataset"]["path"]) == (4, "hog_svm", "mine.npz")
    result = json.loads((folder / "result.json").read_text())
    assert result["choices"] == {"dataset": "prepared", "split": "kfold", "augment": "none", "model": "hog_svm"}
    assert result["dataset"]["name"] == "random"
    assert sum(result["num_images"].values()) == 60
    assert result["command"] == (
        "python scripts/baseline.py hog_svm dataset=prepared dataset.path=mine.npz split=kfold split.num_folds=3 "
        "split.fold=1 seed=4 'output_dir=one fold'"
    )


def test_the_metrics_are_those_of_the_predictions(typed, tmp_path):
    typed("split=holdout", "output_dir=out")
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    truth = np.array([row["label"] == "class1" for row in rows])
    p = np.array([float(row["p_class1"]) for row in rows])
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert metrics["test/accuracy"] == pytest.approx(accuracy_score(truth, p > 0.5))
    assert metrics["test/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, p > 0.5))
    assert metrics["test/f1"] == pytest.approx(f1_score(truth, p > 0.5))
    assert metrics["test/auc"] == pytest.approx(roc_auc_score(truth, p))
    assert metrics["test/recall/class1"] == pytest.approx((p[truth] > 0.5).mean())


def test_one_fold_by_itself_predicts_as_among_the_others(typed, tmp_path):
    typed("split=kfold", "split.num_folds=3", "output_dir=all")
    typed("split=kfold", "split.num_folds=3", "split.fold=2", "output_dir=one")
    for name in ("predictions.csv", "controls/nearest_neighbour.csv", "controls/file_format.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "all" / "2" / name).read_text()


def test_leave_one_subject_out_has_a_fold_for_each_of_them(typed, tmp_path):
    typed("split=loso", "output_dir=out")
    tested = [{row["subject"] for row in rows_of(tmp_path / "out" / str(i) / "predictions.csv")} for i in range(20)]
    assert sorted(tested, key=min) == [{f"s{i:02d}"} for i in range(20)]
    assert not (tmp_path / "out" / "20").exists()


def test_a_random_split_is_announced_for_what_it_is(typed, capsys, tmp_path):
    typed("split=random", "dataset.path=nobody.npz", "output_dir=out")
    assert "do not report it as a result" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out" / "controls").iterdir()}
    assert names == {"majority.csv", "nearest_neighbour.csv"}


def test_without_output_dir_the_folder_names_data_and_baseline(typed, tmp_path):
    typed("split=holdout")
    [result] = (tmp_path / "outputs").rglob("result.json")
    assert result.relative_to(tmp_path).parts[:3] == ("outputs", "baseline", "prepared-hog_svm")


def test_synthetic_faces_have_engagement_unless_expressions_are_typed(typed, tmp_path):
    few = ["dataset=synthetic", "dataset.num_train=70", "dataset.num_val=14", "dataset.num_test=21", "split=official"]
    baseline.main(["hog_svm", *few, "output_dir=engagement"])
    baseline.main(["hog_svm", *few, "stage=pretrain", "output_dir=expressions"])
    for name, number in (("engagement", 2), ("expressions", 7)):
        [row, *_] = rows_of(tmp_path / name / "predictions.csv")
        assert sum(column.startswith("p_") for column in row) == number


def test_a_finished_run_is_not_overwritten(typed, tmp_path):
    typed("split=kfold", "split.num_folds=3", "split.fold=1", "output_dir=out/1")
    before = (tmp_path / "out" / "1" / "result.json").read_text()
    with pytest.raises(ValueError, match="out/1 holds a run: choose another output_dir, or remove that folder"):
        typed("split=kfold", "split.num_folds=3", "output_dir=out")
    assert (tmp_path / "out" / "1" / "result.json").read_text() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=vgg"], r"model=vgg has no effect on this baseline; allowed: dataset=, split="),
        (["split=kfold", "split.fold=range(5)"], r"split\.fold=range\(5\): without split\.fold= every fold is run"),
        (["split=kfold", "split.fold=7"], r"random: split\.fold=7 must be from 0 to 4"),
        (["split=kfold", "split.num_folds=99"], r"random: split\.num_folds=99 for 20 subjects"),
        (["split=kfold", "dataset.path=nobody.npz"], "random: the data set has no subjects"),
        (["split=loso", "dataset.path=nobody.npz"], "random: the data set has no subjects"),
        (["split=official"], "random: the data set has no official split"),
        (["dataset.path=gone.npz"], r"gone\.npz .*scripts/prepare\.py"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(typed, tmp_path, arguments, message):
    with pytest.raises(Exception, match=message):
        typed(*arguments, "output_dir=out")
    assert not (tmp_path / "out").exists()


def test_a_missing_path_is_asked_for_in_one_line(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "baseline.py", "hog_svm", "dataset=prepared"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing dataset.path, the prepared file: dataset.path=data/NAME.npz")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def on_features(typed, tmp_path):
    """Type the arguments of `features`, which starts from a small network of expressions for images of 16×16."""
    model = {"_target_": "engrec.models.vgg.VGG", "image_size": 16, "norm": "batch", "width": 0.05, "dense": []}
    parameters = {
        "model": model,
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05},
        "lr_scheduler": {},
        "class_names": ["happy", "sad"],
        "preprocessing": {"channels": 1, "height": 16, "width": 16, "normalize": "image"},
    }
    module = ExpressionModule(**parameters)
    about = {"module": "engrec.modules.expression.ExpressionModule", "task": "expression", "dataset": "others"}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": parameters, **about}, tmp_path / "first.ckpt")
    data = ["dataset=prepared", "dataset.path=mine.npz", "init_from=first.ckpt"]
    return lambda *arguments: baseline.main(["features", *(a for a in data if not _given(a, arguments)), *arguments])


def test_features_leave_runs_that_pool_and_name_their_checkpoint(on_features, tmp_path, capsys):
    on_features("split=kfold", "split.num_folds=3", "output_dir=out")
    assert "features: random, 60 images of 20 people, split=kfold, 3 folds" in capsys.readouterr().out
    runs = record.find_runs([tmp_path / "out"])
    [group] = groups.read_groups(runs)
    assert (len(group.labels), group.transductive) == (60, False)
    assert (group.name["stage"], group.name["model"]) == ("baseline", "features")
    for run in runs:
        assert run.settings["init_from"] == run.result["model"]["init_from"] == "first.ckpt"
        assert run.result["model"]["trained_on"] == "others"
        assert run.result["transductive"] is None


@pytest.mark.parametrize(("given", "words"), [("all", "all unlabelled frames"), ("2", "2 unlabelled frames")])
def test_transductive_runs_are_called_so_and_stand_apart(on_features, tmp_path, given, words):
    on_features("split=kfold", "split.num_folds=3", "output_dir=plain")
    on_features("split=kfold", "split.num_folds=3", "output_dir=given", "--transductive", given)
    found = groups.read_groups(record.find_runs([tmp_path / "plain", tmp_path / "given"]))
    assert [group.name["model"] for group in found] == ["features", f"features, given {words} of the person"]
    plain, apart = comparison.build(found, 100)
    assert "transductive" not in plain.title
    assert "transductive" in apart.title
    first = verdicts.judge(apart)[0].text
    assert "Minus baseline features, on the same images: balanced accuracy" in first
    assert not np.allclose(found[0].probabilities, found[1].probabilities)


def test_two_checkpoints_are_two_rows(on_features, tmp_path):
    (tmp_path / "second.ckpt").write_bytes((tmp_path / "first.ckpt").read_bytes())
    on_features("split=holdout", "output_dir=one")
    on_features("split=holdout", "output_dir=two", "init_from=second.ckpt")
    [block] = comparison.build(groups.read_groups(record.find_runs([tmp_path / "one", tmp_path / "two"])), 100)
    assert block.labels == [f"baseline features init_from={name}.ckpt" for name in ("first", "second")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init_from=null"], "missing init_from, the checkpoint whose features to classify"),
        (["init_from=gone.ckpt"], r"gone\.ckpt cannot be opened"),
        (["init_from=mine.npz"], r"mine\.npz (is a PyTorch file but not|cannot be read safely)"),
        (["dataset.path=large.npz"], r"first\.ckpt was trained on images of 1×16×16.*these are 1×20×20"),
        (["dataset.path=nobody.npz", "split=random", "--transductive", "2"], "random has no subject ids, so people"),
        (["model=vgg"], r"model=vgg has no effect on this baseline; allowed: .*, init_from="),
    ],
)
def test_mistakes_with_features_are_named_and_leave_nothing(on_features, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        on_features(*arguments, *([] if _given("split=", arguments) else ["split=holdout"]), "output_dir=out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "--transductive", "some"], "some must be all, or a number of frames such as 20"),
        (["features", "--transductive", "0"], "0 must be all, or a number of frames such as 20"),
        (["hog_svm", "--transductive", "20"], "--transductive has no effect on hog_svm"),
    ],
)
def test_what_is_given_is_all_or_a_number(arguments, message, capsys):
    with pytest.raises(SystemExit):
        baseline.main(arguments)
    assert message in capsys.readouterr().err
