"""The files of the page, the same for both engines, and what it is told of the networks."""

import html
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from engrec.faces.crop import SMALL
from engrec.use.answers import TIME_CONSTANT, Answerer
from engrec.use.colours import PAPERS, of_classes
from engrec.use.limits import INTENDED_USE, LIMITS
from engrec.use.predict import PHOTO_SIZE, VIDEO_SIZE, described
from engrec.use.rows import Columns

HERE = Path(__file__).parent
ABOUT, STYLE = "about.json", "style.css"
# What a browser lets the page do: run its own files, fetch nothing from elsewhere, send nothing anywhere.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src data: blob:; "
    "media-src blob: mediastream:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
Engine = Literal["local", "browser"]
ENGINES = {"local": "computed by Python on this machine", "browser": "computed in this browser"}
PLACES = {
    "local": "Pictures go to the Python on this machine and no further, and nothing is kept.",
    "browser": "Pictures stay in this browser, and nothing is kept.",
}


@cache
def files() -> dict[str, str]:
    """The page's scripts and its style, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in [*sorted(HERE.glob("*.js")), HERE / STYLE]}


def page(answerer: Answerer, engine: Engine) -> str:
    """The page itself, with the intended use on its first screen, which needs no script."""
    tasks = {network.task for network in answerer.networks}
    answers = {"expression": "how probable each expression is", "engagement": "how engaged the face looks"}
    said = {
        "policy": POLICY,
        "engine": ENGINES[engine],
        "place": PLACES[engine],
        "answers": " and ".join(text for task, text in answers.items() if task in tasks),
        "limits": LIMITS,
    }
    text = (HERE / "page.html").read_text(encoding="utf-8")
    for name, value in said.items():
        text = text.replace(f"{{{name}}}", html.escape(value))
    items = "".join(f"<li>{html.escape(line)}</li>\n" for line in INTENDED_USE)
    return text.replace("{intended_use}", items)


def about(answerer: Answerer, engine: Engine, networks: list[str] | None = None) -> str:
    """What the scripts are told, as JSON. networks: their files, for the engine in the browser."""
    columns = Columns(answerer)
    return json.dumps(
        {
            "engine": engine,
            "networks": [_network(answerer, k, networks) for k in range(len(answerer.networks))],
            "columns": columns.of_faces,
            "small": SMALL,
            "time_constant": TIME_CONSTANT,
            "photo_size": PHOTO_SIZE,
            "video_size": VIDEO_SIZE,
            "sidecar": _sidecar(answerer, networks),
        }
    )


def _sidecar(answerer: Answerer, files: list[str] | None) -> dict[str, Any]:
    """What is saved beside a CSV, but for what was read. files: the networks', where the browser computes; paths of
    the machine that wrote the page stay there."""
    of_videos = {"seconds_between_detections": 0.0, "seconds_between_frames": "as fast as they are answered"}
    found = described(answerer.networks, of_videos)
    if files is None:
        return found
    package = json.loads((HERE / "web" / "package.json").read_text(encoding="utf-8"))
    versions = {"engrec": found["versions"]["engrec"], **package["dependencies"]}
    engine = f"onnxruntime-web {versions['onnxruntime-web']}, wasm"
    here = [{"source": name, "engine": engine} for name in files]
    weights = [one | changed for one, changed in zip(found["weights"], here, strict=True)]
    return found | {"weights": weights, "versions": versions}


def _network(answerer: Answerer, k: int, files: list[str] | None) -> dict[str, Any]:
    network = answerer.networks[k]
    return {
        "name": answerer.names[k],
        "task": network.task,
        "trained_on": network.dataset,
        "known_crop": network.crop is not None,
        "class_names": list(network.class_names),
        "class_colours": {paper: of_classes(network.class_names, paper) for paper in PAPERS},
        "size": network.size,
        "colour": network.colour,
        "file": None if files is None else files[k],
    }
