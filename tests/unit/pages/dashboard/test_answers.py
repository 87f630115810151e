"""What the dashboard computes of runs, pairs and groups of runs."""

import os

import numpy as np
import pytest
from dashboard_runs import key, looked, made, records_of
from finished_runs import some_images, take
from sklearn.metrics import confusion_matrix, roc_auc_score

from engrec.evidence import comparison, groups
from engrec.pages.dashboard.answers import Details, faces_of
from engrec.pages.figures import of_test
from engrec.pages.panels import assign_looks
from engrec.runs import record, status


def test_confusion_and_roc_are_those_of_scikit_learn(tmp_path):
    images = some_images(90, class_names=("a", "b", "c"))
    made(tmp_path / "run", images)
    outputs = looked(tmp_path)
    said = Details(outputs, True).answer("tested", key(outputs, "run"))
    expected = confusion_matrix(images.labels, images.probabilities.argmax(1))
    [heat] = said["charts"]["Confusion"]["figure"]["data"]
    assert [[int(cell.partition("<br>")[2]) for cell in row] for row in heat["text"]] == expected.tolist()
    traces = said["charts"]["ROC and precision–recall"]["figure"]["data"]
    curves = [trace for trace in traces if trace["xaxis"] == "x" and trace.get("legendgroup")]
    assert [curve["legendgroup"] for curve in curves] == ["a", "b", "c"]
    for k, curve in enumerate(curves):
        area = np.trapezoid(curve["y"], curve["x"])
        assert area == pytest.approx(roc_auc_score(images.labels == k, images.probabilities[:, k]), abs=0.01)
    assert list(said["charts"]) == ["ROC and precision–recall", "Confusion", "Calibration", "Person by person"]


def test_a_run_has_the_figures_of_the_report(tmp_path):
    made(tmp_path / "run")
    outputs = looked(tmp_path)
    [block] = comparison.build(groups.read_groups(record.find_runs([tmp_path])), 100)
    said = Details(outputs, True).answer("tested", key(outputs, "run"))
    for heading, chart in of_test(block, assign_looks(block.labels)).items():
        assert said["charts"][heading] == vars(chart)
    assert said["scores"]["AUC"] == pytest.approx(block.figures[block.labels[0]]["AUC"].value, abs=1e-6)


def test_a_run_that_was_killed_before_its_result_shows_its_predictions(tmp_path):
    (made(tmp_path / "run") / "result.json").unlink()
    outputs = looked(tmp_path)
    said = Details(outputs, True).answer("tested", key(outputs, "run"))
    assert said["images"] == 60
    assert said["charts"].keys() >= {"ROC and precision–recall", "Confusion"}


def test_learning_curves_are_those_of_the_file(tmp_path):
    made(tmp_path / "run")
    outputs = looked(tmp_path)
    said = Details(outputs, True).answer("history", key(outputs, "run"))
    curves = {name: curve["traces"] for name, curve in said["curves"].items()}
    assert {name: len(traces) for name, traces in curves.items()} == {"lr": 1, "loss": 3, "auc": 2}
    training, validation, kept = curves["loss"]
    assert (training["name"], training["y"], training["line"]["dash"]) == ("train", [1.0, 0.8, 0.7], "dot")
    assert (validation["name"], validation["y"], validation["x0"], validation["dx"]) == ("val", [0.9, 0.6, 0.5], 1, 1)
    assert (kept["x"], kept["y"]) == ([2], [0.6])
    assert (said["epochs"], said["wrong"], said["curves"]["auc"]["title"]) == (3, "", "AUC, %")


def test_groups_are_drawn_in_one_figure_those_with_most_runs_first(tmp_path):
    for fold in (0, 1):
        part = take(some_images(), slice(fold, None, 2))
        made(tmp_path / f"many{fold}", part, fold=fold, controls={"majority": part})
    made(tmp_path / "one", some_images(24), settings={"optimizer.lr": 0.5})
    (made(tmp_path / "damaged", settings={"optimizer.lr": 0.7}) / "predictions.csv").unlink()
    figure = Details(looked(tmp_path), True).answer("intervals", "all")["chart"]["figure"]
    assert figure["layout"]["yaxis"]["ticktext"] == [
        "finetune wacv2016 vgg_small<br>optimizer.lr=0.05",
        "always the majority class",
        "finetune wacv2016 vgg_small<br>optimizer.lr=0.5 †",
    ]


def test_a_group_has_the_figures_of_the_summary(tmp_path):
    whole = some_images(seed=1)
    for seed in (0, 1):
        for fold in (0, 1):
            part = take(some_images(seed=seed), slice(fold, None, 2))
            controls = {"majority": take(whole, slice(fold, None, 2))}
            made(tmp_path / f"{seed}{fold}", part, seed=seed, fold=fold, controls=controls)
    outputs = looked(tmp_path)
    [group] = {run["group"] for run in records_of(outputs).values()}
    said = Details(outputs, True).answer("group", group)
    [block] = comparison.build(groups.read_groups(record.find_runs([tmp_path])), 2000)
    for name, figures in block.figures.items():
        for score, figure in figures.items():
            assert said["figures"][name][score]["value"] == pytest.approx(figure.value, abs=1e-6)
            assert said["figures"][name][score]["low"] == pytest.approx(figure.low, abs=1e-6)
    assert (said["repeated"], said["incomplete"]) == (0, 0)


def test_a_group_takes_the_latest_of_runs_alike_and_whole_seeds_alone(tmp_path):
    for number, (seed, fold) in enumerate([(0, 0), (0, 1), (0, 1), (1, 0)]):
        part = take(some_images(seed=number), slice(fold, None, 2))
        status.write(
            made(tmp_path / str(number), part, seed=seed, fold=fold),
            status.Status("finished", started=float(number + 1)),
        )
    outputs = looked(tmp_path)
    [group] = {run["group"] for run in records_of(outputs).values()}
    said = Details(outputs, True).answer("group", group)
    assert (said["repeated"], said["incomplete"]) == (1, 1)
    kept = [record.read_run(tmp_path / name) for name in ("0", "2")]
    [block] = comparison.build(groups.read_groups(kept), 100)
    [figures] = block.figures.values()
    [told] = said["figures"].values()
    assert told["AUC"]["value"] == pytest.approx(figures["AUC"].value, abs=1e-6)


@pytest.mark.parametrize(("people", "few"), [(1, False), (2, True), (4, True), (5, False)])
def test_intervals_over_few_people_are_marked_and_explained(tmp_path, people, few):
    """Fewer than five: with as many draws no p-value of theirs is below 0.05."""
    for name, skill in (("weak", 0.1), ("strong", 9.0)):
        made(tmp_path / name, some_images(6 * people, skill=skill), settings={"optimizer.lr": skill})
    outputs = looked(tmp_path)
    details, keys = Details(outputs, True), [key(outputs, name) for name in ("weak", "strong")]
    group = next(iter(records_of(outputs).values()))["group"]
    for said in (details.answer("group", group), pair := details.answer("pair", "+".join(keys))):
        assert said["sign"] == (" †" if few else "")
        assert said["legend"].startswith("† Fewer than five people") is few
    assert not few or min(pair["p"].values()) > 0.05


def test_two_runs_are_compared_second_minus_first_on_the_same_images(tmp_path):
    made(tmp_path / "weak", some_images(skill=0.1))
    made(tmp_path / "strong", some_images(skill=0.8), settings={"optimizer.lr": 0.5})
    made(tmp_path / "other", take(some_images(), slice(0, 30)))
    outputs = looked(tmp_path)
    details, keys = Details(outputs, True), {name: key(outputs, name) for name in ("weak", "strong", "other")}
    said = details.answer("pair", f"{keys['weak']}+{keys['strong']}")
    ours = {name: details.answer("tested", keys[name])["scores"]["AUC"] for name in keys}
    assert said["figures"]["AUC"]["value"] == pytest.approx(ours["strong"] - ours["weak"], abs=1e-5)
    assert said["figures"]["AUC"]["value"] > 0
    assert 0 < said["figures"]["AUC"]["low"] < said["figures"]["AUC"]["value"] < said["figures"]["AUC"]["high"]
    assert "same images" in details.answer("pair", f"{keys['weak']}+{keys['other']}")["why"]


def test_mistakes_are_the_images_that_are_wrong_the_surest_first(faces_run):
    outputs = faces_run("synthetic")
    said = Details(outputs, False).answer("mistakes", key(outputs, "run"))
    images = some_images()
    wrong = np.flatnonzero(images.probabilities.argmax(1) != images.labels)
    surest = wrong[images.probabilities[wrong].max(1).argmax()]
    assert (said["wrong"], said["synthetic"]) == (len(wrong), True)
    assert images.sources[surest] in said["pictures"][0]["caption"]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in said["pictures"])


def test_real_faces_are_shown_only_where_they_may_be(faces_run):
    outputs = faces_run("wacv2016")
    assert "pictures" in Details(outputs, True).answer("mistakes", key(outputs, "run"))
    refused = Details(outputs, False).answer("mistakes", key(outputs, "run"))
    assert refused.keys() == {"why"}
    assert "--faces" in refused["why"]


def test_a_damaged_data_set_leaves_the_other_answers(faces_run, tmp_path):
    outputs = faces_run("synthetic")
    content = bytearray((tmp_path / "faces.npz").read_bytes())
    content[6] |= 1  # the flag of an encrypted member, in the member and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "faces.npz").write_bytes(content)
    details = Details(outputs, True)
    assert "is not a prepared data set" in details.answer("mistakes", key(outputs, "run"))["why"]
    assert "why" not in details.answer("tested", key(outputs, "run"))


def test_drawn_faces_are_drawn_again_and_nothing_else_that_a_run_names(tmp_path):
    drawn = {
        "dataset": {
            "_target_": "engrec.datasets.synthetic.render",
            "task": "engagement",
            "num_train": 4,
            "num_val": 4,
            "num_test": 4,
            "images_per_subject": 4,
            "seed": 1,
        }
    }
    run = record.read_run(made(tmp_path / "run", settings=drawn))
    assert faces_of(run).recipe["importer"] == "synthetic"
    many = record.read_run(made(tmp_path / "many", settings={"dataset": drawn["dataset"] | {"num_test": 10**9}}))
    with pytest.raises(ValueError, match="50,000"):
        faces_of(many)
    other = record.read_run(made(tmp_path / "other", settings={"dataset": {"_target_": "os.system", "path": "x"}}))
    with pytest.raises(ValueError, match="not a prepared file"):
        faces_of(other)


def test_logs_are_shown_without_what_was_overwritten(tmp_path):
    folder = made(tmp_path / "run")
    (folder / "train.log").write_text("begin\n 10%\r 50%\r\x1b[32m100%\x1b[0m\nend\n")
    outputs = looked(tmp_path)
    assert Details(outputs, True).answer("texts", key(outputs, "run"))["log"] == "begin\n100%\nend"
    (folder / "train.log").write_text("x" * 60 + "\n" * 3 + "line\n" * 10_000)
    outputs.scan()
    log = Details(outputs, True).answer("texts", key(outputs, "run"))["log"]
    assert len(log) <= 24_000
    assert set(log.split("\n")) == {"line"}


@pytest.mark.parametrize("name", ["predictions.csv", "controls/majority.csv", "controls"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_predictions_and_controls_are_read_from_plain_files_alone(tmp_path, name, kind):
    folder = made(tmp_path / "outputs" / "run", controls={"majority": some_images()})
    (folder / name).rename(tmp_path / "secret")
    if kind == "link":
        (folder / name).symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(folder / name)
    outputs = looked(tmp_path / "outputs")
    group = next(iter(records_of(outputs).values()))["group"]
    answers = [Details(outputs, True).answer(*of) for of in (("tested", key(outputs, "run")), ("group", group))]
    if (name, kind) == ("controls", "pipe"):  # it holds no files
        assert all("why" not in answer for answer in answers)
    else:
        said = {"link": "is a link, which is not followed", "pipe": "is not a plain file"}[kind]
        assert all(f"{name.rpartition('/')[2]} {said}" in answer["why"] for answer in answers)


def test_answers_about_damaged_predictions_say_what_is_wrong(tmp_path):
    folder = made(tmp_path / "run")
    with (folder / "predictions.csv").open("a") as file:
        file.write("half a ro")
    outputs = looked(tmp_path)
    for question in ("tested", "mistakes"):
        assert "predictions.csv, line 62: " in Details(outputs, True).answer(question, key(outputs, "run"))["why"]
