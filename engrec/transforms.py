"""Functions from an image batch (B, C, H, W) to an image batch, on the batch's device; randomness is per image.

Order of use: to_float, Augment (training only), standardize, Mixup (training only). The functions of views return
several batches for one; each is standardised afterwards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from engrec.ranges import Positive, Range, Share, check, expected


def to_float(images: Tensor) -> Tensor:
    """uint8 -> float32 in 0 … 1."""
    return images.float().div_(255)


def standardize(images: Tensor) -> Tensor:
    """Each image, expected in 0 … 1, scaled to mean 0 and standard deviation 1; a blank image becomes zeros."""
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    std = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()  # torch.std takes ten times as long on a CPU
    # One pixel off by one grey level is a deviation of 8e-5 at 48×48; below 1e-6 is rounding.
    return centred * torch.where(std > 1e-6, 1 / std, 0)


def pad_crop(images: Tensor, padding: int) -> Tensor:
    """A window of the image's size, at whole pixels, from the image with `padding` black pixels around it."""
    top, left = torch.randint(2 * padding + 1, (2, len(images)), device=images.device)
    windows = F.pad(images, (padding,) * 4).unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def affine(
    images: Tensor,
    flip: float,
    rotation: float,
    scale: float,
    translation: float,
    mirrored: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Mirror, rotate, zoom, shift and resize in one bilinear sampling; what comes from outside repeats the nearest edge
    pixel, as black corners would shift the mean that standardize subtracts.

    flip: probability. rotation: at most this many degrees either way. scale: zoom between 1 - scale and 1 + scale.
    translation: at most this fraction of the side either way. mirrored: which images are mirrored (B,), in the place of
    a probability. size: height and width of the result, by default those of the images.
    """
    height, width = images.shape[2:]
    rows, columns = size or (height, width)
    draw = torch.rand(5, len(images), 1, dtype=images.dtype, device=images.device)
    mirror = torch.where(draw[0] < flip if mirrored is None else mirrored[:, None], -1, 1)
    turn, zoom, right, down = 2 * draw[1:] - 1
    angle, zoom = math.radians(rotation) * turn, 1 + scale * zoom
    cos, sin, right, down = angle.cos() / zoom, angle.sin() / zoom, 2 * translation * right, 2 * translation * down
    # The place in the input, -1 … 1 along each axis, that an output pixel is read from: what its column gives plus what
    # its row gives. F.affine_grid's matrix product takes thirty times as long on a CPU.
    x, y = (torch.arange(1, 2 * side, 2, dtype=draw.dtype, device=draw.device) / side - 1 for side in (columns, rows))
    by_column = torch.stack((mirror * cos * x + right, width / height * sin * x + down), dim=2)
    by_row = torch.stack((-height / width * mirror * sin * y, cos * y), dim=2)
    grid = by_row[:, :, None] + by_column[:, None]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def contrast(images: Tensor, brightness: float, contrast: float, gamma: float) -> Tensor:
    """Other light and another camera, for images in 0 … 1: x ** exp(±gamma), then (x - mean) * (1 ± contrast) + mean
    ± brightness, cut off at 0 and 1. standardize undoes the linear part but for what was cut off; gamma stays."""
    power, slope, shift = 2 * torch.rand(3, len(images), 1, 1, 1, dtype=images.dtype, device=images.device) - 1
    if gamma:
        images = images.pow((gamma * power).exp())
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * (1 + contrast * slope) + mean + brightness * shift).clamp_(0, 1)


def erase(images: Tensor, probability: float, area: tuple[float, float] = (0.02, 0.2)) -> Tensor:
    """Random erasing (Zhong et al. 2020): a rectangle of the given share of the image, its sides at most 1 : 2 where
    the image is square, takes the image's mean."""
    height, width = images.shape[2:]
    chance, share, aspect, top, left = torch.rand(5, len(images), 1, 1, 1, device=images.device)
    share = area[0] + (area[1] - area[0]) * share
    ratio = 2 ** (2 * aspect - 1)
    tall, wide = ((share * ratio).sqrt() * height).round(), ((share / ratio).sqrt() * width).round()
    top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
    row = torch.arange(height, device=images.device)[:, None]
    column = torch.arange(width, device=images.device)
    inside = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide) & (chance < probability)
    return torch.where(inside, images.mean(dim=(1, 2, 3), keepdim=True), images)


@dataclass(frozen=True)
class Augment:
    """Random augmentation of training images in 0 … 1; with every number 0 the batch is unchanged.

    flip, erase: probabilities. padding: pixels of pad_crop. rotation: degrees. scale, translation: fractions, as in
    affine. brightness, contrast, gamma: as in contrast.
    """

    flip: Share = 0.5
    padding: Annotated[int, Range(0, 64, whole=True)] = 0
    rotation: Annotated[float, Range(0, 180)] = 0.0
    scale: Annotated[float, Range(0, 1, below=True)] = 0.0
    translation: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    gamma: Annotated[float, Range(0, 5)] = 0.0
    erase: Share = 0.0

    def __post_init__(self) -> None:
        check(type(self), vars(self), "augment")

    def __call__(self, images: Tensor, mirrored: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """mirrored and size: as in affine."""
        if self.padding:
            images = pad_crop(images, self.padding)
        resizes = size is not None and size != images.shape[2:]
        if self.flip or self.rotation or self.scale or self.translation or mirrored is not None or resizes:
            images = affine(images, self.flip, self.rotation, self.scale, self.translation, mirrored, size)
        if self.brightness or self.contrast or self.gamma:
            images = contrast(images, self.brightness, self.contrast, self.gamma)
        return erase(images, self.erase) if self.erase else images


NUMBERS = tuple(field.name for field in fields(Augment))


@dataclass(frozen=True)
class Progressive(Augment):
    """An augmentation that changes with the epochs: the size of the images, its strength, and what is mirrored.

    sizes: pairs of a share of all epochs and the height in pixels of training images from there on, the width in
    proportion; empty: their own. The affine sampling makes them, so that resizing is not a pass of its own.
    late: "start", a share of all epochs, and the numbers above that have other values from there on.
    alternate: each image is mirrored in every other epoch, in the first with probability flip (Jordan 2024, arXiv
    2404.00498); otherwise with probability flip in each.

    A share of all epochs is rounded to whole epochs. Raises ValueError for numbers out of their range.
    """

    sizes: Sequence[Sequence[float]] = ()
    late: Mapping[str, float] | None = None
    alternate: bool = False

    def __post_init__(self) -> None:
        self._check_sizes()
        super().__post_init__()
        self._check_late()

    def _check_sizes(self) -> None:
        given = self.sizes or ()
        sizes = [list(pair) if is_list(pair) else pair for pair in given] if is_list(given) else given
        said = f"augment.sizes={sizes}"
        if not is_list(sizes) or not all(is_list(pair) and len(pair) == 2 for pair in sizes):
            raise ValueError(f"{said} must be pairs of a share of the epochs and pixels, such as [[0,32],[0.5,48]]")
        if not all(isinstance(share, int | float) for share, _ in sizes):
            raise ValueError(f"{said} must have shares of the epochs that are numbers")
        shares = [share for share, _ in sizes]
        if shares != sorted(set(shares)) or not all(0 <= share < 1 for share in shares) or (sizes and shares[0] != 0):
            raise ValueError(f"{said} must have rising shares of the epochs, the first 0 and all below 1")
        if not all(isinstance(side, int) and side >= 8 for _, side in sizes):
            raise ValueError(f"{said} must have whole numbers of at least 8 pixels")

    def _check_late(self) -> None:
        if self.late is None:
            return
        allowed = ("start", *NUMBERS)
        if unknown := sorted(self.late.keys() - set(allowed)):
            raise ValueError(f"augment.late.{unknown[0]} must be one of {', '.join(allowed)}")
        if "start" not in self.late:
            raise ValueError("augment.late needs a start, a share of all epochs: augment.late.start=0.9")
        if allowed := expected(self.late["start"], Share):
            raise ValueError(f"augment.late.start={self.late['start']} must be {allowed}")
        check(Augment, self.late, "augment.late")

    def at(self, epoch: int, max_epochs: int) -> Augment:
        """The augmentation of an epoch."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        if self.late is not None and epoch >= round(self.late["start"] * max_epochs):
            numbers |= {name: value for name, value in self.late.items() if name != "start"}
        return Augment(**numbers)

    def size(self, epoch: int, max_epochs: int, full: tuple[int, int]) -> tuple[int, int]:
        """Height and width of training images in an epoch; full: those of the stored images."""
        sides = [side for share, side in self.sizes or () if epoch >= round(share * max_epochs)]
        return (int(sides[-1]), round(sides[-1] * full[1] / full[0])) if sides else full


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def mirrored_at_first(number: int, flip: float, seed: int) -> Tensor:
    """Which of so many images are mirrored in the first epoch (N,), where flips alternate; the seed alone decides."""
    return torch.rand(number, generator=torch.Generator().manual_seed(epoch_seed(seed, 0))) < flip


@dataclass(frozen=True)
class Mixup:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412) of standardised images and of their losses.

    An image x becomes λ x + (1 - λ) x', where x' is another image of the batch and λ ≥ ½ the larger part of a draw from
    Beta(alpha, alpha). share: of the images that are mixed; the others keep λ = 1. start, end: shares of all epochs,
    rounded to whole epochs, from which on and before which images are mixed.

    Raises ValueError for numbers out of their range.
    """

    alpha: Positive = 0.2
    share: Annotated[float, Range(0, 1, above=True)] = 1.0
    start: Share = 0.0
    end: Share = 1.0

    def __post_init__(self) -> None:
        check(Mixup, vars(self), "mixup")
        if self.start >= self.end:
            raise ValueError(f"mixup.end={self.end} must be above mixup.start={self.start}")

    def active(self, epoch: int, max_epochs: int) -> bool:
        return round(self.start * max_epochs) <= epoch < round(self.end * max_epochs)

    def __call__(self, batch: "Batch") -> "Batch":
        """The batch with mixed images, λ (B,) as "mixed", and the labels of the other images as "other_…"."""
        images = batch["images"]
        number, device = len(images), images.device
        alpha = torch.full((number,), float(self.alpha), device=device)
        part = Beta(alpha, alpha, validate_args=False).sample()  # a check would wait for the device
        part = torch.where(torch.rand(number, device=device) < self.share, torch.maximum(part, 1 - part), 1.0)
        order = torch.randperm(number, device=device)
        others = {f"other_{name}": batch[name][order] for name in ("labels", "soft_labels") if name in batch}
        mixed = torch.lerp(images[order], images, part[:, None, None, None])
        return batch | others | {"images": mixed, "mixed": part}


def flip_views(images: Tensor) -> list[Tensor]:
    """Each image, and its mirror image."""
    return [images, images.flip(3)]


def ten_crop_views(images: Tensor) -> list[Tensor]:
    """Ten views: the centre and four corner crops of each image, each also mirrored.

    The image is padded by a twelfth of its side (4 pixels at 48) by repeating its edge, and the crops are as large as
    the image: nothing is zoomed, and the centre crop is the image itself. A black border as in pad_crop made validation
    worse than no views at all.
    """
    height, width = images.shape[2:]
    down, right = round(height / 12), round(width / 12)
    padded = F.pad(images, (right, right, down, down), mode="replicate")
    places = [(down, right), (0, 0), (0, 2 * right), (2 * down, 0), (2 * down, 2 * right)]
    crops = [padded[:, :, top : top + height, left : left + width] for top, left in places]
    return [view for crop in crops for view in flip_views(crop)]


def ten_crop_zoom_views(images: Tensor) -> list[Tensor]:
    """Ten views: the centre and four corner crops of 11/12 of the side (44 pixels at 48), zoomed to the size of the
    image, each also mirrored."""
    height, width = images.shape[2:]
    tall, wide = height - round(height / 12), width - round(width / 12)
    down, right = height - tall, width - wide
    places = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
    crops = [images[:, :, top : top + tall, left : left + wide] for top, left in places]
    zoomed = [F.interpolate(crop, (height, width), mode="bilinear", align_corners=False) for crop in crops]
    return [view for crop in zoomed for view in flip_views(crop)]


Batch = dict[str, Tensor]


def epoch_seed(seed: int, epoch: int) -> int:
    """One seed for each epoch of each run: an epoch draws the same numbers whether or not the run was interrupted."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
