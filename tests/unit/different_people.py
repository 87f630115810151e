"""Synthetic faces that only a fault would make alike: no two correlate with 0.9, as they are or mirrored."""

import numpy as np

from engrec.datasets.synthetic import render


def standard(images):
    """float64 (N, pixels) of mean zero and unit norm, whose products are correlations."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def noisy_copies(rng, base):
    """Thirty images of four pictures (4, 1, H, W) with all amounts of noise, some of them mirrored."""
    base = base / base.std((1, 2, 3), keepdims=True)
    noise = rng.normal(size=(30, *base.shape[1:]))
    mixed = base[rng.integers(0, 4, 30)] + rng.exponential(0.3, (30, 1, 1, 1)) * noise
    mixed[::5] = mixed[::5, ..., ::-1]
    return np.clip(mixed * 30 + 128, 0, 255).astype(np.uint8)


def different_people(number):
    """uint8 (number, 1, 48, 48)."""
    images = render("engagement", num_train=80, num_val=2, num_test=2, images_per_subject=2).images[:80:2]
    flat, turned = standard(images), standard(images[..., ::-1])
    alike = np.maximum(flat @ flat.T, flat @ turned.T) > 0.9
    kept = []
    for i in range(len(images)):
        if not alike[i, kept].any():
            kept.append(i)
    assert len(kept) >= number
    return images[kept[:number]]
