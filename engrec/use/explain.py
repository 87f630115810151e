"""What an answer of a network depends on: a LayerCAM map of each image, and the deletion score, which checks the maps.

LayerCAM is of Jiang et al. (LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE TIP 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from engrec import checkpoint
from engrec.config import check_missing, composed
from engrec.data import DataModule, divide
from engrec.datasets.prepared import Faces
from engrec.errors import quoted
from engrec.evidence.statistics import Draws, interval
from engrec.modules.build import tested_module
from engrec.modules.classifier import Classifier
from engrec.transforms import standardize, to_float

TAKEN = ("dataset", "split")  # overrides; the rest is the checkpoint's
BATCH_SIZE = 32
SHARES = (0.1, 0.3)  # of the pixels that are blurred
BLUR = 1 / 8  # standard deviation of the Gaussian, in sides of the image
# By what pixels are blurred: the image's map, a random one, another image's.
RANKINGS: tuple[str, ...] = ("map", "random", "other")


@dataclass(frozen=True, eq=False)
class Material:
    """A network and the test images (M,) of a data set, as indices; caution: why its scores are no result, or empty."""

    source: str
    network: Classifier
    faces: Faces
    test: np.ndarray
    temperature: float
    caution: str


@dataclass(frozen=True)
class Deletion:
    """How far the probability of the answer falls where this share of the pixels is blurred, in the order of each of
    RANKINGS: means over images. better: the map's less the random one's, with its 95 % interval."""

    share: float
    falls: dict[str, float]
    better: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Shown:
    """Images of one kind, the most confident first: index (M,) into the data set, predicted class (M,), its probability
    (M,), map (M, H, W) in 0 … 1; of how many they are the first."""

    kind: str
    index: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    maps: np.ndarray
    of: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """layer: the name of the layer whose maps were taken; size: their height and width; by_person: whether people were
    drawn for the intervals, and not images."""

    material: Material
    layer: str
    size: tuple[int, int]
    shown: list[Shown]
    deletions: list[Deletion]
    num_images: int
    by_person: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        faces = self.material.faces
        rows = [
            {
                "kind": part.kind,
                "source": str(faces.sources[i]),
                "subject": None if faces.subjects is None else str(faces.subjects[i]),
                "label": faces.class_names[faces.labels[i]],
                "predicted": faces.class_names[k],
                "probability": round(float(p), 6),
            }
            for part in self.shown
            for i, k, p in zip(part.index, part.predicted, part.probability, strict=True)
        ]
        return {
            "checkpoint": self.material.source,
            "dataset": faces.title,
            "layer": self.layer,
            "map_size": list(self.size),
            "num_test_images": len(self.material.test),
            "deletion": {
                "num_images": self.num_images,
                "interval": f"95 %, bootstrap over {'people' if self.by_person else 'images'}",
                "shares": [
                    {
                        "share": one.share,
                        **{f"fall_{name}": round(value, 6) for name, value in one.falls.items()},
                        "map_less_random": round(one.better, 6),
                        "low": None if np.isnan(one.low) else round(one.low, 6),
                        "high": None if np.isnan(one.high) else round(one.high, 6),
                    }
                    for one in self.deletions
                ],
            },
            "images": rows,
        }


def read(source: str, overrides: Sequence[str]) -> Material:
    """A checkpoint, and the test images of dataset= and split= as stage=test has them.

    Raises ValueError for another override, and for what is missing; CheckpointError for a checkpoint that does not fit.
    """
    keys = [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides]
    if useless := [o for o, key in zip(overrides, keys, strict=True) if key.partition(".")[0] not in TAKEN]:
        raise ValueError(f"{' '.join(useless)} has no effect on an explanation; allowed: {'=, '.join(TAKEN)}=")
    saved = checkpoint.read(source)
    cfg = composed(["stage=test", f"ckpt_path={quoted(source)}", f"task={checkpoint.task_of(saved)}", *overrides])
    check_missing(cfg.dataset)
    check_missing(cfg.split)
    faces, strategy = instantiate(cfg.dataset, _convert_="all"), instantiate(cfg.split)
    split = divide(faces, strategy)
    network = tested_module(source, saved, DataModule(faces, split, lambda images: images, BATCH_SIZE))
    caution = strategy.caution if strategy.leaks else ""
    return Material(source, network, faces, split.test, saved.get("temperature", 1.0), caution)


def explain(material: Material, per_kind: int = 8, num_images: int = 200, seed: int = 0) -> Explanation:
    """Maps of the most confident right and wrong test images, and the deletion scores of so many random ones.

    Raises ValueError for a network without convolutional maps, and for numbers out of their range.
    """
    if not 1 <= per_kind <= 50:
        raise ValueError(f"--per-row {per_kind} must be from 1 to 50")
    if num_images < 2:
        raise ValueError(f"--images {num_images} must be at least 2")
    if seed < 0:
        raise ValueError(f"--seed {seed} must be 0 or more")
    network, faces, test = material.network, material.faces, material.test
    layer, size = map_layer(network, faces.images[test[:1]])
    p = np.concatenate([probabilities(network, part, material.temperature) for part in batches(faces.images[test])])
    right = p.argmax(1) == faces.labels[test]
    kinds = {"right": np.flatnonzero(right), "wrong": np.flatnonzero(~right)}
    shown = [most_confident(material, kind, members, p, layer, per_kind) for kind, members in kinds.items()]
    rng = np.random.default_rng(seed)
    some = np.sort(rng.permutation(len(test))[:num_images])
    by_person = faces.subjects is not None
    groups = faces.subjects[test[some]] if faces.subjects is not None else some
    falls = deletion(network, faces.images[test[some]], layer, size, material.temperature, rng)
    return Explanation(material, layer, size, shown, summarized(falls, groups), len(some), by_person)


def most_confident(material: Material, kind: str, members: np.ndarray, p: np.ndarray, layer: str, most: int) -> Shown:
    """members: of the test images, whose probabilities are p (M, K)."""
    surest = members[np.argsort(-p[members].max(1), kind="stable")][:most]
    index, predicted = material.test[surest], p[surest].argmax(1)
    images = material.faces.images[index]
    parts = zip(batches(images), batches(predicted), strict=True)
    maps = [layer_cam(material.network, part, classes, layer) for part, classes in parts]
    empty = np.empty((0, *images.shape[2:]), np.float32)
    return Shown(kind, index, predicted, p[surest].max(1), np.concatenate([empty, *maps]), len(members))


def batches(array: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + BATCH_SIZE] for start in range(0, len(array), BATCH_SIZE)]


def network_input(images: np.ndarray) -> Tensor:
    """Images (B, C, H, W), in 0 … 255, as the network takes them."""
    return standardize(to_float(torch.from_numpy(np.ascontiguousarray(images))))


def probabilities(network: nn.Module, images: np.ndarray, temperature: float) -> np.ndarray:
    """float64 (B, K) of images (B, C, H, W), in 0 … 255."""
    with torch.inference_mode():
        return (network(network_input(images)).double() / temperature).softmax(1).numpy()


def map_layer(network: Classifier, images: np.ndarray) -> tuple[str, tuple[int, int]]:
    """The layer that is explained, by name, and the size of its maps: the last one of the backbone whose maps have half
    of the image's side or more, or if there is none, the last of those with the largest maps. Later maps see more of
    the face but are so coarse that eyes and brows become one.

    Raises ValueError for a network whose layers give no maps (B, C, H, W).
    """
    sizes: dict[str, tuple[int, int]] = {}  # in the order in which they are computed

    def noted(name: str) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                sizes.pop(name, None)
                sizes[name] = (output.shape[2], output.shape[3])

        return note

    leaves = [(name, part) for name, part in network.backbone.named_modules() if not [*part.children()]]
    hooks = [part.register_forward_hook(noted(name)) for name, part in leaves]
    try:
        probabilities(network, images, 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    if not sizes:
        name = type(network.backbone).__name__
        raise ValueError(f"{name} has no convolutional maps, so LayerCAM has nothing to show: set another checkpoint")
    half = min(images.shape[2:]) // 2
    best = max(min(*size, half) for size in sizes.values())
    return [(name, size) for name, size in sizes.items() if min(*size, half) == best][-1]


def layer_cam(network: Classifier, images: np.ndarray, classes: np.ndarray, layer: str) -> np.ndarray:
    """float32 (B, H, W) in 0 … 1 of images (B, C, H, W): at each place, how much the maps of a layer of the backbone
    speak for these classes (B,), relative to the strongest place of the image; all 0 where nothing does.

    That is the sum over channels of relu(gradient) × activation.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        kept.append(output.clone())  # the next layer may write into the output itself
        return kept[-1]

    given = network_input(images).requires_grad_()  # the weights may be frozen
    hook = network.backbone.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = network(given)
            wanted = logits.gather(1, torch.from_numpy(classes)[:, None]).sum()
            (gradient,) = torch.autograd.grad(wanted, kept[-1])
    finally:
        hook.remove()
    cam = (gradient.relu() * kept[-1].detach()).sum(1, keepdim=True).relu()
    return enlarged(cam, images.shape[2:])


def enlarged(maps: Tensor, size: Sequence[int]) -> np.ndarray:
    """float32 (B, H, W) in 0 … 1 of maps (B, 1, h, w)."""
    maps = F.interpolate(maps.float(), size=tuple(size), mode="bilinear")[:, 0]
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / torch.where(largest > 0, largest, 1)).numpy()


def deletion(
    network: Classifier,
    images: np.ndarray,
    layer: str,
    size: tuple[int, int],
    temperature: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, shares, rankings): how far the probability of the answer falls for images uint8 (N, C, H, W), where the
    pixels that each of RANKINGS places first are blurred."""
    p = np.concatenate([probabilities(network, part, temperature) for part in batches(images)])
    classes = p.argmax(1)
    parts = zip(batches(images), batches(classes), strict=True)
    maps = np.concatenate([layer_cam(network, part, which, layer) for part, which in parts])
    noise = enlarged(torch.from_numpy(rng.random((len(images), 1, *size))), images.shape[2:])  # as coarse as the maps
    ranked = dict(zip(RANKINGS, (maps, noise, np.roll(maps, 1, axis=0)), strict=True))
    before = p[np.arange(len(p)), classes]
    falls = np.empty((len(images), len(SHARES), len(RANKINGS)))
    for s, share in enumerate(SHARES):
        for r, ranking in enumerate(ranked.values()):
            changed = blurred(images, ranking, share)
            after = np.concatenate([probabilities(network, part, temperature) for part in batches(changed)])
            falls[:, s, r] = before - after[np.arange(len(p)), classes]
    return falls


def blurred(images: np.ndarray, maps: np.ndarray, share: float) -> np.ndarray:
    """float32 (N, C, H, W) of images uint8: this share of the pixels, where the maps (N, H, W) are largest, is that of
    a blurred image."""
    pixels = images.astype(np.float32)
    sigma = BLUR * min(images.shape[2:])
    soft = gaussian_filter(pixels, (0, 0, sigma, sigma), mode="nearest")
    flat = maps.reshape(len(maps), -1)
    first = np.argsort(-flat, axis=1, kind="stable")[:, : round(share * flat.shape[1])]
    chosen = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(chosen, first, True, axis=1)
    return np.where(chosen.reshape(len(maps), 1, *maps.shape[1:]), soft, pixels)


def summarized(falls: np.ndarray, groups: np.ndarray) -> list[Deletion]:
    """groups (N,): the people or images that are drawn for the intervals."""
    draws = Draws.sample(groups)
    counts = draws.sums(np.ones((len(falls), 1)))[:, 0]
    found = []
    for s, share in enumerate(SHARES):
        means: dict[str, float] = dict(zip(RANKINGS, falls[:, s].mean(0).tolist(), strict=True))
        better = falls[:, s, RANKINGS.index("map")] - falls[:, s, RANKINGS.index("random")]
        low, high = interval(draws.sums(better[:, None])[:, 0] / counts, draws.num_groups)
        found.append(Deletion(share, means, float(better.mean()), low, high))
    return found
