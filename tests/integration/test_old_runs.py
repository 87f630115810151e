"""Folders that engrec wrote at commit f37f79a still work: they resume, are tested, summarised and fine-tuned from.

tests/golden/old_runs has three runs on synthetic faces: `full`; `stopped`, the same after three of twelve epochs;
`lrn`, an engagement network with local response normalisation. Only the names of a host and its folders were replaced.
"""

import csv
import json
import shutil

import pytest
import torch
from commands import FEW, ROOT, Folder

OLD = ROOT / "tests" / "golden" / "old_runs"
FULL, LRN = OLD / "f37f79a_full", OLD / "f37f79a_lrn"
STOPPED = "outputs/f37f79a_stopped"
MACHINE = ["trainer.accelerator=cpu", "batch_size=14", *FEW]
SETTINGS = ["model=vgg_small", "model.width=0.0313", *MACHINE]
PRINTED = ["python", "train.py", *SETTINGS, "max_epochs=12", "seed=3", "stage=pretrain", f"output_dir={STOPPED}"]
NOW = ["optimizer=sgd"]  # stage=pretrain has had another learning rate since


@pytest.fixture
def folder(tmp_path):
    """With the old runs where they were written: outputs/f37f79a_full, …"""
    shutil.copytree(OLD, tmp_path / "outputs")
    return Folder(tmp_path)


def succeeded(done):
    assert done.status == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def result(run):
    return json.loads((run / "result.json").read_text())


@pytest.mark.parametrize("checkpoint", [f"{STOPPED}/last.ckpt", "last"], ids=["file", "last"])
def test_a_stopped_run_resumes(folder, checkpoint):
    """It keeps its epochs to the digit and ends like the run that was never stopped.

    The CPU of both gives the same digits again. Another rounds bfloat16 otherwise: kernels for AVX2 instead of AMX
    change the first loss by 0.0006, and a later one by 0.019; a run of another seed differs by 0.03 at once.
    """
    done = succeeded(folder.printed(" ".join([*PRINTED, *NOW, f"ckpt_path={checkpoint}"])))
    run = folder.path / STOPPED
    before = (OLD / "f37f79a_stopped" / "metrics.csv").read_text()
    assert (run / "metrics.csv").read_text().startswith(before)
    epochs, expected = rows(run / "metrics.csv"), rows(FULL / "metrics.csv")
    assert [epoch["lr"] for epoch in epochs] == [epoch["lr"] for epoch in expected]
    for epoch, other in zip(epochs, expected, strict=True):
        tolerance = 0.005 if epoch["epoch"] == "3" else 0.06
        for name in ("train/loss", "val/loss"):
            assert float(epoch[name]) == pytest.approx(float(other[name]), abs=tolerance), (epoch["epoch"], name)
    found, known = result(run), result(FULL)
    assert found["metrics"]["test/loss"] == pytest.approx(known["metrics"]["test/loss"], abs=0.06)
    for name in ("model", "dataset", "num_images", "num_parameters", "epochs", "precision", "seed", "stage"):
        assert found[name] == known[name], name
    assert [row["source"] for row in rows(run / "predictions.csv")] == [
        r["source"] for r in rows(FULL / "predictions.csv")
    ]
    assert "Traceback" not in done.stdout


def test_a_checkpoint_tests_as_it_did(folder):
    """In the precision of its run. In 32-true the probabilities differ by 0.0003, the metrics by 0.00005."""
    start = ["stage=test", "ckpt_path=outputs/f37f79a_lrn/best.ckpt", *MACHINE, "trainer.precision=bf16-mixed"]
    succeeded(folder.command(*start, "output_dir=tested"))
    run = folder.path / "tested"
    assert result(run)["metrics"] == pytest.approx(result(LRN)["metrics"], abs=1e-4)
    for row, old in zip(rows(run / "predictions.csv"), rows(LRN / "predictions.csv"), strict=True):
        assert row.keys() == old.keys()
        for name, value in old.items():
            if name.startswith("p_"):
                assert float(row[name]) == pytest.approx(float(value), abs=1e-3), name
            else:
                assert row[name] == value, name


def test_an_old_run_and_a_new_one_with_identical_settings_are_one_row(folder):
    command = [argument for argument in PRINTED[2:] if not argument.startswith(("seed=", "output_dir="))]
    succeeded(folder.command(*command, *NOW, "seed=4", "output_dir=outputs/new"))
    runs = ["outputs/f37f79a_full", "outputs/f37f79a_lrn", "outputs/new"]
    script = ROOT / "scripts" / "summarize.py"
    done = succeeded(folder.python(script, *runs, "--resamples", "100", "--out", "summary"))
    lines = [line for line in done.stdout.splitlines() if line.startswith("| pretrain")]
    [pretrained] = [line for line in lines if "vote of 2 seeds" not in line]
    assert [cell.strip() for cell in pretrained.split("|")[1:4]] == ["pretrain vgg_small", "2", "2"]
    [accuracy] = [
        float(row["value"])
        for row in rows(folder.path / "summary" / "summary.csv")
        if (row["name"], row["score"]) == ("pretrain vgg_small", "accuracy")
    ]
    each = [result(run)["metrics"]["test/accuracy"] for run in (FULL, folder.path / "outputs" / "new")]
    assert accuracy == pytest.approx(sum(each) / 2, abs=1e-5)


def test_finetuning_starts_from_an_old_checkpoint(folder):
    start = [
        "stage=finetune",
        *SETTINGS,
        "max_epochs=1",
        f"init_from={STOPPED}/best.ckpt",
        "module.freeze_backbone=true",
    ]
    succeeded(folder.command(*start, "output_dir=tuned"))
    before, after = (
        torch.load(folder.path / run, weights_only=True)["state_dict"]
        for run in (f"{STOPPED}/best.ckpt", "tuned/last.ckpt")
    )
    names = [name for name in before if name.startswith("backbone.")]
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names)
