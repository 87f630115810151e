"""Colours of classes are seen on either paper, told apart by everybody, and judge nobody."""

import re

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2hsv, rgb2lab

from engrec.importers import daisee, engagenet, er, fer2013, ferplus, wacv2016
from engrec.use.colours import PAPERS, of_classes
from engrec.use.page import contents

EXPRESSIONS = [fer2013.CLASS_NAMES, ferplus.CLASS_NAMES]
LEVELS = [er.CLASS_NAMES, wacv2016.CLASS_NAMES, daisee.CLASS_NAMES, engagenet.CLASS_NAMES]
# What is seen without one kind of cone, in linear RGB: Machado, Oliveira and Fernandes, A Physiologically-based Model
# for Simulation of Color Vision Deficiency (2009), severity 1.
SIGHTS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def rgb(*colours):
    """float (N, 3) of hex colours."""
    return np.array([list(bytes.fromhex(colour.removeprefix("#"))) for colour in colours]) / 255


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def seen(srgb, sight):
    """The same as somebody sees it who lacks a kind of cone."""
    light = np.clip(linear(srgb) @ np.transpose(SIGHTS[sight]), 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def papers():
    """Of the page, from its style: the page itself, and what is raised, for each paper."""
    style = contents.files()[contents.STYLE]
    found = zip(*(re.findall(rf"--{name}: (#[0-9a-f]+);", style) for name in ("paper", "raised")), strict=True)
    long = [["#" + "".join(2 * c for c in one[1:]) if len(one) == 4 else one for one in pair] for pair in found]
    return dict(zip(PAPERS, long, strict=True))


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("class_names", EXPRESSIONS + LEVELS)
def test_they_stand_out_from_the_paper(class_names, paper):
    """By 3 to 1, as WCAG 2.2 asks of what is no text (1.4.11)."""
    colours = of_classes(class_names, paper), papers()[paper]
    ours, under = (linear(rgb(*some)) @ [0.2126, 0.7152, 0.0722] + 0.05 for some in colours)
    ratios = np.maximum.outer(ours, under) / np.minimum.outer(ours, under)
    assert ratios.min() >= 3


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("class_names", EXPRESSIONS + LEVELS)
def test_everybody_tells_them_apart(class_names, paper, sight):
    lab = rgb2lab(seen(rgb(*of_classes(class_names, paper)), sight))
    differences = deltaE_ciede2000(lab[:, None], lab[None])
    assert differences[~np.eye(len(lab), dtype=bool)].min() >= 10


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("class_names", [*LEVELS, ("only",), ("low", "2", "3", "4", "5", "6", "7", "8", "9", "high")])
def test_levels_are_shades_of_blue(class_names, paper):
    """Neither red nor green; the higher, the further from the paper."""
    colours = rgb(*of_classes(class_names, paper))
    assert len(colours) == len(class_names)
    hue = 360 * rgb2hsv(colours)[:, 0]
    assert ((hue > 195) & (hue < 245)).all()
    lightness = rgb2lab(colours)[:, 0]
    assert (np.diff(lightness) * (1 if paper == "dark" else -1) > 0).all()


def test_an_expression_has_one_colour_under_each_of_its_names():
    theirs = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
    assert of_classes(ferplus.CLASS_NAMES, "light") == of_classes(theirs, "light")
