"""The table as one command: which runs it plans, when it takes one for done, and what it makes of them."""

import csv
import json
import re
import shlex
import time

import numpy as np
import paper_table
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from engrec.config import check
from engrec.errors import BAD_CHECKPOINT, exit_status, explain
from engrec.machine import gpus
from engrec.pages import paper
from engrec.runs.folder import write_config
from engrec.search import paper as runs_of

CLASSES = ["disengaged", "engaged"]
FOLDS = 2


def planned(*arguments, out="out"):
    options = paper_table.parse([*arguments, "--out", str(out)])
    runs_of.check_overrides(options.overrides)
    return runs_of.plan(paper_table.choice_of(options), options.out)


def find(runs, row, seed=0, fold=0):
    [run] = [run for run in runs if (run.row, run.seed, run.fold) == (row, seed, fold)]
    return run


def start(run, **changed):
    """What a run writes first: its configuration, with other values for some keys, "__" for "." in their names."""
    run.folder.mkdir(parents=True, exist_ok=True)
    config = OmegaConf.create(runs_of.settings_of(run))
    for key, value in changed.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    write_config(run.folder, OmegaConf.to_container(config))


def finish(run, **changed):
    """What a finished run leaves, as far as it decides whether the run is done."""
    start(run, **changed)
    (run.folder / "result.json").write_text(json.dumps({"seconds": 10.0}))


def test_a_run_for_each_row_seed_and_fold_and_the_expressions_first(tmp_path):
    runs = planned("dataset=wacv2016", "--seeds", "0,2", "--folds", "3", out=tmp_path)
    assert (runs[0].row, str(runs[0].folder)) == ("pretrain", str(tmp_path / "pretrain" / "seed0"))
    for row, seeds in {"hog_svm": [0], "cnn": [0, 2], "vgg_scratch": [0, 2], "engagement": [0, 2]}.items():
        found = {str(run.folder.relative_to(tmp_path)) for run in runs if run.row == row}
        assert found == {f"{row}/seed{seed}-fold{fold}" for seed in seeds for fold in range(3)}
    assert len({run.folder for run in runs}) == len(runs)


def test_the_commands_of_real_data():
    """Folders and settings that stay: runs that were started by hand with these are done."""
    runs = planned("dataset=wacv2016", "dataset.classes=null", "--seeds", "1", "--init-from", __file__)
    found = {run.row: set(run.command) for run in runs if run.fold == 3}
    written = {row: {f"output_dir=out/{row}/seed{int(row != 'hog_svm')}-fold3"} for row in paper.ROWS}
    resumed = {"train.py", "ckpt_path=last"}
    both = {"experiment=wacv2016_short", "dataset.classes=null", "seed=1", "split.fold=3"}
    assert found == {
        "hog_svm": written["hog_svm"]
        | {"scripts/baseline.py", "hog_svm", "dataset=wacv2016", "split=kfold", "dataset.classes=null", "split.fold=3"},
        "cnn": written["cnn"] | resumed | both | {"stage=scratch", "model=cnn", "optimizer.lr=0.005", "max_epochs=8"},
        "vgg_scratch": written["vgg_scratch"] | resumed | both | {"stage=scratch"},
        "engagement": written["engagement"] | resumed | both | {"stage=finetune", f"init_from={__file__}"},
    }
    [first] = [run for run in planned("dataset=wacv2016") if run.row == "pretrain"]
    assert first.overrides == ("experiment=fer2013_short",)


@pytest.mark.parametrize("preset", runs_of.PRESETS)
@pytest.mark.parametrize("given", [[], ["dataset=er", "split=official"], ["dataset=prepared", "dataset.path=x.npz"]])
def test_every_command_composes(compose, preset, given):
    """Each is a configuration that train.py takes, of the stage and data that the row says."""
    for run in planned("--preset", preset, *given, "--seeds", "3"):
        if run.row == "hog_svm" or run.fold not in (None, 3):
            continue
        overrides = [f"init_from={__file__}" if o.startswith("init_from=") else o for o in run.overrides]
        cfg = compose(*overrides)
        check(cfg)
        stages = {"pretrain": "pretrain", "engagement": "finetune"}
        assert cfg.stage == stages.get(run.row, "scratch")
        if run.row != "pretrain":
            assert cfg.seed == 3
            assert run.fold in (None, cfg.split.get("fold"))
            expected = {"dataset=er": "data/er.npz", "dataset=prepared": "x.npz"}.get((given or [""])[0])
            assert expected in (None, cfg.dataset.get("path"))


@pytest.mark.parametrize("preset", runs_of.PRESETS)
def test_the_rows_differ_in_nothing_but_what_they_compare(compose, preset):
    """Fine-tuned and from scratch are the same network on the same data; so is what it starts from."""
    configs = {}
    for run in planned("--preset", preset):
        if run.row != "hog_svm" and run.fold in (None, 0):
            overrides = [f"init_from={__file__}" if o.startswith("init_from=") else o for o in run.overrides]
            configs[run.row] = OmegaConf.to_container(compose(*overrides), resolve=False)
    for key in ("dataset", "split", "batch_size", "max_epochs", "monitor"):
        same = [configs[row][key] for row in ("vgg_scratch", "engagement")]
        assert same[0] == same[1], key
    for row in ("vgg_scratch", "engagement"):
        assert configs[row]["model"] == configs["pretrain"]["model"]
    for key in ("dataset", "split"):
        assert configs["cnn"][key] == configs["engagement"][key]


@pytest.mark.parametrize("name", ["pretrain", "cnn", "vgg", "engagement"])
def test_the_papers_experiments_are_valid(compose, name):
    cfg = compose(f"experiment=nezami2019/{name}", *([f"init_from={__file__}"] if name == "engagement" else []))
    check(cfg)
    assert cfg.stage == {"pretrain": "pretrain", "engagement": "finetune"}.get(name, "scratch")


def test_the_papers_learning_rate_falls_by_a_fifth_in_500_steps(compose):
    assert compose("experiment=nezami2019/vgg").lr_scheduler.gamma ** 500 == pytest.approx(0.8, abs=1e-4)


def test_the_users_override_wins_and_is_said_once():
    for run in planned("--preset", "full", "dataset=er", "split=official", "max_epochs=3", "optimizer.lr=0.5"):
        keys = [o.partition("=")[0] for o in run.overrides]
        assert len(set(keys)) == len(keys)
        if run.row not in ("pretrain", "hog_svm"):
            assert {"dataset=er", "split=official", "max_epochs=3", "optimizer.lr=0.5"} <= set(run.overrides)
            assert run.fold is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["model=cnn"], "model=cnn is decided for each run"),
        (["split.fold=1"], "see --preset, --seeds, --folds"),
        (["wacv2016"], "every argument is KEY=VALUE"),
        (["split=loso"], "set --folds to their number"),
        (["--init-from", "nowhere.ckpt"], "nowhere.ckpt is not a file"),
        (["--pretrain", "experiment=fer2013 seed=1"], "--pretrain seed=1"),
    ],
)
def test_what_cannot_be_is_said(given, said):
    with pytest.raises(ValueError, match=r"\S") as error:
        planned(*given)
    assert said in str(error.value)


def test_a_finished_run_with_the_same_settings_is_done(tmp_path):
    for row in ("hog_svm", "cnn", "vgg_scratch", "engagement"):
        run = find(planned("dataset=wacv2016", out=tmp_path), row, fold=2)
        assert run.state == "new"
        finish(run)
        runs_of.check_settings(run)
        assert run.state == "done"


@pytest.mark.parametrize("row", ["hog_svm", "cnn", "engagement", "pretrain"])
@pytest.mark.parametrize(("key", "value"), [("seed", 7), ("dataset.path", "other.npz"), ("split._target_", "other")])
def test_a_finished_run_with_other_settings_is_refused(tmp_path, row, key, value):
    run = find(planned("dataset=wacv2016", out=tmp_path), row, fold=None if row == "pretrain" else 0)
    finish(run, **{key.replace(".", "__"): value})
    with pytest.raises(ValueError, match=rf"holds another run, with {key}={value} and not ") as error:
        runs_of.check_settings(run)
    assert str(run.folder) in str(error.value)
    assert "set another --out, or remove that folder" in str(error.value)


@pytest.mark.parametrize("row", ["cnn", "engagement", "pretrain"])
def test_a_finished_run_of_another_length_is_refused(tmp_path, row):
    run = find(planned("dataset=wacv2016", out=tmp_path), row, fold=None if row == "pretrain" else 0)
    finish(run, max_epochs=999)
    with pytest.raises(ValueError, match="with max_epochs=999 and not"):
        runs_of.check_settings(run)


@pytest.mark.parametrize("row", ["hog_svm", "cnn"])
def test_a_finished_run_of_other_classes_or_another_fold_is_refused(tmp_path, row):
    run = find(planned("dataset=wacv2016", out=tmp_path), row, fold=1)
    for changed, message in (
        ({"split__fold": 4}, r"with split\.fold=4 and not 1"),
        ({"dataset__classes": None}, "classes"),
    ):
        finish(run, **changed)
        with pytest.raises(ValueError, match=message):
            runs_of.check_settings(run)


def test_another_checkpoint_is_another_setting_but_another_way_to_it_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.ckpt", "two.ckpt"):
        (tmp_path / name).touch()
    finish(find(planned("--init-from", "one.ckpt"), "engagement"))
    runs_of.check_settings(find(planned("--init-from", str(tmp_path / "one.ckpt")), "engagement"))
    with pytest.raises(ValueError, match=r"which started from one\.ckpt"):
        runs_of.check_settings(find(planned("--init-from", "two.ckpt"), "engagement"))


def test_a_stopped_run_is_resumed_by_the_same_command(tmp_path):
    run = find(planned("dataset=wacv2016", out=tmp_path), "engagement", fold=1)
    before = run.command
    start(run)
    (run.folder / "last.ckpt").touch()
    assert run.state == "stopped"
    assert run.command == before
    assert {"ckpt_path=last", f"output_dir={run.folder}"} <= set(before)
    runs_of.check_settings(run)


def test_a_folder_may_have_any_name(tmp_path):
    start = tmp_path / "ü n" / "best.ckpt"
    start.parent.mkdir()
    start.touch()
    for run in planned("dataset=wacv2016", "--init-from", str(start), out=tmp_path / "ümlaut und mehr"):
        texts = [word for word in run.command if word.startswith(("output_dir=", "init_from="))]
        values = [override.value() for override in OverridesParser.create().parse_overrides(texts)]
        assert {str(run.folder)} <= set(values) <= {str(run.folder), str(start)}
        assert (str(start) in values) == (run.row == "engagement")


def test_a_stopped_run_with_other_settings_is_refused(tmp_path):
    run = find(planned("dataset=wacv2016", out=tmp_path), "cnn")
    start(run, max_epochs=40)
    (run.folder / "last.ckpt").touch()
    with pytest.raises(ValueError, match="with max_epochs=40 and not 8"):
        runs_of.check_settings(run)


def test_engagement_alone_waits_for_the_expressions():
    first, *others = planned("--preset", "quick")
    rows = [run.row for run in others]
    assert runs_of.ready(others, [first]).row == rows[0] == "hog_svm"
    assert runs_of.ready(others[-1:], [first]) is None
    assert runs_of.ready(others[-1:], others[:1]).row == "engagement"


def test_the_time_left_is_that_of_like_runs():
    runs = planned("dataset=wacv2016")
    clock = runs_of.Clock(jobs=2)
    waiting = [find(runs, "cnn", fold=4), find(runs, "engagement", fold=4)]
    assert clock.left(waiting) == ""
    for fold, seconds in ((0, 100.0), (1, 140.0)):
        clock.add(find(runs, "cnn", fold=fold), seconds)
    assert clock.left(waiting) == ""
    clock.add(find(runs, "vgg_scratch", fold=0), 4000.0)  # the same network
    clock.add(find(runs, "pretrain", fold=None), 9e9)
    assert clock.left(waiting) == ", about 34 min 20 s left"  # (120 + 4000) / 2


@pytest.mark.parametrize(
    ("seconds", "said"), [(42.2, "42 s"), (192, "3 min 12 s"), (59.7, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_a_span_in_its_two_largest_units(seconds, said):
    assert runs_of.span(seconds) == said


STAND_IN = """import json, os, pathlib, sys, time
given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder, started = pathlib.Path(given["output_dir"]), time.monotonic()
if given.get("max_epochs") == "0":
    sys.exit("error: max_epochs=0 must be at least 1")
if given.get("max_epochs") == "70":
    sys.exit(70)  # as a training that diverges
time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0.6")))
times = {"started": started, "ended": time.monotonic(), "threads": os.environ.get("OMP_NUM_THREADS")}
(folder / "result.json").write_text(json.dumps({"command": " ".join(sys.argv), "seconds": 0.6, **times}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """In place of train.py and baseline.py, commands that do nothing for a moment, and say when."""
    (tmp_path / "root" / "scripts").mkdir(parents=True)
    for name in ("train.py", "scripts/baseline.py"):
        (tmp_path / "root" / name).write_text(STAND_IN)
    monkeypatch.setattr(runs_of, "ROOT", tmp_path / "root")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(gpus, "cores", lambda: 7)
    monkeypatch.setenv(gpus.VARIABLE, "")  # runs on the CPU
    return tmp_path / "out"


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_runs_at_a_time_and_no_more(stand_in, capsys, at_once):
    runs = planned("dataset=wacv2016", "--folds", "2", "--rows", "cnn,engagement", out=stand_in)
    runs_of.run_all(runs, runs_of.launcher_of([], at_once))
    results = {run: json.loads((run.folder / "result.json").read_text()) for run in runs}
    assert {result["threads"] for result in results.values()} == {str(7 // at_once)}
    together = [
        sum(other["started"] <= one["started"] < other["ended"] for other in results.values())
        for one in results.values()
    ]
    assert max(together) == at_once
    first, *_, last = runs
    assert results[last]["started"] > results[first]["ended"]  # engagement starts from the expressions
    said = capsys.readouterr().out
    assert "[5/5] engagement seed 0 fold 1 …" in said
    assert said.count(" s") >= 5


def test_what_is_done_is_left_alone(stand_in, capsys):
    runs = planned("dataset=wacv2016", "--rows", "cnn", "--folds", "3", out=stand_in)
    finish(runs[1])
    before = (runs[1].folder / "result.json").read_bytes()
    runs_of.run_all(runs, runs_of.launcher_of([], 1))
    assert (runs[1].folder / "result.json").read_bytes() == before
    said = capsys.readouterr().out
    assert "1 of 3 runs done already" in said
    assert re.search(r"\[1/3\] cnn seed 0 fold 0 … \d+ s, about \d+ s left", said)
    assert "[2/3]" not in said


def test_what_a_failing_run_says_is_said_and_nothing_more_is_started(stand_in):
    runs = planned("dataset=wacv2016", "--rows", "hog_svm,cnn", "--folds", "2", "max_epochs=0", out=stand_in)
    with pytest.raises(ValueError, match="cnn seed 0 fold 0 ended with status 1: error: max_epochs=0 must be at"):
        runs_of.run_all(runs, runs_of.launcher_of([], 1))
    assert [run.state for run in runs] == ["done", "done", "new", "new"]
    assert not runs[3].folder.exists()
    runs_of.check_settings(runs[2])  # a run that left no files blocks no other run


def test_a_training_may_diverge_only_where_that_is_asked_for(stand_in, capsys):
    runs = planned("dataset=wacv2016", "--rows", "hog_svm,cnn", "--folds", "1", "max_epochs=70", out=stand_in)
    assert runs_of.run_all(runs, runs_of.launcher_of([], 1), may_diverge=True) == {runs[1]}
    assert "[2/2] cnn seed 0 fold 0 … diverged after " in capsys.readouterr().out
    with pytest.raises(ValueError, match="cnn seed 0 fold 0 ended with status 70"):
        runs_of.run_all(runs, runs_of.launcher_of([], 1))


def test_a_failing_run_ends_the_others(stand_in, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "60")
    runs = planned("dataset=wacv2016", "--rows", "hog_svm,cnn", "--folds", "1", "max_epochs=0", out=stand_in)
    started = time.monotonic()
    with pytest.raises(ValueError, match="cnn seed 0 fold 0 ended"):
        runs_of.run_all(runs, runs_of.launcher_of([], 2))
    assert time.monotonic() - started < 50
    assert runs[0].state == "new"


def write_row(out, row, better=0.0, seeds=(0,), folds=FOLDS, num_people=8, class_names=CLASSES, clips=False):
    """Finished runs with predictions, as train.py leaves them: every person in one fold. clips: of three frames."""
    stage = {"engagement": "finetune", "hog_svm": "baseline"}.get(row, "scratch")
    model = {"hog_svm": "hog_svm", "cnn": "cnn"}.get(row, "vgg_small")
    for seed in seeds:
        rng = np.random.default_rng([seed, len(row)])
        for fold in range(folds):
            folder = out / row / f"seed{seed}-fold{fold}"
            folder.mkdir(parents=True)
            choices = {"dataset": "er", "model": model, "split": "kfold", "augment": "none"}
            (folder / "result.json").write_text(json.dumps({"stage": stage, "seed": seed, "choices": choices}))
            (folder / "config.yaml").write_text(f"split:\n  num_folds: {FOLDS}\n  fold: {fold}\nseed: {seed}\n")
            with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                more = ["clip"] if clips else []
                columns = ["source", "subject", "format", "label", *more, *(f"p_{name}" for name in class_names)]
                writer.writerow(columns)
                for person in range(fold, num_people, FOLDS):
                    for image in range(12):
                        label = (image // 3 if clips else image) % len(class_names)
                        p = rng.dirichlet(np.ones(len(class_names)))
                        p = (1 - better) * p + better * np.eye(len(class_names))[label]
                        cells = [f"{x:.9g}" for x in p / p.sum()]
                        clip = [f"{person}-clip{image // 3}"] if clips else []
                        writer.writerow([f"{person}-{image}", f"s{person}", "", class_names[label], *clip, *cells])


def cells(text, name):
    rows = [[cell.strip() for cell in line.split("|")][1:-1] for line in text.splitlines() if line.startswith("| ")]
    [row] = [row for row in rows if row[0] == name]
    return row[1:]


def test_the_papers_figures_stand_beneath_each_row(tmp_path, capsys):
    """The paper's counts, 309 positive and 379 negative images, say which column its AUC is."""
    for row, better in (("engagement", 0.6), ("vgg_scratch", 0.1), ("cnn", 0.1), ("hog_svm", 0.0)):
        write_row(tmp_path, row, better)
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "200"])
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    for row, name in paper.ROWS.items():
        assert names[names.index(name) + 1] == f"{name}, in the paper"
        if row not in paper.PAPER:
            assert cells(text, f"{name}, in the paper")[1:] == ["–"] * 4
            continue
        accuracy, f1, balanced = (float(cell) / 100 for cell in cells(text, f"{name}, in the paper")[1:4])
        right = round(688 * accuracy)
        tp = round(f1 * (688 - right) / (2 * (1 - f1)))
        assert balanced == pytest.approx((tp / 309 + (right - tp) / 379) / 2, abs=6e-5)
    assert "8 people" in text
    for written in ("summary.md", "summary.csv", "differences.csv", "subjects.csv"):
        assert (tmp_path / "summary" / written).is_file()


def test_what_is_significant_is_said_as_the_intervals_have_it(tmp_path):
    for row, better in (("engagement", 0.7), ("vgg_scratch", 0.0), ("cnn", 0.0)):
        write_row(tmp_path, row, better)
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "400"])
    text = (tmp_path / "table.md").read_text()
    for one, other in (("Engagement model", "VGG from scratch"), ("VGG from scratch", "CNN")):
        [said] = [line for line in text.splitlines() if line.startswith(f"- {one} − {other} ")]
        certain, _, chance = said.partition("NOT")
        for column, cell in zip(paper.COLUMNS, cells(text, f"{one} − {other}")[:4], strict=True):
            low, high = (float(edge) for edge in cell.partition("[")[2].partition("]")[0].split(","))
            beyond = low > 0 or high < 0
            assert (f" {column} (" in certain) == beyond
            assert (f" {column} (" in chance) != beyond
    assert "not run" in cells(text, "HOG + SVM")
    assert "HOG + SVM" not in [line.split("−")[-1] for line in text.splitlines() if "−" in line]


def test_a_seed_that_lacks_folds_is_left_out_and_said(tmp_path):
    write_row(tmp_path, "engagement", 0.5, seeds=(0, 1))
    write_row(tmp_path, "cnn", seeds=(0,))
    write_row(tmp_path, "vgg_scratch", folds=1)
    (tmp_path / "engagement" / "seed1-fold1" / "result.json").unlink()
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "100"])
    text = (tmp_path / "table.md").read_text()
    assert "- Engagement model seed 1 is left out: it has 1 of 2 folds." in text
    assert "- VGG from scratch seed 0 is left out: it has 1 of 2 folds." in text
    assert cells(text, "Engagement model")[0] == "1"
    assert "not run" in cells(text, "VGG from scratch")


def test_folds_that_nobody_ran_are_said(tmp_path):
    write_row(tmp_path, "cnn", folds=1)
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "100"])
    assert f"- folds that have been run: 1 of {FOLDS};" in (tmp_path / "table.md").read_text()


def test_three_levels_are_not_compared_with_two(tmp_path):
    write_row(tmp_path, "cnn", class_names=["low", "middle", "high"])
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "100"])
    assert "have two classes, so they cannot be compared with 3" in (tmp_path / "table.md").read_text()


def test_the_table_of_frames_is_followed_by_that_of_clips(tmp_path, capsys):
    for row, better in (("engagement", 0.6), ("vgg_scratch", 0.1)):
        write_row(tmp_path, row, better, clips=True)
    paper_table.main(["--table-only", "--out", str(tmp_path), "--resamples", "200"])
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    frames, clips = text.split("\n## ")
    assert "96 test images of 8 people" in frames
    assert "32 test clips of 8 people" in clips
    for part in (frames, clips):
        assert "bootstrap over 8 people" in part
        assert cells(part, "Engagement model − VGG from scratch")
        assert "not run" in cells(part, "CNN")
    right, found = {}, {}
    for fold in range(FOLDS):
        with (tmp_path / "vgg_scratch" / f"seed0-fold{fold}" / "predictions.csv").open(encoding="utf-8") as file:
            for line in csv.DictReader(file):
                found.setdefault(line["clip"], []).append(float(line["p_engaged"]))
                right[line["clip"]] = line["label"] == "engaged"
    accuracy = np.mean([(np.mean(found[clip]) > 0.5) == right[clip] for clip in found])
    assert cells(clips, "VGG from scratch")[1].startswith(f"{100 * accuracy:.1f} [")


def test_nothing_to_tabulate_is_said(tmp_path):
    with pytest.raises(ValueError, match="no finished run below"):
        paper_table.main(["--table-only", "--out", str(tmp_path)])


@pytest.fixture(scope="module")
def real(tmp_path_factory, make_faces):
    """A folder with engagement labels of 32 people, expressions, and files that are damaged."""
    folder = tmp_path_factory.mktemp("data")
    make_faces(96, 2, 48).save(folder / "engagement.npz")
    splits = np.repeat(["train", "val", "test"], [42, 14, 14])
    make_faces(70, 7, 48, splits=splits, subjects=None).save(folder / "expressions.npz")
    for name in ("damaged.npz", "damaged.ckpt"):
        (folder / name).write_bytes(b"PK nothing")
    return folder


def typed(folder, *given, pretrain=""):
    """The arguments for these files; engagement and its network are small."""
    expressions = f"stage=pretrain model=vgg_small dataset=prepared dataset.path={folder}/expressions.npz {pretrain}"
    first = [] if "--init-from" in given else ["--pretrain", expressions]
    chosen = [] if "--rows" in given else ["--rows", "hog_svm,vgg_scratch,engagement"]
    return ["dataset=prepared", f"dataset.path={folder}/engagement.npz", *chosen, *first, *given]


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("given", "pretrain", "message"),
    [
        (["dataset.pathh=x.npz"], "", "pathh"),
        (["max_epochs=0"], "", "vgg_scratch: max_epochs=0 must be at least 1"),
        (["dataset.path=nowhere.npz"], "", "nowhere.npz does not exist"),
        (["dataset.path=FOLDER/damaged.npz"], "", "damaged.npz is not a prepared data set"),
        (["--folds", "40"], "", "--folds 40: random has 32 people; set --folds from 2 to 32"),
        (["split=loso", "--folds", "3"], "", "--folds 3: random has 32 people; set --folds 32"),
        (["split=official"], "", "the data set has no official split"),
        (["--init-from", "FOLDER/damaged.ckpt"], "", "damaged.ckpt cannot be read safely"),
        (["--init-from", "engrec:expressions"], "", "another network than this run's VGG"),
        ([], "batch_size=0", "--pretrain: batch_size=0 must be at least 1"),
        ([], "dataset.path=nowhere.npz", "--pretrain: nowhere.npz does not exist"),
        ([], "model.width=0.2", "engagement: --pretrain has another network than this run's VGG"),
        (["--out", "FOLDER/damaged.npz/out"], "", "damaged.npz cannot be written to"),
    ],
)
def test_what_a_later_run_would_refuse_is_refused_at_the_start(tmp_path, real, given, pretrain, message, dry):
    given = [word.replace("FOLDER", str(real)) for word in given]
    with pytest.raises((ValueError, HydraException)) as error:
        paper_table.main(["--out", str(tmp_path / "out"), *typed(real, *given, pretrain=pretrain), *dry])
    assert message in explain(error.value)
    assert "\n" not in explain(error.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_does_not_fit_is_not_to_be_set(tmp_path, real):
    """model= is of the preset: what can be set is where the expressions come from."""
    with pytest.raises(ValueError, match=r"set another --init-from, --pretrain or --preset$") as error:
        paper_table.main(typed(real, "--init-from", "engrec:expressions", "--out", str(tmp_path / "out")))
    assert "model=" not in str(error.value)
    assert exit_status(error.value) == BAD_CHECKPOINT


@pytest.mark.parametrize("seeds", ["1,1", "-1", "one", "0,", str(2**32)])
def test_seeds_that_no_run_takes_are_refused(capsys, seeds):
    with pytest.raises(SystemExit):
        paper_table.parse([f"--seeds={seeds}"])
    assert f"{seeds} must be numbers from 0 to 4294967295, each once" in capsys.readouterr().err


def test_a_dry_run_prints_and_starts_nothing(tmp_path, real, capsys):
    given = typed(real, "--rows", "cnn,engagement", "--out", str(tmp_path), "--seeds", "0,1")
    run = find(planned(*given, out=tmp_path), "cnn", fold=2)
    finish(run)
    before = sorted(tmp_path.rglob("*"))
    paper_table.main([*given, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("done ")] == [f"done     {shlex.join(['python', *run.command])}"]
    assert sum(line.startswith("new ") for line in lines) == 20
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_asked_of_the_data_when_every_run_is_done(tmp_path, capsys):
    for run in planned("dataset=wacv2016", "--rows", "hog_svm", out=tmp_path):
        finish(run)
    paper_table.main(["dataset=wacv2016", "--rows", "hog_svm", "--out", str(tmp_path), "--dry-run"])
    assert capsys.readouterr().out.count("done ") == 5
