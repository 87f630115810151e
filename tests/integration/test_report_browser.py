"""The page in a browser: its figures are drawn from the file alone, and no script fails in it."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from finished_runs import CLASSES, take, write_predictions

from engrec.datasets.prepared import Faces
from engrec.evidence import comparison
from engrec.evidence.groups import read_groups
from engrec.metrics import compared
from engrec.pages import report
from engrec.runs.record import Predictions, find_runs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HISTORY = "epoch,val/loss,val/auc\n0,0.9,0.5\n1,0.6,0.7\n2,0.5,0.8\n"


def write_run(folder, faces, probabilities, stage, fold):
    """The images of every second person, as a training of that fold leaves them."""
    majority = np.tile([0.4, 0.6], (len(faces), 1))
    for name, p in (("predictions.csv", probabilities), ("controls/majority.csv", majority)):
        images = Predictions(CLASSES, faces.sources, faces.subjects, faces.formats, faces.labels, p)
        write_predictions(folder / name, take(images, slice(fold, None, 2)))
    choices = {"dataset": "prepared", "model": "vgg_small", "split": "kfold"}
    result = {"stage": stage, "seed": 0, "choices": choices, "calibration": {"temperature": 1.5}, "epochs": 3}
    (folder / "result.json").write_text(json.dumps(result | {"validation": {"epoch": 2}}), encoding="utf-8")
    (folder / "metrics.csv").write_text(HISTORY, encoding="utf-8")
    settings = {"monitor": "val/auc", "split": {"fold": fold}, "run": "2026-01-02_10-00-00"}
    settings |= {"dataset": {"_target_": "engrec.datasets.prepared.load", "path": str(folder.parents[1] / "faces.npz")}}
    (folder / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The blocks of two models, and what a browser made of their page."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH to open the page with")
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    number = np.arange(80)
    faces = Faces(
        images=rng.integers(0, 256, (80, 1, 8, 8), np.uint8),
        labels=(number // 2) % 2,
        class_names=CLASSES,
        sources=np.array([f"{i:02d}.jpg" for i in number]),
        recipe={"name": "made"},
        subjects=np.array([f"s{i % 8}" for i in number]),
        formats=np.where(rng.random(80) < 0.5, "JPEG L 48x48", "PNG RGB 64x64"),
    )
    faces.save(folder / "faces.npz")
    for stage, skill in (("finetune", 0.5), ("scratch", 0.0)):
        engaged = np.clip(rng.uniform(0.05, 0.95, 80) + skill * (faces.labels - 0.5), 0.01, 0.99)
        for fold in range(2):
            p = np.stack([1 - engaged, engaged], 1)
            write_run(folder / "runs" / f"{stage}-{fold}", faces, p, stage, fold)
    blocks = comparison.build(read_groups(find_runs([folder / "runs"])), 200)
    report.write(blocks, folder)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-dev-shm-usage", "--virtual-time-budget=10000"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1300,3000",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    done = subprocess.run([*command, (folder / "summary.html").as_uri()], capture_output=True, text=True, timeout=300)
    return blocks, done.stdout.partition("</head>")[2], done.stderr


def drawn(dom):
    """What each figure became, from its own division to the next."""
    return re.split(r'class="plotly-graph-div', dom)[1:]


def words(svg):
    """The texts of the figures, without their marks of layout."""
    found = re.findall(r"<text[^>]*>(.*?)</text>", svg, flags=re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", " ", text)).strip() for text in found]


def test_every_figure_is_drawn(opened):
    figures = drawn(opened[1])
    assert len(figures) == 7
    for figure in figures:
        assert "<svg" in figure
        assert re.search(r'<g class="(trace scatter|heatmaplayer|hm)|class="point', figure)
    assert [bool(re.search("<image", figure.partition("<h3")[0])) for figure in figures] == [False] * 3 + [True] + [
        False
    ] * 3


def test_each_mark_of_the_first_chart_is_there(opened):
    [block], dom, _ = opened
    points = re.findall(r'<path class="point"', drawn(dom)[0])
    assert len(points) == len(block.figures) * len(compared()) == 15


def test_the_numbers_of_the_tables_are_shown(opened):
    [block], dom, _ = opened
    shown = [" ".join(unescape(cell).splitlines()) for cell in re.findall(r"<td>([^<]*)</td>", dom)]
    for figures in block.figures.values():
        assert {str(figure) for figure in figures.values()} <= set(shown)


def test_no_figure_says_what_a_script_says_when_it_fails(opened):
    texts = [text for figure in drawn(opened[1]) for text in words(figure)]
    assert "finetune vgg_small" in texts
    assert not [text for text in texts if re.search(r"undefined|NaN|null|\[object|%\{", text)]
    assert not re.findall(r'\b(?:d|x|y|transform)="[^"]*(?:NaN|undefined)', opened[1])


def test_no_script_fails(opened):
    assert not [line for line in opened[2].splitlines() if "CONSOLE" in line]


def test_nothing_points_outside(opened):
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', opened[1])


def test_pictures_are_in_the_page(opened):
    assert len(re.findall(r'<img src="data:image/png;base64,', opened[1])) > 8
