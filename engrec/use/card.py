"""The model card of an exported network: Markdown that a person reads, with YAML in front that the hub reads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engrec import checkpoint, weights_file
from engrec.errors import CONF, quoted, shell_line
from engrec.evidence.comparison import Comparison, Figure
from engrec.evidence.verdicts import judge_alone
from engrec.faces.crop import STANDARD, crop_of
from engrec.importers.files import RESIZE
from engrec.metrics import ERRORS_IN_TABLES, METRICS
from engrec.modules.classifier import Classifier
from engrec.runs.record import Run
from engrec.use import onnx
from engrec.use.int8 import Agreement
from engrec.use.measured import Measured, differences, has_tested, why_none
from engrec.words import counted

KAGGLE = "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"
FER2013 = (
    "FER-2013: 35,887 grey faces of 48×48 pixels, collected from the web by a search engine, seven expressions. "
    "Whether the people in the photographs agreed is not known."
)
FER2013_TERMS = (
    f"It was published for a challenge of 2013 and is distributed by [Kaggle]({KAGGLE}) on the terms stated there; the "
    "rights in the photographs stay with their owners."
)
LEVELS = "each with one of four levels of engagement that annotators saw in it"
AGREEMENT = (
    "Its clips are given for research alone, to those who sign an agreement, and may not be passed on; none of its "
    "images is here."
)
# Data set to what it is, where it comes from and on which terms; docs/data.md says more.
DATA = {
    "fer2013": f"{FER2013} One annotator labelled each; a later study (FER+) changed the labels of many. "
    f"{FER2013_TERMS}",
    "ferplus": "FER+: the votes of ten annotators for the faces of FER-2013, eight expressions, published by "
    f"[Microsoft](https://github.com/microsoft/FERPlus). {FER2013} {FER2013_TERMS}",
    "wacv2016": "WACV-2016 (Kamath et al., WACV 2016): faces of learners, each with one of three levels of engagement "
    "that annotators saw in it; 17 of its 22 people are in the distribution that engrec's results use. It is for "
    "research and comes from its authors, on their terms; none of its images is here.",
    "daisee": f"DAiSEE (Gupta et al., 2016): 9,068 clips of 10 s of 112 people, {LEVELS}. It comes from "
    f"[IIT Hyderabad](https://people.iith.ac.in/vineethnb/resources/daisee/index.html). {AGREEMENT}",
    "engagenet": f"EngageNet (Singh et al., ICMI 2023): 11,311 clips of 10 s of 127 people, {LEVELS}. It comes from "
    f"its authors at IIT Ropar ([arXiv 2302.00431](https://arxiv.org/abs/2302.00431)). {AGREEMENT}",
    "engagewild": "EngageWild of the EmotiW challenges (Kaur et al., DICTA 2018): videos of about five minutes, "
    f"{LEVELS}. {AGREEMENT}",
    "synthetic": "Faces rendered by engrec from facial action units. No person is in them, and nothing about people "
    "follows.",
}
UNKNOWN = (
    "**To be filled in by the author of this network:** where the images come from, on which terms, who is in them, "
    "whether they agreed, and who labelled them how."
)
MUST_NOT = """\
- Judging, grading, ranking or monitoring learners or workers, or anything that decides about a person.
- Watching people who do not know it or cannot refuse.
- Inferring emotions of people at work or in education in the European Union, except for medical or safety reasons:
  Article 5(1)(f) of Regulation (EU) 2024/1689, the AI Act, prohibits placing such systems on the market, putting them
  into service, or using them."""
LIMITS = {
    "engagement": "A label is what an annotator thought of a picture, not what the learner felt or learned.",
    "expression": "A label is what an annotator thought of a face, not what the person felt.",
}
HUB = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "f1": "f1", "auc": "roc_auc"}  # its names


@dataclass(frozen=True, eq=False)
class Graphs:
    """A network as ONNX: the content of its file, and the largest difference of a probability from torch's; the content
    of the file in 8 bits, and how far that agrees, if there is one."""

    content: bytes
    apart: float
    int8: bytes | None = None
    agreement: Agreement | None = None


@dataclass(frozen=True, eq=False)
class About:
    """What a card says. source: the checkpoint as it was given; saved: what is in it, with
    its temperature and provenance; trained: the run that it lies in; measured: from where the scores come; notes:
    Markdown of the author's own; folder: in which it is written; graphs: the network as ONNX, if that is written."""

    source: str
    saved: dict[str, Any]
    network: Classifier
    trained: Run | None
    measured: Measured | None
    half: bool
    licence: str
    notes: str
    folder: Path
    graphs: Graphs | None = None

    @property
    def task(self) -> str:
        return checkpoint.task_of(self.saved)

    @property
    def dataset(self) -> str:
        return self.saved.get("dataset") or "unknown"

    @property
    def parameters(self) -> dict[str, Any]:
        return self.saved["hyper_parameters"]

    @property
    def location(self) -> str:
        """What init_from= and ckpt_path= take."""
        if self.folder.resolve().parent == weights_file.SHIPPED.resolve():
            return f"{weights_file.PREFIX}{self.folder.resolve().name}"
        return f"{self.folder.resolve().name}/{weights_file.NAME}"

    @property
    def num_people(self) -> int | None:
        """How many it is scored on; None if that is unknown."""
        group = None if self.measured is None else self.measured.group
        return len(set(group.people)) if group is not None and group.by_subject else None


def text(about: About) -> str:
    """The whole card."""
    sections = {
        "Must not be used for": MUST_NOT,
        "Scores": scores(about),
        "Training": training(about),
        "Images": images(about),
        "Load it": loading(about),
        "Without PyTorch": "" if about.graphs is None else without_torch(about, about.graphs),
        "Notes": about.notes.strip(),
    }
    body = [f"## {title}\n\n{content}" for title, content in sections.items() if content]
    return f"---\n{front_matter(about)}---\n\n" + "\n\n".join([opening(about), *body]) + "\n"


def front_matter(about: About) -> str:
    """YAML as the hub reads it."""
    tags = ["pytorch", "face", f"{'facial-' if about.task == 'expression' else ''}{about.task}-recognition"]
    matter: dict[str, Any] = {
        "license": about.licence,
        "library_name": "engrec",
        "pipeline_tag": "image-classification",
        "tags": tags,
    }
    if about.measured is not None:
        matter |= {"metrics": list(HUB.values()), "model-index": [model_index(about, about.measured)]}
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=120)


def model_index(about: About, measured: Measured) -> dict[str, Any]:
    metrics = hub_metrics(measured.comparison)
    if measured.clips is not None:
        metrics += [metric | {"name": f"{metric['type']} per clip"} for metric in hub_metrics(measured.clips)]
    data = measured.group.name["data"]
    tested = {"name": data, "type": data, "split": measured.group.name["split"]}
    result = {"task": {"type": "image-classification"}, "dataset": tested, "metrics": metrics}
    return {"name": about.folder.resolve().name, "results": [result]}


def hub_metrics(block: Comparison) -> list[dict[str, Any]]:
    """Type and value of each that the hub knows, of the network itself."""
    figures = block.figures[block.labels[0]]
    values = {hub: figures[METRICS[key].label].value for key, hub in HUB.items()}
    return [{"type": name, "value": round(value, 4)} for name, value in values.items() if not np.isnan(value)]


def opening(about: About) -> str:
    names, size = about.parameters["class_names"], sum(p.numel() for p in about.network.parameters())
    what = "engagement" if about.task == "engagement" else "facial expressions"
    network = about.parameters["model"]["_target_"].rpartition(".")[2]
    lines = [
        f"# {about.folder.resolve().name}",
        f"A network of engrec that classifies face images by {what}: {', '.join(names)}. {network} with {size:,} "
        f"parameters, in {'half precision' if about.half else 'float32'}. {LIMITS[about.task]}",
    ]
    if about.dataset == "synthetic":
        lines.append("**A test of the software.** It was trained on synthetic faces, and knows nothing about people.")
    elif about.task == "engagement":
        number = None if about.trained is None else (about.trained.result.get("num_people") or {}).get("train")
        people = "few people" if number is None else counted(number, "person", "people")
        lines.append(
            f"**Research demonstration.** It has learned from {people}. Nothing is known about people unlike them: "
            "their age, skin colour, disabilities and culture are not recorded. It is not fit for any use on learners."
        )
    return "\n\n".join(lines)


def of_source(source: str) -> Path | None:
    """The card beside exported weights that are exported again."""
    file = weights_file.located(source)
    card = file.with_name("README.md")
    return card if file.suffix == weights_file.SUFFIX and card.is_file() else None


def licence_of(card: Path) -> str:
    found = re.search(r"^license: (\S+)$", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[1] if found else "unknown"


def scores(about: About) -> str:
    measured = about.measured
    if measured is None and (card := of_source(about.source)):
        where = f"engrec/weights/{card.parent.name}/README.md" if weights_file.is_shipped(about.source) else card
        return f"Those of {about.source}, from which these weights were exported, are on its card: `{where}`."
    if measured is None:
        return f"None: {why_none(about.trained, about.saved)}."
    block, group = measured.comparison, measured.group
    unit = "images" if group.clips is None else "clips"
    over = f"{about.num_people} people" if group.by_subject else f"{unit} (who is in them is unknown)"
    several = f"; ± is the standard deviation over {len(group.seeds)} seeds" if len(group.seeds) > 1 else ""
    legend = f"In per cent; in brackets 95 % intervals from a bootstrap over {over}{several}."
    temperature = f"Temperature {about.saved['temperature']:.3f}, {measured.fitted}" + (
        ": the probabilities are not calibrated."
        if about.saved["temperature"] == 1
        else ": divide the logits by it for calibrated probabilities."
    )
    errors = ERRORS_IN_TABLES if block.ordered else ""
    parts = [*scored(block, f"{legend} {errors}".strip(), whose(about, measured)), temperature]
    if measured.clips is not None:
        parts += scored(measured.clips, "Per clip: its probabilities are the mean of those of its frames.")
    return "\n\n".join(parts)


def scored(block: Comparison, *remarks: str) -> list[str]:
    """Paragraphs: the title of a comparison, its table, remarks and verdicts."""
    verdicts = "\n".join(f"- {verdict.text}" for verdict in judge_alone(block))
    return [f"{block.title}.", table(block), *filter(None, [*remarks, verdicts])]


def table(block: Comparison) -> str:
    names = list(next(iter(block.figures.values())))
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[label.replace("|", "/"), *map(_cell, figures.values())] for label, figures in block.figures.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(figure: Figure) -> str:
    return " ".join(figure.parts())


def whose(about: About, measured: Measured) -> str:
    """Which networks were scored; empty if it is this one alone."""
    trained, runs = about.trained, measured.group.runs
    own = any(is_of(run, about) for run in runs)
    if own and len(runs) == 1:
        return ""
    folds = sorted({str(run.settings.get("split.fold")) for run in runs})
    of_folds = f" (folds {', '.join(folds)})" if len(folds) > 1 else ""
    sentences = [
        f"These are scores of {len(runs)} networks{of_folds}, {'this one among them' if own else 'not of this one'}; "
        "each was tested on what it has not learned from."
    ]
    if trained is not None:
        other = differences(trained, runs)
        sentences.append(f"Settings that differ between them and this one: {', '.join(other) or 'only the split'}.")
    if learned_from_all(trained):
        sentences.append("This one has learned from all of these images.")
    return " ".join([*sentences, f"The first of them: `{runs[0].result.get('command')}`."])


def is_of(run: Run, about: About) -> bool:
    """Whether a run has trained or tested this very checkpoint."""
    tested = run.settings.get("ckpt_path") if run.kind["stage"] == "test" else None
    if tested is not None and Path(tested).resolve() == Path(about.source).resolve():
        return True
    same = about.trained is not None and run.folder.resolve() == about.trained.folder.resolve()
    return same and has_tested(run, about.saved)


def learned_from_all(trained: Run | None) -> bool:
    """Whether nobody was left to test it on."""
    return trained is not None and trained.kind["split"] == "everyone"


def training(about: About) -> str:
    origin, result = about.saved["provenance"], {} if about.trained is None else about.trained.result
    parts = [DATA.get(about.dataset, f"Data set {about.dataset}. {UNKNOWN}")]
    if excluded := ((result.get("dataset") or {}).get("excluded_from_training")):
        kinds = ", ".join(f"{kind} {count}" for kind, count in excluded["of_each_kind"].items())
        parts.append(f"Left out of training: {excluded['images']} images ({kinds}).")
    if origin.get("command"):
        parts.append(f"```bash\n{origin['command']}\n```")
    parts.append(", ".join(facts(about, result)) + ".")
    return "\n\n".join(parts)


def facts(about: About, result: dict[str, Any]) -> Iterator[str]:
    origin = about.saved["provenance"]
    yield f"Epoch {about.saved.get('epoch', 0) + 1}"
    if result:
        yield f"seed {result['seed']}"
        count = (result.get("num_images") or {}).get("train")
        yield "trained on all images" if learned_from_all(about.trained) else f"{count} training images"
    yield f"commit {origin.get('commit') or 'unknown'}"
    start = None if about.trained is None else about.trained.settings.get("init_from")
    if start:
        yield f"fine-tuned from {start}"
    if hardware := result.get("hardware"):
        yield f"on {', '.join(hardware.get('gpus') or []) or hardware.get('cpu')}"
    yield f"engrec {origin['engrec']}"


def images(about: About) -> str:
    size = about.parameters["preprocessing"]
    colour = "grey (ITU-R 601-2)" if size["channels"] == 1 else "colour"
    return (
        f"One face each, {colour}, {size['height']}×{size['width']} pixels. {cropping(about)} Each image is then "
        "brought to mean 0 and standard deviation 1."
    )


def cropping(about: About) -> str:
    crop = crop_of(about.parameters["preprocessing"].get("crop"), about.dataset)
    if crop is None:
        return "How they were cropped is not recorded: crop yours as the training images were."
    if difference := crop.difference(STANDARD):
        return f"They are cropped with {difference} as engrec crops now; the whole recipe is in `config.json`."
    return (
        "Crop the square of the longer side of the face detector's box, on its centre, without a margin; where the "
        "square leaves the picture, repeat its edge. Turn faces upright that lean by more than 15°. "
        f"Resize: {RESIZE}. A crop with a margin of 30 % cost the networks of engrec several points of accuracy."
    )


def loading(about: About) -> str:
    overrides, where = checkpoint.overrides_of(about.parameters["model"]), about.location
    public = (CONF / "dataset" / f"{about.dataset}.yaml").is_file() and about.task == "expression"
    own = "dataset=prepared dataset.path=data/mine.npz"
    data = f"dataset={about.dataset}" if public else "dataset=prepared dataset.path=data/others.npz split=holdout"
    shape = "(B, {channels}, {height}, {width})".format(**about.parameters["preprocessing"])
    start, tested = (shell_line([f"{key}={quoted(where)}"]) for key in ("init_from", "ckpt_path"))
    return f"""\
```bash
# fine-tune it on your own engagement data
python train.py stage=finetune {overrides} {start} {own} split=kfold split.fold=0

# test it on other data with the same classes
python train.py stage=test {tested} {data}
```

```python
import torch

from engrec import checkpoint
from engrec.modules.build import loaded_module
from engrec.transforms import standardize, to_float

saved = checkpoint.read("{where}")
network = loaded_module("{where}", saved)
images = torch.zeros{shape.replace("B", "1")}.to(torch.uint8)  # {shape}, uint8
with torch.inference_mode():
    logits = network(standardize(to_float(images)))
probabilities = (logits / saved["temperature"]).softmax(1)  # of {", ".join(about.parameters["class_names"])}
```

The file is read without pickle; `config.json` is what its header holds."""


def without_torch(about: About, graphs: Graphs) -> str:
    """How to use the ONNX files."""
    shape = "(B, {channels}, {height}, {width})".format(**about.parameters["preprocessing"])
    folder, num_classes = about.folder.resolve().name, len(about.parameters["class_names"])
    small = ""
    if graphs.int8 is not None:
        small = (
            f"`{onnx.FOLDER}/{onnx.INT8}` ({len(graphs.int8) / 1e6:.2f} MB) is the same in 8-bit integers, and takes "
            f"its place: {graphs.agreement}."
        )
    size = f"{len(graphs.content) / 1e6:.2f} MB"
    text = f"""\
`{onnx.FOLDER}/{onnx.FLOAT}` ({size}) takes uint8 images, any number at once, and returns probabilities: scaling,
standardising and temperature are in the graph. It needs `pip install onnxruntime` alone.

```python
import json
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is loaded, which else sends events to Microsoft
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{folder}/{onnx.FOLDER}/{onnx.FLOAT}")
class_names = json.loads(session.get_modelmeta().custom_metadata_map["{onnx.KEY}"])["class_names"]
images = np.zeros({shape.replace("B", "1")}, np.uint8)  # {shape}, cropped as above
[probabilities] = session.run(["{onnx.OUTPUT}"], {{"{onnx.INPUT}": images}})  # (B, {num_classes})
```"""
    return "\n\n".join(filter(None, [text, small]))
