"""The exported page: one file that fetches nothing, in which text of files is never markup."""

import base64
import gzip
import hashlib
import json
import re
from types import SimpleNamespace

import pytest
from dashboard_runs import MARKUP, looked, made

from engrec.pages.dashboard import html
from engrec.pages.dashboard.answers import Details
from engrec.runs import status


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two runs, one of which says in every place what would be markup."""
    root = tmp_path_factory.mktemp("page")
    made(root / "run")
    end = "</script><script>document.title=1</script>"
    folder = made(root / "odd", settings={f"x{MARKUP}": MARKUP, "monitor": end}, choices={"model": MARKUP})
    (folder / "train.log").write_text(end)
    status.write(folder, status.Status("failed", error=MARKUP + end, command=end))
    outputs = looked(root)
    return "".join(html.exported(outputs, Details(outputs, False), MARKUP))


def scripts_of(page):
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)


def test_an_exported_page_fetches_nothing(page):
    outside = re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=|@import|url\(", outside.replace('href="#', ""))
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", re.search("<style>(.*?)</style>", page, re.DOTALL)[1])
    [allowed] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#x27;none&#x27;" in allowed
    assert "http" not in allowed


def test_every_script_of_an_exported_page_is_allowed_by_its_hash_and_no_other(page):
    [allowed] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    hashes = re.findall(r"sha256-([^&]+)&", allowed)
    sources = scripts_of(page)
    assert len(sources) == len(html.scripts()) == 8
    assert [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources] == hashes
    assert "unsafe-inline" not in allowed.partition("style-src")[0]


def test_text_of_files_is_nowhere_markup(page):
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "document.title=1</script>" not in page
    data = re.findall(r'<script type="application/json" id="([^"]*)">(.*?)</script>', page, flags=re.DOTALL)
    packed = re.findall(r'<script type="text/plain" id="([^"]*)">(.*?)</script>', page, flags=re.DOTALL)
    state = dict(data)["state"]
    assert "<" not in "".join(text for _, text in data)
    assert MARKUP in {run["model"] for run in json.loads(state)["runs"]}
    questions = {"history", "texts", "tested", "mistakes", "group", "intervals"}
    assert {name for name, _ in data} == {"constants", "state"}
    assert {name.partition("/")[0] for name, _ in packed} == questions
    assert all(re.fullmatch(r"[\w+/=]+", text) for _, text in packed)


def test_an_exported_page_holds_every_answer(page):
    packed = dict(re.findall(r'<script type="text/plain" id="([^"]*)">(.*?)</script>', page, flags=re.DOTALL))
    unpacked = {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in packed.items()}
    assert {len(answer["charts"]) for name, answer in unpacked.items() if name.startswith("tested/")} == {4}
    assert unpacked["intervals/all"]["chart"]["figure"]["data"]


def test_our_scripts_make_no_markup_of_text():
    ours = "".join(html.scripts()[name] for name in html.OURS)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", ours)
    assert not re.search(r"https?://", ours)


def test_the_installed_itables_has_what_the_table_needs():
    """It fails after an upgrade of itables that is built otherwise."""
    script, style = html.data_tables()
    assert not re.search(r"export\s*\{", script)
    assert "window.DataTable=" in script
    for feature in ("columnControl", "colvis", "deferRender", "DataTable.type"):  # which table.js uses
        assert feature.rpartition(".")[2] in script
    assert ".dtcc" in style
    assert "table.dataTable" in style


@pytest.mark.parametrize("files", [{}, {"dt_bundle.js": "export default 1", "dt_bundle.css": ""}])
def test_an_unknown_version_of_itables_is_an_error_in_one_line(tmp_path, monkeypatch, files):
    (tmp_path / "html").mkdir()
    for name, text in files.items():
        (tmp_path / "html" / name).write_text(text)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(html.importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="another version of itables"):
        html.data_tables.__wrapped__()
