"""Small networks for tests of engrec.use: files of random weights, and networks that answer without weights."""

import numpy as np
import torch

from engrec.faces.crop import STANDARD
from engrec.faces.detect import Face
from engrec.importers import fer2013, wacv2016
from engrec.modules.engagement import EngagementModule
from engrec.modules.expression import ExpressionModule
from engrec.use.network import Network
from engrec.use.predict import Predictor

MODEL = {"_target_": "engrec.models.vgg.VGG", "norm": "batch", "width": 0.05, "dense": []}
IMAGES = {"channels": 1, "height": 48, "width": 48, "normalize": "image"}
OPTIMIZER = {"_target_": "torch.optim.SGD", "lr": 0.1}


def expressions(**changes):
    """What a checkpoint of an expression network holds."""
    torch.manual_seed(1)
    module = ExpressionModule(MODEL, OPTIMIZER, {}, list(fer2013.CLASS_NAMES), IMAGES)
    return content(module, "expression", "fer2013") | changes


def engagement(**changes):
    """What a checkpoint of an engagement network holds."""
    torch.manual_seed(2)
    module = EngagementModule(MODEL, OPTIMIZER, {}, list(wacv2016.CLASS_NAMES), IMAGES, [1, 2, 3])
    return content(module, "engagement", "wacv2016") | changes


def content(module, task, dataset):
    torch.nn.init.normal_(module.head.weight)  # so that the answers differ from face to face
    named = {"module": f"{type(module).__module__}.{type(module).__name__}", "task": task, "dataset": dataset}
    return {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 4, **named}


def fake(task="expression", class_names=("angry", "happy"), name=None):
    """A network without weights: the brighter the crop, the more certain is its last class."""

    def run(crops):
        bright = crops.reshape(len(crops), -1).mean(1) / 255
        rest = np.repeat(((1 - bright) / (len(class_names) - 1))[:, None], len(class_names) - 1, axis=1)
        return np.concatenate([rest, bright[:, None]], axis=1).astype(np.float32)

    return Network(
        name=name or task,
        source=f"{name or task}.ckpt",
        sha256="0" * 64,
        task=task,
        class_names=tuple(class_names),
        preprocessing=dict(IMAGES),
        dataset="fer2013",
        temperature=1.0,
        crop=STANDARD,
        engine="none",
        run=run,
    )


def bright_square(rgb):
    """A detector: the box around the pixels that are not black, or nothing."""
    rows, columns = (np.flatnonzero(rgb.max(axis=2).max(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    x, y = float(columns[0]), float(rows[0])
    return [Face((x, y, float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)), 0.9, None)]


def picture(x=10, y=10, side=40, value=200, size=(80, 120)):
    """rgb uint8, black but for a square."""
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[y : y + side, x : x + side] = value
    return rgb


def faking(*networks):
    """A predictor with networks and a detector that need no weights."""
    predictor = Predictor(networks or [fake(), fake("engagement", ("low", "high"))])
    predictor.in_photos = predictor.in_videos = bright_square
    return predictor
