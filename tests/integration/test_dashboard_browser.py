"""The dashboard clicked through in a browser, as somebody would who looks at runs: served and exported."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from browsing import opened
from finished_runs import some_images, take, write_run

from engrec.datasets.synthetic import render
from engrec.machine import processes
from engrec.pages.panels import DARK
from engrec.runs.record import Predictions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def history(epochs, level=0.6):
    rows = [f"{e},0.1,{1 - e / 20},{level + e / 100},{0.9 - e / 20}" for e in range(epochs)]
    return "\n".join(["epoch,lr,train/loss,val/auc,val/loss", *rows]) + "\n"


def finish(folder, auc, epochs=4):
    result = json.loads((folder / "result.json").read_text())
    result |= {"metrics": {"test/auc": auc, "test/accuracy": auc - 0.05}, "epochs": epochs, "seconds": 75.0}
    result |= {"validation": {"epoch": epochs - 1, "val/auc": auc + 0.02, "val/loss": 0.5}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.csv").write_text(history(epochs, auc - 0.1))
    (folder / "train.log").write_text("first line\nlast line of the log\n")


def search_folder(folder):
    """A search of twelve complete trials and a pruned one, with their runs."""
    trials = [{"number": i, "state": "complete" if i < 12 else "pruned", "error": None} for i in range(13)]
    for trial in range(13):
        settings = {"optimizer.lr": 0.001 * (trial + 1)}
        run = write_run(folder / "trials" / str(trial), some_images(seed=trial), stage="scratch", settings=settings)
        finish(run, 0.5 + trial / 50)
    (folder / "trials" / "12" / "result.json").unlink()
    (folder / "sweep.json").write_text(json.dumps({"name": "small", "state": "done", "trials": trials}))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Six runs on synthetic faces (three folds of two kinds), one that is running, a damaged one, and a search."""
    root = tmp_path_factory.mktemp("served") / "outputs"
    drawn = {
        "_target_": "engrec.datasets.synthetic.render",
        "task": "engagement",
        "num_train": 20,
        "num_val": 20,
        "num_test": 60,
        "images_per_subject": 5,
        "seed": 0,
    }
    faces = render(**{key: value for key, value in drawn.items() if key != "_target_"})
    tested = faces.select(faces.splits == "test")
    for number, (kind, skill) in enumerate((("good", 0.6), ("weak", 0.1))):
        weights = np.random.default_rng(number).uniform(0.05, 1, (60, 2))
        weights[np.arange(60), tested.labels] += skill
        shares = weights / weights.sum(1, keepdims=True)
        named = Predictions(faces.class_names, tested.sources, tested.subjects, np.full(60, ""), tested.labels, shares)
        for fold in range(3):
            settings = {"dataset": drawn, "optimizer.lr": 0.1 if kind == "good" else 0.001, "split.num_folds": 3}
            choices = {"dataset": "synthetic"}
            part = take(named, slice(fold, None, 3))
            finish(
                write_run(
                    root / kind / str(fold), part, fold=fold, settings=settings, choices=choices, data="synthetic"
                ),
                0.9 - fold / 50 - (kind == "weak") / 5,
            )
    leaking = {
        "settings": {"optimizer.lr": 0.3, "split._target_": "engrec.splits.Random"},
        "choices": {"split": "random"},
    }
    finish(write_run(root / "few", some_images(24), **leaking), 0.6)
    live = write_run(root / "live", some_images(), settings={"max_epochs": 20})
    (live / "result.json").unlink()
    (live / "predictions.csv").unlink()
    (live / "metrics.csv").write_text(history(2))
    said = {
        "state": "running",
        "started": time.time() - 100,
        "ended": None,
        "error": None,
        "command": "python train.py",
    }
    (live / "status.json").write_text(
        json.dumps(said | {"host": socket.gethostname(), "process": processes.process(os.getpid())})
    )
    (write_run(root / "broken", some_images()) / "result.json").write_text("{")
    search_folder(root / "sweeps" / "small")
    return root


def command(*arguments):
    words = [sys.executable, str(ROOT / "scripts" / "dashboard.py"), *map(str, arguments)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def served(outputs):
    process = command(outputs, "--port", 0)
    yield re.search(r"http://\S+/", process.stdout.readline())[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


@pytest.fixture
def page(tab, served):
    """All runs, freshly opened; afterwards no script has failed, and nobody but the server was asked."""
    tab.open(served)
    tab.until("document.querySelectorAll('table.runs tbody tr[id]').length")
    yield tab
    assert not tab.errors
    assert not [address for address in tab.asked if not address.startswith((served, "data:", "blob:"))]


NAMES = "[...document.querySelectorAll('table.runs tbody tr[id] td.name')].map((cell) => cell.textContent)"

HEADS = "[...document.querySelectorAll('table.runs thead th .dt-column-title')].map((cell) => cell.textContent)"


HEATS = "[...document.querySelectorAll('.charts .heatmap-label text')]"


def box(path):
    return f"input[aria-label='select {path}']"


def drawn(selector="#curves"):
    return f"document.querySelectorAll('{selector} .plot:first-of-type .scatterlayer .trace .lines path').length"


def test_runs_are_sorted_by_a_click_and_filtered_by_typing_and_by_status(page):
    assert "1 to 22 of 22 runs" in page.js("document.querySelector('.dt-info').textContent")
    place = page.js(f"{HEADS}.indexOf('test AUC')")
    page.click(f"table.runs thead th:nth-child({place + 1}) .dt-column-title")
    values = (
        f"[...document.querySelectorAll('table.runs tbody tr[id]')].map((row) => row.children[{place}].textContent)"
    )
    for chosen in ("max", "min"):  # and what has no test comes last both ways
        known = f"{values}.filter(Boolean).map(Number)"
        page.until(f"(() => {{ const v = {known}; return v[0] === Math.{chosen}(...v) && v[0] !== v.at(-1); }})()")
        assert page.js(f"{values}.lastIndexOf('')") == 21
        page.click(f"table.runs thead th:nth-child({place + 1}) .dt-column-title")
    page.click(".dt-search input")
    page.type("good")
    page.until(f"JSON.stringify({NAMES}.sort()) === JSON.stringify(['good/0', 'good/1', 'good/2'])")
    page.js("document.querySelector('.dt-search input').select()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Backspace", windowsVirtualKeyCode=8)
    page.until(f"{NAMES}.length > 10")
    page.click("[data-state=damaged]")
    page.until(f"JSON.stringify({NAMES}) === '[\"broken\"]'")
    row = "document.querySelector('table.runs tbody tr[id]')"
    page.until(f"{row}.textContent.includes('result.json is damaged')")  # its column appears a moment later
    page.click("[data-state=damaged]")
    page.click("[data-state=pruned]")
    page.until(f"JSON.stringify({NAMES}) === '[\"sweeps/small/trials/12\"]'")
    page.click("[data-state=pruned]")


def test_only_settings_that_differ_among_the_listed_runs_have_a_column(page):
    page.until(f"{HEADS}.includes('optimizer.lr')")
    assert "batch_size" not in page.js(HEADS)
    page.click(".dt-search input")
    page.type("good/")
    page.until(f"!{HEADS}.includes('optimizer.lr')")
    page.js("document.querySelector('.dt-buttons button').click()")
    page.until("!!document.querySelector('.dt-button-collection button')")
    choice = (
        "[...document.querySelectorAll('.dt-button-collection button')].find((b) => b.innerText.trim() === 'val acc.')"
    )
    page.js(f"{choice}.click()")
    page.until(f"{HEADS}.includes('val acc.')")
    page.js("document.querySelector('.dt-search input').value = ''")


def test_scores_that_no_run_has_have_no_column_and_those_that_are_no_result_are_marked(page):
    page.until(f"{HEADS}.includes('split')")
    heads = page.js(HEADS)
    assert [head for head in heads if head.startswith("test ")] == ["test acc.", "test AUC"]
    marked = (
        "[...document.querySelectorAll('table.runs tbody td')].filter((c) => c.textContent.includes('not a result'))"
    )
    assert page.js(f"{marked}.map((cell) => cell.textContent)") == ["random (leakage check, not a result)"]
    page.click(".dt-search input")
    page.type("good/")
    page.until(f"!{HEADS}.includes('split')")


def test_chosen_runs_have_their_curves_and_two_are_compared(page):
    page.click(box("good/0"))
    page.until(f"{drawn()} >= 1")
    one = page.js(drawn("#curves .panel:last-child"))
    page.click(box("weak/0"))
    page.until(f"{drawn('#curves .panel:last-child')} === {2 * one}")
    assert page.js("document.querySelectorAll('.legend li').length") == 2
    page.click("#compare")
    page.until(f"{HEATS}.length === 8")  # two matrices of two classes
    text = page.until(
        "document.querySelector('main').innerText.includes('paired') && document.querySelector('main').innerText"
    )
    assert re.search(r"test AUC\s+90\.0\s+70\.0\s+−20\.0", text)
    assert re.search(r"optimizer\.lr\s+0\.1\s+0\.001", text)
    assert re.search(r"balanced accuracy\s+−[\d.]+\s+\[[^\]]+\]\s+p", text)
    page.until(f"{drawn()} >= 2")


def test_a_run_has_a_page_of_its_own(page):
    page.click(".dt-search input")
    page.type("good/1")
    page.until(f"{NAMES}.length === 1")
    page.click("table.runs td.name a")
    page.until(f"{HEATS}.length === 4")
    counts = [int(count) for count in page.js(f"{HEATS}.map((cell) => cell.lastElementChild.textContent)")]
    assert sum(counts) == 20
    wrong = counts[1] + counts[2]
    page.until(f"document.querySelectorAll('.faces img').length === {wrong}")
    assert page.js(
        "[...document.querySelectorAll('.faces img')].every((image) => image.complete && image.naturalWidth === 48)"
    )
    text = page.js("document.querySelector('main').innerText")
    for part in (
        "last line of the log",
        "num_test: 60",
        "Synthetic faces, of nobody",
        "engaged",
        "kfold, fold 1 of 3",
        "1 min 15 s",
    ):
        assert part in text
    for heading in ("ROC and precision–recall", "Confusion", "Calibration", "Person by person"):
        assert heading in text
    page.until("document.querySelectorAll('.charts .plot .main-svg').length >= 4")
    page.until("document.querySelectorAll('.panel .plot .scatterlayer .trace').length >= 4")


def test_a_running_run_shows_its_new_epochs_by_itself(page, outputs):
    page.click(box("live"))
    points = "document.querySelector('#curves .panel:last-child .js-plotly-plot')?.data?.at(-2)?.y?.length"
    page.until(f"{points} === 2")
    assert "2 / 20" in page.js("document.querySelector('tr.chosen').textContent")
    (outputs / "live" / "metrics.csv").write_text(history(3))
    page.until(f"{points} === 3")
    page.until("document.querySelector('tr.chosen').textContent.includes('3 / 20')")
    assert page.js("document.querySelector('#live').textContent") == "live"
    write_run(outputs / "late", some_images(), settings={"optimizer.lr": 0.001})
    page.until(f"{NAMES}.includes('late')")
    shutil.rmtree(outputs / "late")
    page.until(f"!{NAMES}.includes('late')")
    assert page.js(f"document.querySelector({json.dumps(box('live'))}).checked")


def test_folds_are_pooled_with_intervals(page):
    page.click("nav a[data-views=groups]")
    text = page.until(
        "(() => { const t = document.querySelector('table.groups')?.innerText;"
        "return t && !t.includes('…\\t') && t; })()"
    )
    assert len(re.findall(r"finetune synthetic vgg_small", text)) == 2
    assert len(re.findall(r"\t3\t3 of 3\t1\t[\d.]+ \[[\d.]+, [\d.]+\]", text)) == 2
    [few] = [row for row in text.split("† fewer than five people") if "†" in row]
    assert len(re.findall(r"\[[\d.]+, [\d.]+\] †", few)) == 5
    assert "† Fewer than five people: too few" in page.js("document.querySelector('main').textContent")
    page.until("document.querySelectorAll('main .plot .scatterlayer .point').length >= 5 * 3")
    page.click("table.groups tbody button")
    page.until(f"{NAMES}.length === 3")


def test_a_run_of_a_search_says_which_trial_it_is(page):
    page.click(".dt-search input")
    page.type("trials")
    page.until(f"{HEADS}.includes('trial')")
    place = page.js(f"{HEADS}.indexOf('trial')")
    trial = f"document.querySelector('table.runs tbody tr[id]').children[{place}].textContent"
    assert page.js(f"{NAMES}[0]") == f"sweeps/small/trials/{page.js(trial)}"
    page.click("table.runs td.name a")
    text = page.until("document.querySelector('section.runhead')?.innerText")
    assert re.search(r"Trial \d+ of the search sweeps/small", text)
    page.click("nav a")
    page.js("filters.text = ''")


def test_figures_are_dark_on_a_dark_page(page):
    background = "document.querySelector('#curves .js-plotly-plot')?._fullLayout?.paper_bgcolor"
    line = "document.querySelector('#curves .js-plotly-plot')?._fullData?.[0]?.line?.color"
    page.click(box("good/0"))
    light = [page.until(background), page.until(line)]
    try:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.until(f"{background} === '{DARK[light[0]]}' && {line} === '{DARK[light[1]]}'")
    finally:
        page.call("Emulation.setEmulatedMedia", features=[])
    page.until(f"{background} === '{light[0]}'")


def test_the_keyboard_is_enough(page):
    def press(key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self = {"type": kind, "key": key, "windowsVirtualKeyCode": code}
            page.call("Input.dispatchKeyEvent", **self, **({"text": text} if text and kind == "keyDown" else {}))

    press("/", 191, "/")
    page.until("document.activeElement === document.querySelector('.dt-search input')")
    page.js(f"document.querySelector({json.dumps(box('good/2'))}).focus()")
    press(" ", 32, " ")
    page.until("document.querySelectorAll('.legend li').length === 1")
    press("Tab", 9)
    assert page.js("document.activeElement.textContent") == "good/2"
    press("Enter", 13, "\r")
    page.until("document.querySelector('h2.title')?.textContent.startsWith('good/2')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["runs", "groups", "run"])
def test_no_view_is_wider_than_a_narrow_window_and_text_can_be_read(page, scheme, view):
    try:
        page.call("Emulation.setDeviceMetricsOverride", width=420, height=800, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        run = page.js("[...runs.values()].find((run) => run.path === 'good/0').id")
        page.js(f"location.hash = '#/{view}{f'/{run}' if view == 'run' else ''}'")
        page.until("document.querySelector('main').innerText.length > 50")
        if view == "run":
            page.until("document.querySelectorAll('.charts .plot .main-svg').length >= 4")
        assert page.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        ink, paper = page.js(
            "['color', 'background-color'].map((n) => getComputedStyle(document.body).getPropertyValue(n))"
        )
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
        assert (light[0] < light[1]) is (scheme == "light")
        assert abs(light[0] - light[1]) > 450
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[])


def test_an_exported_page_shows_the_same_without_a_server(tab, outputs, tmp_path):
    assert command(outputs, "--export", tmp_path / "page.html").wait(timeout=120) == 0
    tab.open((tmp_path / "page.html").as_uri())
    tab.until(f"{NAMES}.length >= 20")
    tab.click(box("good/0"))
    tab.click(box("weak/1"))
    tab.until(f"{drawn()} >= 2")
    tab.click(".legend a")
    tab.until(f"{HEATS}.length === 4")
    tab.until("document.querySelectorAll('.faces img').length > 0")
    assert "as of 20" in tab.js("document.querySelector('#live').textContent")
    assert not tab.errors
    assert not [address for address in tab.asked if not address.startswith(("file:", "data:", "blob:"))]


def test_an_empty_folder_says_which_command_makes_a_run(tab, tmp_path):
    process = command(tmp_path / "outputs", "--port", 0)
    try:
        tab.open(re.search(r"http://\S+/", process.stdout.readline())[0])
        assert "cannot be read" in tab.until("document.querySelector('main').innerText")
        (tmp_path / "outputs").mkdir()
        assert "python train.py" in tab.until(
            "(() => { const t = document.querySelector('main').innerText; return t.includes('No runs yet') && t; })()"
        )
        finish(write_run(tmp_path / "outputs" / "first", some_images()), 0.8)
        tab.until(f"JSON.stringify({NAMES}) === '[\"first\"]'")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def test_a_thousand_runs_open_in_seconds(tab, tmp_path):
    """Three seconds are the promise for a machine with nothing else to do; here other tests may be at work."""
    first = write_run(tmp_path / "runs" / "0", some_images(600))
    finish(first, 0.8)
    files = {path.name: path.read_text() for path in first.iterdir()}
    for number in range(1, 1000):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content.replace("lr: 0.05", f"lr: 0.0{number % 7 + 1}"))
    process = command(tmp_path / "runs", "--port", 0)
    try:
        address = re.search(r"http://\S+/", process.stdout.readline())[0]
        started = time.monotonic()
        tab.open(address)
        tab.until("document.querySelector('.dt-info')?.textContent.includes('of 1,000 runs')")
        tab.click(box("999"))
        tab.until("document.querySelectorAll('.legend li').length === 1")
        assert time.monotonic() - started < 12
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
