"""Functions from an image batch (B, C, H, W) to an image batch, on the batch's device; randomness is per image.

Order of use: to_float, Augment (training only), standardize. flip_views and ten_crop_views return several batches for
one; each is standardised afterwards.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engrec.ranges import Range, Share, problems


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


def affine(images: Tensor, flip: float, rotation: float, scale: float, translation: float) -> Tensor:
    """Mirror, rotate, zoom and shift in one bilinear sampling; what comes from outside repeats the nearest edge pixel,
    as black corners would shift the mean that standardize subtracts.

    flip: probability. rotation: at most this many degrees either way. scale: zoom between 1 - scale and 1 + scale.
    translation: at most this fraction of the side either way.
    """
    height, width = images.shape[2:]
    draw = torch.rand(5, len(images), 1, dtype=images.dtype, device=images.device)
    mirror = torch.where(draw[0] < flip, -1, 1)
    turn, zoom, right, down = 2 * draw[1:] - 1
    angle, zoom = math.radians(rotation) * turn, 1 + scale * zoom
    cos, sin, right, down = angle.cos() / zoom, angle.sin() / zoom, 2 * translation * right, 2 * translation * down
    # The place in the input, -1 … 1 along each axis, that an output pixel is read from: what its column gives plus what
    # its row gives. F.affine_grid's matrix product takes thirty times as long on a CPU.
    x, y = (torch.arange(1, 2 * side, 2, dtype=draw.dtype, device=draw.device) / side - 1 for side in (width, height))
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
        if wrong := list(problems(Augment, vars(self), "augment")):
            raise ValueError("; ".join(wrong))

    def __call__(self, images: Tensor) -> Tensor:
        if self.padding:
            images = pad_crop(images, self.padding)
        if self.flip or self.rotation or self.scale or self.translation:
            images = affine(images, self.flip, self.rotation, self.scale, self.translation)
        if self.brightness or self.contrast or self.gamma:
            images = contrast(images, self.brightness, self.contrast, self.gamma)
        return erase(images, self.erase) if self.erase else images


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


Batch = dict[str, Tensor]


def epoch_seed(seed: int, epoch: int) -> int:
    """One seed for each epoch of each run: an epoch draws the same numbers whether or not the run was interrupted."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
