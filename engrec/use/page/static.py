"""The page as files for any host: the browser computes, with onnxruntime-web and the networks as ONNX."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from engrec.faces import detect
from engrec.machine.files import atomic_write, check_replaceable, write_text
from engrec.use.answers import Answerer
from engrec.use.network import ONNX, load_network
from engrec.use.page import contents
from engrec.use.predict import sources_of

INDEX = "index.html"
NETWORK = re.compile(r"network\d+\.onnx")
WEB = contents.HERE / "web"
DIST = WEB / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
LICENCES = (detect.PATH.with_name("LICENSE-yunet.txt"), WEB / "LICENSE-onnxruntime.txt")


def export(weights: list[str] | None, folder: Path) -> int:
    """Write the page and all it needs to the folder; returns the number of bytes. weights: as `Predictor.load` takes
    them. Raises ValueError where `make web` was not run, for a folder with other content, and for weights that cannot
    be used."""
    sources = sources_of(weights)
    check_runtime()
    check_replaceable(folder, others)
    with TemporaryDirectory() as temporary:
        graphs = [graph(source, Path(temporary, str(k))) for k, source in enumerate(sources)]
        answerer = Answerer([load_network(str(path)) for path in graphs])
        names = [f"network{k}.onnx" for k in range(len(graphs))]  # what a folder is called may be no address
        write_text(folder / contents.ABOUT, contents.about(answerer, "browser", names))  # first: the folder is ours
        for source, name in zip(graphs, names, strict=True):
            copy(source, folder / name)
    for source in (detect.PATH, *LICENCES, *(DIST / name for name in RUNTIME)):
        copy(source, folder / source.name)
    for name, text in contents.files().items():
        write_text(folder / name, text)
    write_text(folder / INDEX, contents.page(answerer, "browser"))
    for path in folder.iterdir():
        if NETWORK.fullmatch(path.name) and path.name not in names:
            path.unlink()
    return sum(path.stat().st_size for path in folder.iterdir())


def check_runtime() -> None:
    """Raise ValueError where onnxruntime-web is not there."""
    if missing := [name for name in RUNTIME if not (DIST / name).is_file()]:
        raise ValueError(f"the page needs onnxruntime-web ({missing[0]}): run `make web`, which needs npm, once")


def others(folder: Path) -> list[str]:
    """What is in the folder, but not a page's."""
    ours = {INDEX, contents.ABOUT, *contents.files(), *RUNTIME, detect.PATH.name, *(path.name for path in LICENCES)}
    found = {path.name for path in folder.iterdir() if not NETWORK.fullmatch(path.name)}
    return sorted(found - ours)


def graph(source: str, folder: Path) -> Path:
    """The network as ONNX: the file itself, or one that is written below the folder and has the same name."""
    network = load_network(source)
    if source.lower().endswith(ONNX):
        return Path(source)
    from engrec.use import onnx
    from engrec.use.export import export as exported

    onnx.check_installed("--export")
    exported(source, folder / network.name, as_onnx=True)
    return folder / network.name / onnx.FOLDER / onnx.FLOAT


def copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, atomic_write(target, "wb") as file:
        shutil.copyfileobj(given, file)
