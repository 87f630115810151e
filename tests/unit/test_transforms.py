from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import ndimage, stats
from torch.nn import functional as F

from engrec.transforms import (
    Augment,
    affine,
    contrast,
    erase,
    flip_views,
    pad_crop,
    standardize,
    ten_crop_views,
    to_float,
)

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "augment").glob("*.yaml"))
EVERYTHING = Augment(0.5, 4, 16.0, 0.1, 0.1, 0.2, 0.3, 0.3, 0.5)
SIDE = 33


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def coordinates(num_images, height=SIDE, width=SIDE):
    """Images whose channels are the pixel's column, its row, and noise: they show where each output pixel came from."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack((column, row, torch.zeros_like(row))).float().repeat(num_images, 1, 1, 1)
    images[:, 2] = torch.rand(num_images, height, width)
    return images


def maps(images):
    """The affine maps (matrix, offset), from output to input (column, row), that made images of coordinates."""
    height, width = images.shape[2:]
    row, column = np.mgrid[:height, :width]
    found = []
    for image in images.double().numpy():
        inside = (image[0] > 0.5) & (image[0] < width - 1.5) & (image[1] > 0.5) & (image[1] < height - 1.5)
        design = np.stack((column[inside], row[inside], np.ones(inside.sum())), axis=1)
        solution, *_ = np.linalg.lstsq(design, np.stack((image[0][inside], image[1][inside]), axis=1), rcond=None)
        assert np.abs(design @ solution - np.stack((image[0][inside], image[1][inside]), axis=1)).max() < 1e-3
        found.append((solution[:2].T, solution[2]))
    return found


def angles(images):
    """Mirroring undone, the rotation of each image in degrees, and the length of its zoom."""
    matrices = np.array([matrix for matrix, _ in maps(images)])
    mirrored = np.linalg.det(matrices) < 0
    matrices[mirrored, 0] *= -1
    return (
        mirrored,
        np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 1, 1])),
        np.linalg.norm(matrices[:, 1], axis=1),
    )


def test_to_float_maps_the_grey_levels_onto_0_to_1():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    out = to_float(images)
    assert out.dtype == torch.float32
    assert np.array_equal(out.flatten(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_standardize_gives_each_image_mean_0_and_deviation_1():
    images = to_float(torch.randint(256, (5, 3, 20, 30), dtype=torch.uint8)) * torch.rand(5, 1, 1, 1)
    pixels = images.double().numpy()
    expected = (pixels - pixels.mean((1, 2, 3), keepdims=True)) / pixels.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(standardize(images), expected, atol=1e-5)


def test_standardize_makes_blank_images_zero_and_keeps_faint_ones():
    blank = to_float(torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 48, 48))
    assert not standardize(blank).any()
    blank[:, 0, 5, 5] += 1 / 255
    torch.testing.assert_close(standardize(blank).std((1, 2, 3), correction=0), torch.ones(256), rtol=1e-3, atol=0)


def test_affine_agrees_with_scipy():
    """The map is read off two channels; scipy applied to the third has to give what came out."""
    images = coordinates(12, 24, 37)
    out = affine(images, flip=0.5, rotation=30, scale=0.2, translation=0.1)
    for image, moved, (matrix, offset) in zip(images.numpy(), out.numpy(), maps(out), strict=True):
        by_row = matrix[::-1, ::-1], offset[::-1]  # scipy's order is (row, column)
        expected = ndimage.affine_transform(image[2], *by_row, order=1, mode="nearest")
        np.testing.assert_allclose(moved[2], expected, atol=2e-3)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (24, 40)])
def test_rotation_is_even_within_its_bound_and_about_the_centre(size):
    out = affine(coordinates(500, *size), flip=0.0, rotation=16, scale=0.0, translation=0.0)
    mirrored, angle, zoom = angles(out)
    assert not mirrored.any()
    assert np.abs(zoom - 1).max() < 1e-3
    assert np.abs(angle).max() <= 16.01
    assert np.abs(np.histogram(angle, bins=4, range=(-16, 16))[0] - 125).max() < 40
    centre = (np.array(size[::-1]) - 1) / 2
    for matrix, offset in maps(out):
        np.testing.assert_allclose(matrix @ centre + offset, centre, atol=1e-3)


def test_zoom_and_shift_stay_within_their_bounds_and_use_them():
    out = affine(coordinates(300), flip=0.0, rotation=0.0, scale=0.2, translation=0.1)
    zoom = 1 / angles(out)[2]
    assert 0.8 - 1e-3 < zoom.min() < 0.83 < 1.17 < zoom.max() < 1.2 + 1e-3
    centre = np.array([SIDE - 1, SIDE - 1]) / 2
    shift = np.array([matrix @ centre + offset - centre for matrix, offset in maps(out)]) / SIDE
    assert 0.09 < np.abs(shift).max() <= 0.1 + 1e-3
    assert (np.abs(shift.mean(0)) < 0.015).all()


def test_flip_has_its_rate_and_twice_is_nothing():
    images = coordinates(1000, 8, 9)
    mirrored, *_ = angles(affine(images, flip=0.3, rotation=0.0, scale=0.0, translation=0.0))
    assert abs(mirrored.mean() - 0.3) < 0.06
    once = affine(images, flip=1.0, rotation=0.0, scale=0.0, translation=0.0)
    torch.testing.assert_close(once, images.flip(3), rtol=1e-5, atol=1e-5)
    twice = affine(once, flip=1.0, rotation=0.0, scale=0.0, translation=0.0)
    torch.testing.assert_close(twice, images, rtol=1e-5, atol=1e-5)


def test_pad_crop_is_a_window_of_the_padded_image_and_every_window_comes():
    images = torch.rand(300, 2, 7, 9)
    padded, seen = F.pad(images, (2,) * 4), []
    for image, crop in zip(padded, pad_crop(images, 2), strict=True):
        windows = {(i, j): image[:, i : i + 7, j : j + 9] for i in range(5) for j in range(5)}
        (place,) = [place for place, window in windows.items() if torch.equal(window, crop)]
        seen.append(place)
    counts = [seen.count((i, j)) for i in range(5) for j in range(5)]
    assert min(counts) > 0
    assert max(counts) < 30  # 12 are expected


def test_erase_fills_one_rectangle_with_the_mean():
    images = torch.rand(400, 2, 24, 32)
    out = erase(images, probability=0.5, area=(0.05, 0.2))
    changed = (out != images).any(1).numpy()
    hit = np.flatnonzero(changed.any((1, 2)))
    assert abs(len(hit) / 400 - 0.5) < 0.1
    for image, erased, mask in zip(images[hit], out[hit], changed[hit], strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.03 < mask.mean() < 0.22
        torch.testing.assert_close(erased[:, mask], image.mean().expand(2, int(mask.sum())))
    assert changed.any((0, 1)).all()  # every row and every column may be hit
    assert changed.any((0, 2)).all()


def test_erased_rectangles_are_even_in_area_in_sides_and_in_place():
    """Each against the uniform distribution: the share, the logarithm of the sides' ratio, and both places."""
    height, width = 150, 200
    images = torch.rand(300, 1, height, width)
    changed = (erase(images, probability=1.0, area=(0.05, 0.25)) != images)[:, 0].numpy()
    rows, columns = changed.any(2), changed.any(1)
    tall, wide, top, left = rows.sum(1), columns.sum(1), rows.argmax(1), columns.argmax(1)
    even = {
        "area": (tall * wide / (height * width) - 0.05) / 0.2,
        "sides": np.log2(tall / height * width / wide) / 2 + 0.5,
        "top": top / (height - tall),
        "left": left / (width - wide),
    }
    for name, values in even.items():
        _, p = np.array(stats.kstest(values, "uniform"))
        assert p > 0.001, name


def test_contrast_without_gamma_or_cut_is_undone_by_standardize():
    images = 0.4 + 0.2 * torch.rand(6, 1, 12, 12)
    out = contrast(images, brightness=0.2, contrast=0.5, gamma=0.0)
    assert (out - images).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(standardize(out), standardize(images), rtol=1e-3, atol=1e-3)


def test_gamma_keeps_the_order_and_the_ends():
    images = torch.linspace(0, 1, 101).repeat(200, 1, 1, 1)
    out = contrast(images, brightness=0.0, contrast=0.0, gamma=0.5)
    assert (out.diff(dim=3) >= 0).all()
    torch.testing.assert_close(out[..., [0, -1]], images[..., [0, -1]])
    exponents = np.log(out[:, 0, 0, 50].numpy()) / np.log(0.5)
    assert np.exp(-0.5) <= exponents.min() < 0.7 < 1.4 < exponents.max() <= np.exp(0.5)
    bright = contrast(images, brightness=0.9, contrast=0.9, gamma=0.9)
    assert (bright.min(), bright.max()) == (0, 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_keeps_shape_type_and_range(path):
    images = torch.rand(16, 1, 48, 48)
    before, augment = images.clone(), instantiate(OmegaConf.load(path))
    out = augment(images)
    assert (out.shape, out.dtype, out.device) == (images.shape, images.dtype, images.device)
    assert out.min() >= -1e-6
    assert out.max() <= 1 + 1e-6
    assert torch.equal(images, before)
    assert torch.equal(out, images) == (path.stem == "none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_type_is_kept(dtype):
    assert EVERYTHING(torch.rand(4, 3, 20, 30, dtype=dtype)).dtype == dtype


def test_a_seed_decides_everything():
    images, outs = torch.rand(8, 1, 24, 24), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(EVERYTHING(images))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_images_do_not_touch_each_other_and_are_changed_differently():
    images = torch.rand(1, 1, 24, 24).repeat(8, 1, 1, 1)
    torch.manual_seed(1)
    out = EVERYTHING(images)
    assert not any(torch.equal(out[0], other) for other in out[1:])
    images[3] = torch.rand(1, 24, 24)
    torch.manual_seed(1)
    other = EVERYTHING(images)
    same = [torch.equal(a, b) for a, b in zip(out, other, strict=True)]
    assert same == [True] * 3 + [False] + [True] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, r"augment\.flip=1\.5 must be a number from 0 to 1"),
        ({"padding": -1}, r"augment\.padding=-1 must be a whole number from 0 to 64"),
        ({"scale": 1}, r"augment\.scale=1 must be a number from 0 and below 1"),
        ({"rotation": 270}, r"augment\.rotation=270 must be a number from 0 to 180"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


def test_flip_views_are_the_image_and_its_mirror_image():
    images = torch.rand(3, 2, 7, 9)
    plain, mirrored = flip_views(images)
    assert torch.equal(plain, images)
    assert np.array_equal(mirrored, np.flip(images.numpy(), 3))


@pytest.mark.parametrize(("height", "width", "down", "right"), [(48, 48, 4, 4), (96, 60, 8, 5), (12, 25, 1, 2)])
def test_ten_crop_views_are_the_windows_in_the_corners_of_the_padded_image(height, width, down, right):
    images = torch.rand(3, 2, height, width)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (down, down), (right, right)), mode="edge")
    expected = []
    for top in (0, down, 2 * down):
        for left in (0, right, 2 * right):
            if (top == down) == (left == right):  # the centre and the corners
                crop = padded[:, :, top : top + height, left : left + width]
                expected += [crop, crop[..., ::-1]]
    views = [view.numpy() for view in ten_crop_views(images)]
    assert len(views) == len(expected) == 10
    for crop in expected:
        assert sum(np.array_equal(crop, view) for view in views) == 1
    assert np.array_equal(views[0], images)


def structured(height=24, width=36):
    """Two bright bars, a dark spot, and nothing in it symmetric or flat."""
    row, column = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    image = 0.25 + 0.2 * column + 0.15 * row + 0.05 * np.sin(25 * row) * np.cos(31 * column)
    for down, right, tall, wide, light in (
        (0.5, 0.3, 0.25, 0.05, 0.5),
        (0.3, 0.7, 0.05, 0.2, 0.6),
        (0.75, 0.7, 0.1, 0.1, -0.4),
    ):
        image += light * np.exp(-((row - down) ** 2) / (2 * tall**2) - (column - right) ** 2 / (2 * wide**2))
    return image.clip(0.02, 0.98)


def reference(image, rng, flip, padding, rotation, scale, translation, brightness, contrast, gamma, erase):
    """One image (H, W) augmented as the docstrings say, with scipy, and with numpy's random numbers.

    What they leave open is read as: draws are uniform, but for the exponent's logarithm and that of the sides' ratio;
    the shift is of the place that is read.
    """
    sides, centre = np.array(image.shape), (np.array(image.shape) - 1) / 2
    if padding:
        top, left = rng.integers(2 * padding + 1, size=2)
        image = np.pad(image, padding)[top : top + sides[0], left : left + sides[1]]
    angle, zoom = np.radians(rng.uniform(-rotation, rotation)), rng.uniform(1 - scale, 1 + scale)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    if rng.random() < flip:
        matrix = matrix @ np.diag([1, -1])
    offset = centre - matrix @ centre + rng.uniform(-translation, translation, 2) * sides
    image = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
    image = image ** np.exp(rng.uniform(-gamma, gamma))
    mean, slope, shift = image.mean(), 1 + rng.uniform(-contrast, contrast), rng.uniform(-brightness, brightness)
    image = np.clip((image - mean) * slope + mean + shift, 0, 1)
    if rng.random() < erase:
        area, ratio = rng.uniform(0.02, 0.2), 2 ** rng.uniform(-1, 1)
        tall, wide = np.round(np.sqrt(area * np.array([ratio, 1 / ratio])) * sides).astype(int)
        top, left = rng.integers(sides[0] - tall + 1), rng.integers(sides[1] - wide + 1)
        image[top : top + tall, left : left + wide] = image.mean()
    return image


@dataclass(frozen=True)
class Sample:
    """N images (N, H, W): at each pixel some means with the squares of their errors, and some numbers of each image."""

    pixels: dict[str, tuple[np.ndarray, np.ndarray]]
    images: dict[str, np.ndarray]


def sample(images):
    """mean: its error is s / √N. deviation: √(m₄ - s⁴) / (2 s √N). flat: the share p of images where the pixel is as
    the one to its right and the one below are, √(p (1 - p) / N)."""
    mean, number = images.mean(0), len(images)
    squares = (images - mean) ** 2
    variance = squares.mean(0)
    deviation_error = ((squares**2).mean(0) / variance - variance) / (4 * number)
    corner = images[:, :-1, :-1]
    alike = (np.abs(images[:, 1:, :-1] - corner) < 1e-5) & (np.abs(images[:, :-1, 1:] - corner) < 1e-5)
    share = (alike.sum(0) + 1) / (number + 2)
    down, right = (np.arange(side) - (side - 1) / 2 for side in images.shape[1:])
    grey = images.mean((1, 2))
    centred = images - grey[:, None, None]
    spread = centred.std((1, 2))
    return Sample(
        {
            "mean": (mean, variance / number),
            "deviation": (np.sqrt(variance), deviation_error),
            "flat": (share, share * (1 - share) / number),
        },
        {
            "grey": grey,
            "spread": spread,
            "skew": (centred * centred**2).mean((1, 2)) / spread**3,
            "row": np.einsum("nij,i->n", centred, down) / grey,
            "column": np.einsum("nij,j->n", centred, right) / grey,
            "tilt": np.einsum("nij,i,j->n", centred, down, right) / grey,
            "flat rows": alike.any(2).sum(1),
            "flat columns": alike.any(1).sum(1),
        },
    )


def disagreements(one, other):
    """Where two samples differ that would agree, were they of one distribution, in 99 of 100 cases.

    At each pixel the difference is measured in its standard error, the root of the two squares: one of a thousand is
    beyond 5 with a probability of 0.0006. The images' numbers are compared by Kolmogorov and Smirnov at p = 0.001.
    """
    found = set()
    for name, (mean, error) in one.pixels.items():
        other_mean, other_error = other.pixels[name]
        found |= {name} if (np.abs(mean - other_mean) > 5 * np.sqrt(error + other_error)).any() else set()
    for name, values in one.images.items():
        _, p = np.array(stats.ks_2samp(values, other.images[name], method="asymp"))
        found |= {name} if p < 0.001 else set()
    return found


NUM_DRAWS = 4000


def settings(name):
    return asdict(instantiate(OmegaConf.load(CONFIGS[0].with_name(f"{name}.yaml"))))


@cache
def expected(name):
    rng, image, numbers = np.random.default_rng(1), structured(), settings(name)
    return sample(np.stack([reference(image, rng, **numbers) for _ in range(NUM_DRAWS)]))


def drawn(**numbers):
    images = torch.from_numpy(structured()).float().expand(NUM_DRAWS, 1, -1, -1)
    return sample(Augment(**numbers)(images)[:, 0].double().numpy())


@pytest.mark.parametrize("name", ["strong", "paper"])
def test_augmentation_is_statistically_what_its_definition_says(name):
    assert disagreements(drawn(**settings(name)), expected(name)) == set()


@pytest.mark.parametrize(
    ("name", "wrong", "where"),
    [
        ("strong", {"flip": 0.25}, "column"),
        ("strong", {"rotation": 8.0}, "deviation"),
        ("strong", {"scale": 0.075}, "row"),
        ("strong", {"translation": 0.04}, "deviation"),
        ("strong", {"brightness": 0.1}, "grey"),
        ("strong", {"contrast": 0.15}, "spread"),
        ("strong", {"gamma": 0.0}, "skew"),
        ("strong", {"erase": 0.125}, "flat"),
        ("paper", {"flip": 0.25}, "tilt"),
        ("paper", {"rotation": 8.0}, "mean"),
        ("paper", {"padding": 3}, "mean"),
    ],
)
def test_another_augmentation_is_told_apart(name, wrong, where):
    """Half of any one number, or a pixel less: the test above is not blind."""
    assert where in disagreements(drawn(**settings(name) | wrong), expected(name))
