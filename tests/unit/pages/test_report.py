"""The page says what the blocks say: every part where there is something to show, none where there is not."""

import json
import re
from html import unescape

import finished_runs
import numpy as np
import plotly.graph_objects as go
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from engrec.datasets.prepared import Faces
from engrec.evidence import comparison
from engrec.evidence.groups import read_groups
from engrec.evidence.verdicts import judge
from engrec.metrics import compared, expected_calibration_error
from engrec.pages import faces, figures, learning, panels, report, tables
from engrec.runs import reading
from engrec.runs.record import Predictions, find_runs

CLASSES = ("bored", "calm", "keen")


def some_images(class_names=CLASSES, num_people=6, each=10, kinds=("JPEG L 48x48", "PNG RGB 64x64")):
    """source, subject, format and label of images of people who are seen in every class."""
    return [
        (f"{p}/{i}.jpg", f"s{p}", kinds[(p + i) % len(kinds)], (p + i) % len(class_names))
        for p in range(num_people)
        for i in range(each)
    ]


def random_probabilities(images, num_classes, seed=0, skill=1.0):
    """float (N, K), of the right class more or less."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(images), num_classes)) + skill * np.eye(num_classes)[[y for *_, y in images]]
    powers = np.exp(1.5 * logits)
    return powers / powers.sum(1, keepdims=True)


def write_predictions(path, images, probabilities, class_names=CLASSES):
    columns = map(np.array, zip(*images, strict=True))
    finished_runs.write_predictions(path, Predictions(class_names, *columns, probabilities))


def write_run(folder, images, probabilities, class_names=CLASSES, controls=None, config="", epochs=4, **result):
    """A run's folder as a training leaves it; epochs=0 for a baseline, which has no history."""
    choices = {"dataset": "prepared", "model": "vgg_small", "split": "kfold", "augment": "none"}
    choices |= {"model": result.pop("model", "vgg_small")}
    written = {"stage": "finetune", "seed": 0, "choices": choices, "epochs": epochs, "seconds": 12.5} | result
    write_predictions(folder / "predictions.csv", images, probabilities, class_names)
    (folder / "result.json").write_text(json.dumps(written), encoding="utf-8")
    if config:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
    for name, those in (controls or {}).items():
        write_predictions(folder / "controls" / f"{name}.csv", images, those, class_names)
    if epochs:
        rows = [f"{e},{1 / (e + 1):.4f},{0.5 + 0.4 * e / epochs:.4f},nan" for e in range(epochs)]
        text = "\n".join(["epoch,val/loss,val/accuracy,val/auc", *rows]) + "\n"
        (folder / "metrics.csv").write_text(text, encoding="utf-8")


def write_sweep(folder, stage="finetune", skill=1.0, class_names=CLASSES, num_seeds=2, **given):
    """Two folds of people under each seed, with the majority among the controls."""
    images = some_images(class_names)
    frequent = np.tile(np.eye(len(class_names))[0] * 0.4 + 0.6 / len(class_names), (len(images), 1))
    for seed in range(num_seeds):
        p = random_probabilities(images, len(class_names), seed, skill)
        for fold in range(2):
            side = [i for i, (_, who, *_) in enumerate(images) if int(who[1:]) % 2 == fold]
            config = f"run: 2026-01-0{fold + 2}_10-00-00\nmonitor: val/accuracy\nsplit: {{fold: {fold}}}\n"
            write_run(
                folder / f"{stage}-{seed}-{fold}",
                [images[i] for i in side],
                p[side],
                class_names,
                **{"controls": {"majority": frequent[side]}, "config": config, "stage": stage, "seed": seed} | given,
            )


def blocks_of(folder):
    return comparison.build(read_groups(find_runs([folder])), 200)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Three classes, two models, two seeds, two folds, controls, formats and temperatures."""
    folder = tmp_path_factory.mktemp("runs")
    given = {"calibration": {"temperature": 1.7}, "git_commit": "0123abc", "command": "python train.py <seed>"}
    write_sweep(folder, "finetune", 1.2, **given)
    write_sweep(folder, "scratch", 0.1, **given)
    blocks = blocks_of(folder)
    return blocks, report.html(blocks)


def body_of(text):
    """The page without its head, where the script for the figures is."""
    return text.partition("</head>")[2]


def headings(text):
    return re.findall(r"<h3[^>]*>([^<]*)</h3>", text)


def figure_data(text):
    """The traces of each figure, in the order of the page."""
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    return [json.loads(figure)["data"] for figure in figures]


def test_every_figure_is_one_that_plotly_knows(page, tmp_path):
    """They are plain dicts: nothing else notices a property that plotly.js would ignore."""
    write_sweep(tmp_path / "two", class_names=("no", "yes"), model="cnn", calibration={"temperature": 1.7})
    write_run(tmp_path / "three" / "one", some_images(), random_probabilities(some_images(), 3))
    for block in (*page[0], *blocks_of(tmp_path / "two"), *blocks_of(tmp_path / "three")):
        looks = panels.assign_looks(block.labels)
        charts = [*figures.of_test(block, looks).values(), figures.learning(block, looks)]
        rows = [(name, panels.Look(), of) for name, of in block.figures.items()]
        for figure in (figures.intervals(rows, {"AUC": 0.5}), *(chart.figure for chart in charts)):
            assert len(json.dumps(figure, allow_nan=False)) > 500
            go.Figure(figure | {"layout": figure["layout"] | {"template": panels.TEMPLATE}})


def test_every_colour_of_a_figure_has_one_for_dark_pages(page):
    used = set()
    for block in page[0]:
        looks = panels.assign_looks(block.labels)
        charts = [*figures.of_test(block, looks).values(), figures.learning(block, looks)]
        used |= set(re.findall(r'"(#[^"]*)"', json.dumps([panels.TEMPLATE, *(chart.figure for chart in charts)])))
    assert len(used) > 6
    assert used <= panels.DARK.keys()


def test_of_one_model_and_more_than_two_classes_each_has_its_own_curve(page):
    block = comparison.build(page[0][0].groups[:1], 100)[0]
    chart = figures.curves(block, panels.assign_looks(block.labels))
    group = block.groups[0]
    traces = [trace for trace in chart.figure["data"] if trace.get("legendgroup") and "x0" not in trace]
    assert [trace["legendgroup"] for trace in traces] == list(CLASSES)
    for k, trace in enumerate(traces):
        area = roc_auc_score(group.labels == k, group.probabilities[0, :, k])
        assert np.trapezoid(trace["y"], trace["x"]) == pytest.approx(area, abs=0.01)
        assert f"AUC {100 * area:.1f}," in trace["name"]


def test_every_part_is_there_in_order(page):
    assert headings(page[1]) == [
        "Scores",
        "Paired differences",
        "ROC and precision–recall",
        "Confusion",
        "Calibration",
        "Person by person",
        "Learning curves",
        "Within each file format",
        "Most confident mistakes",
    ]
    assert len(figure_data(page[1])) == 7


def test_the_tables_are_those_of_the_summary(page):
    [block], text = page
    shown = unescape(text)
    for rows in (tables.figure_rows(block), tables.difference_rows(block), tables.format_rows(block)):
        for row in rows[1:]:
            cells = [cell if isinstance(cell, str) else "\n".join(cell) for cell in row]
            assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in shown
    for row in tables.difference_rows(block)[1:]:
        value, interval, p = row[1]
        assert (value[0] in "+-", interval[0], interval[-1], p.partition(" ")[0]) == (True, "[", "]", "p")


def test_the_first_chart_has_every_figure_and_its_interval(page):
    [block], text = page
    traces = figure_data(text)[0]
    dots = [trace for trace in traces if trace["mode"] == "markers"]
    whiskers = [trace for trace in traces if trace["mode"] == "lines" and len(set(trace["y"])) == 1]
    figures = [of[score] for score in block.scores for of in block.figures.values()]
    assert block.scores == [*list(compared())[:4], "AUC within a person", "ECE"]
    assert len(figures) == 6 * (2 + 2 + 1)  # two groups, their votes, a control
    for dot, whisker, figure in zip(dots, whiskers, figures, strict=True):
        assert dot["x"] == pytest.approx([100 * figure.value], abs=1e-3)
        assert whisker["x"] == pytest.approx([100 * figure.low, 100 * figure.high], abs=1e-3)
        assert str(figure) in dot["hovertext"]


def test_a_model_has_one_colour_on_the_whole_page_and_controls_are_grey(page):
    [block], text = page
    looks = panels.assign_looks(block.labels)
    assert len({look.colour for look in looks.values()}) == 2
    for traces in figure_data(text):
        for trace in traces:
            if trace.get("legendgroup") in looks:
                drawn = trace.get("line", {}) | trace.get("marker", {})
                assert drawn["color"] == looks[trace["legendgroup"]].colour
    controls = [
        trace for trace in figure_data(text)[0] if trace["hoverinfo"] == "text" and "majority" in trace["hovertext"]
    ]
    assert {trace["marker"]["color"] for trace in controls} == {panels.GREY}


def test_a_page_of_many_models_tells_all_of_them_apart():
    looks = panels.assign_looks(f"model {i}" for i in range(25))
    assert len(set(looks.values())) == 25


def test_what_a_model_does_not_beat_is_set_apart(page):
    [block], text = page
    listed = re.findall(r'<li class="(\w+)">([^<]*)</li>', body_of(text))
    assert listed == [(verdict.kind, verdict.text) for verdict in judge(block)]
    assert {kind for kind, _ in listed} == {"fails", "note"}
    assert all((kind == "fails") == ("NOT" in line) for kind, line in listed)


def test_names_from_outside_stay_text(tmp_path):
    hostile = "<img src=x onerror=alert(1)>\"&'"
    write_sweep(tmp_path, class_names=("</script><b>", "a&b", "<i>"), model=hostile, command=hostile, num_seeds=1)
    text = report.html(blocks_of(tmp_path), title=hostile)
    body = body_of(text)
    for raw in ("<img", "</script><b>", "<i>", "a&b"):
        assert raw not in body
    assert "&lt;img src=x" in body
    # What plotly is told is text too: it would make tags of <b>, and knows no &quot;.
    for trace in (trace for traces in figure_data(body) for trace in traces):
        shown = json.dumps({key: value for key, value in trace.items() if key != "legendgroup"})
        assert "<img" not in shown
        assert "&quot;" not in shown


def test_names_break_neither_a_table_nor_a_page(tmp_path):
    odd = "a|b<script>"
    write_sweep(tmp_path / "one", class_names=(odd, "c"), model=odd, num_seeds=1)
    write_sweep(tmp_path / "two", class_names=(odd, "c"), model=f"{odd}`\nd", num_seeds=1)
    blocks = blocks_of(tmp_path)
    summary = tables.text(blocks)
    for table in re.findall(r"(?:^\|.*\n)+", summary, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
        assert len({len(line) for line in table.splitlines()}) == 1
    for text in (summary, body_of(report.html(blocks))):
        assert "b<script>" not in text
    assert summary.count("a\\|b&#60;script>") >= 4


def test_nothing_is_fetched(page):
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", body_of(page[1]))
    assert "@import" not in page[1].split("</style>")[0]
    assert page[1].count("plotly.js v") == 1


@pytest.mark.parametrize("seed", range(3))
def test_roc_is_the_curve_under_which_the_auc_lies(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(5000) < 0.3
    ranked = np.round(rng.normal(size=5000) + positive, 1)  # with ties
    curve = figures.roc(positive, ranked)
    assert np.trapezoid(curve, figures.GRID) == pytest.approx(roc_auc_score(positive, ranked), abs=0.003)
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == 1


@pytest.mark.parametrize("seed", range(3))
def test_precision_at_each_recall_is_that_of_the_threshold_which_reaches_it(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(300) < 0.3
    ranked = np.round(rng.normal(size=300) + positive, 1)
    curve = figures.precision_recall(positive, ranked)
    for recall, precision in zip(figures.GRID.clip(1e-6), curve, strict=True):
        thresholds = sorted(set(ranked), reverse=True)
        first = next(t for t in thresholds if (ranked[positive] >= t).mean() >= recall - 1e-9)
        assert precision == pytest.approx(positive[ranked >= first].mean())
    assert curve.mean() == pytest.approx(average_precision_score(positive, ranked), abs=0.01)


def test_the_curves_name_the_auc_of_the_first_seed(page):
    [block], text = page
    for label in block.labels:
        first = 100 * block.points[label]["AUC"][0]
        assert f'"name":"{label}: AUC {first:.1f}, average precision ' in text
        assert first != pytest.approx(100 * block.figures[label]["AUC"].value, abs=0.05)


def test_bins_give_the_calibration_error(page):
    group = page[0][0].groups[0]
    p, labels = group.probabilities[0], group.labels
    confidence, right, counts = figures.bins(p, labels)
    some = counts > 0
    gap = (counts[some] * np.abs(confidence - right)[some]).sum() / counts.sum()
    assert gap == pytest.approx(expected_calibration_error(p, labels))
    assert counts.sum() == len(labels)


def test_after_the_temperature_only_where_there_is_one(page, tmp_path):
    assert "after temperature" in page[1]
    write_sweep(tmp_path)
    assert "after temperature" not in report.html(blocks_of(tmp_path))


def test_confusions_are_counts_of_the_first_seed(page):
    [block], text = page
    heats = [trace for traces in figure_data(text) for trace in traces if trace["type"] == "heatmap"]
    for heat, group in zip(heats, block.groups, strict=True):
        for k, row in enumerate(heat["text"]):
            predicted = group.probabilities[0][group.labels == k].argmax(1)
            counts = np.bincount(predicted, minlength=3)
            assert [int(cell.split("<br>")[1]) for cell in row] == counts.tolist()
            assert heat["z"][k] == pytest.approx((counts / counts.sum()).tolist(), abs=1e-3)


def test_people_have_their_own_images_and_accuracy(page):
    [block], _ = page
    names, counts, right = block.people
    for label, group in zip(block.labels, block.groups, strict=True):
        for at, name in enumerate(names):
            of = group.subjects == name
            assert counts[at].tolist() == np.bincount(group.labels[of], minlength=3).tolist()
            assert right[label][at].sum() / of.sum() == pytest.approx(
                (group.probabilities[:, of].argmax(2) == group.labels[of]).mean()
            )


def test_of_two_classes_people_have_a_recall_for_each(tmp_path):
    write_sweep(tmp_path, class_names=("no", "yes"))
    text = report.html(blocks_of(tmp_path))
    assert "recall of no" in text
    assert "recall of yes" in text


def test_the_surest_mistakes_come_first(page):
    for group in page[0][0].groups:
        p, wrong = group.probabilities[0], faces.surest_mistakes(group)
        assert set(wrong.tolist()) == {i for i, row in enumerate(p) if row.argmax() != group.labels[i]}
        assert (np.diff(p[wrong].max(1)) <= 0).all()


def write_faces(path, images, **fields):
    """A prepared file in which image i is uniformly i: 3 of one picture is never another's."""
    pixels = np.broadcast_to(np.arange(len(images), dtype=np.uint8)[:, None, None, None], (len(images), 1, 8, 8))
    Faces(
        images=np.ascontiguousarray(pixels),
        labels=np.array([y for *_, y in images]),
        class_names=CLASSES,
        sources=np.array([source for source, *_ in images]),
        recipe={"name": "test"},
        **fields,
    ).save(path)


PREPARED = "dataset: {{_target_: engrec.datasets.prepared.load, path: {}}}\n"


def test_pictures_are_those_of_the_sources(tmp_path):
    images = some_images()
    write_faces(tmp_path / "faces.npz", images[::-1])
    p = random_probabilities(images, 3)
    write_run(tmp_path / "run", images, p, config=PREPARED.format(tmp_path / "faces.npz"))
    blocks = blocks_of(tmp_path)
    text, group = report.html(blocks), blocks[0].groups[0]
    shown = re.findall(r'<img src="([^"]*)"[^>]*alt="([^"]*)"', text)
    worst = faces.surest_mistakes(group)[: report.PICTURES_EACH]
    order = [source for source, *_ in images[::-1]]
    assert len(shown) == len(worst) > 4
    for (uri, caption), i in zip(shown, worst, strict=True):
        pixels = np.full((1, 8, 8), order.index(str(group.sources[i])), np.uint8)
        assert uri == report.page.picture(pixels)
        top = group.probabilities[0, i].argmax()
        assert caption == (
            f"{CLASSES[group.labels[i]]} → {CLASSES[top]} {group.probabilities[0, i, top]:.3f}, "
            f"{group.subjects[i]} · {group.sources[i]}"
        )


def test_pictures_of_many_models_are_fewer_each(tmp_path):
    images = some_images()
    write_faces(tmp_path / "faces.npz", images)
    for i in range(12):
        p = random_probabilities(images, 3, seed=i, skill=0)
        write_run(tmp_path / f"run{i}", images, p, config=PREPARED.format(tmp_path / "faces.npz"), model=f"m{i}")
    text = report.html(blocks_of(tmp_path))
    assert text.count("<img") == report.MOST_PICTURES
    assert len(text) < 12e6


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "the data set is not a prepared file (the run does not name it)"),
        ("dataset: {_target_: os.system, path: FILE}", "the data set is not a prepared file (os.system)"),
        ("dataset: {_target_: engrec.datasets.prepared.load, path: gone.npz}", "gone.npz does not exist"),
        ("dataset: {_target_: engrec.datasets.prepared.load, path: BROKEN}", "is not a prepared data set"),
        ("dataset: {_target_: engrec.datasets.prepared.load, path: LOCKED}", "password"),
        ("dataset: {_target_: engrec.datasets.prepared.load, path: " + "x" * 5000 + "}", "does not exist"),
        ("dataset: {_target_: engrec.datasets.prepared.load, path: OTHER}", "has no image "),
    ],
)
def test_why_there_are_no_pictures_is_said(tmp_path, config, reason):
    images = some_images()
    write_faces(tmp_path / "faces.npz", images)
    write_faces(tmp_path / "other.npz", [(f"another-{source}", *rest) for source, *rest in images])
    (tmp_path / "broken.npz").write_bytes(b"PK")
    locked = bytearray((tmp_path / "faces.npz").read_bytes())
    locked[6] |= 1  # the flag of an encrypted member, in the member and in the directory
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(locked)
    for word in ("FILE", "BROKEN", "OTHER", "LOCKED"):
        config = config.replace(word, str(tmp_path / f"{word.replace('FILE', 'faces').lower()}.npz"))
    write_run(tmp_path / "run", images, random_probabilities(images, 3), config=config)
    text = report.html(blocks_of(tmp_path))
    assert "No pictures of finetune vgg_small: " in text
    assert reason in text
    assert "<img" not in text


def test_large_pictures_are_made_as_small_as_they_are_shown(make_faces):
    large = make_faces(2, size=200, channels=3).images[0]
    assert faces.shrunk(large).shape == (3, faces.SIDE, faces.SIDE)
    small = make_faces(2, size=48).images[0]
    assert faces.shrunk(small) is small


def test_a_class_without_test_images_leaves_the_rest_of_the_page(tmp_path):
    images = [image for image in some_images() if image[3] != 1]
    write_run(tmp_path / "run", images, random_probabilities(images, 3))
    text = report.html(blocks_of(tmp_path))
    assert "No curve for calm: no test image." in text
    assert "Confusion" in headings(text)
    assert "NaN" not in body_of(text)


def test_curves_of_several_models_are_undefined_where_a_class_has_no_test_image(tmp_path):
    images = [image for image in some_images() if image[3] != 1]
    for model in ("cnn", "vgg"):
        write_run(tmp_path / model, images, random_probabilities(images, 3), model=model)
    assert "Undefined: a class has no test image." in report.html(blocks_of(tmp_path))


def test_without_subjects_history_and_controls(tmp_path):
    """A baseline of one seed on a data set that says nothing of its images."""
    images = [(source, "", "", y) for source, *_, y in some_images()]
    write_run(tmp_path / "run", images, random_probabilities(images, 3), stage="baseline", epochs=0)
    text = report.html(blocks_of(tmp_path))
    assert headings(text) == [
        "Scores",
        "ROC and precision–recall",
        "Confusion",
        "Calibration",
        "Most confident mistakes",
    ]
    assert "These runs have no controls" in text


def test_one_image_of_one_person(tmp_path):
    write_run(tmp_path / "run", [("a", "s", "", 0)], np.array([[0.2, 0.8]]), ("no", "yes"))
    text = report.html(blocks_of(tmp_path))
    assert "undefined" in text
    assert "NaN" not in body_of(text)


def test_each_set_of_test_images_has_a_section_of_its_own(tmp_path):
    write_sweep(tmp_path / "a")
    write_sweep(tmp_path / "b", class_names=("no", "yes"), model="cnn")
    text = report.html(blocks_of(tmp_path))
    titles = [block.title for block in blocks_of(tmp_path)]
    assert [f"{i}. {title}" for i, title in enumerate(titles, 1)] == re.findall(r"<h2[^>]*>([^<]*)</h2>", text)[:2]
    anchors = re.findall(r'<h[23] id="([^"]*)"', text)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]*)"', text)) == set(anchors)


def test_every_run_is_listed_once(page):
    blocks, text = page
    runs = [run for group in blocks[0].groups for run in group.runs]
    assert len(runs) == 8
    for run in runs:
        assert text.count(f"<td>{run.folder}</td>") == 1
    assert text.count("<td>python train.py &lt;seed&gt;</td>") == 8
    assert "8 runs in 2 groups over 1 set of test images, started 2026-01-02 to 2026-01-03" in text


def test_learning_curves_are_those_of_the_files(page):
    [block], text = page
    lines = [t for t in figure_data(text)[6] if t["mode"] == "lines"]
    assert len(lines) == 8 * 2  # val/loss and the monitored metric
    history = reading.read_history(block.groups[0].runs[0].folder / "metrics.csv")
    assert (lines[0]["x0"], lines[0]["dx"]) == (1, 1)
    assert lines[0]["y"] == history["val/loss"]
    assert lines[8]["y"] == pytest.approx([100 * value for value in history["val/accuracy"]])
    assert np.isnan(history["val/auc"]).all()


def test_long_histories_are_thinned():
    values = learning._thin(list(range(5000)))
    assert len(values) == learning.MOST_POINTS
    assert (values[0], values[-1]) == (0, 4999)
    assert learning._thin([3.0, 4.0]) == [3.0, 4.0]


@pytest.mark.parametrize("text", ["epoch,val/loss\n0,high\n", "epoch,val/loss\n0\n1,2,3\n", 'epoch\n"'])
def test_a_damaged_history_is_said(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged .*: run it again, or remove it"):
        reading.read_history(tmp_path / "metrics.csv")


def test_the_page_is_written_whole(page, tmp_path):
    names = ["differences.csv", "subjects.csv", "summary.csv", "summary.html", "summary.md"]
    assert sorted(path.name for path in report.write(page[0], tmp_path / "new")) == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert (tmp_path / "new" / "summary.html").read_text(encoding="utf-8").startswith("<!doctype html>")
