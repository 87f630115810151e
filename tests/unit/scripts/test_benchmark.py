"""The benchmark's usual way does what it is compared with, and its command says what is of no use to it."""

from dataclasses import replace

import benchmark
import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from torch import nn

from engrec.faces.detect import Detector
from engrec.models.lrn import LocalResponseNorm
from engrec.modules.build import build_module
from engrec.plan import choose_for_machine
from engrec.transforms import Augment

SMALL = ["model.width=0.05", "model.dense=[8]", "batch_size=6", "trainer.accelerator=cpu", "trainer.precision=32-true"]


@pytest.fixture
def composed():
    yield benchmark.composed
    HydraConfig.instance().cfg = None


def test_what_has_no_effect_is_refused(composed):
    with pytest.raises(ValueError, match=r"dataset=fer2013 is of no effect here; allowed: model="):
        composed(["dataset=fer2013", "model=vgg"])


def test_the_usual_network_is_the_same_network_in_torchs_own_parts(composed):
    cfg = composed(["model=vgg_lrn", *SMALL])
    choose_for_machine(cfg)
    data = benchmark.data_of(cfg, benchmark.random_faces(24))
    ours, theirs = (
        build_module(benchmark.resolved(cfg), data).eval(),
        build_module(benchmark.resolved(cfg), data).eval(),
    )
    theirs.load_state_dict(ours.state_dict())
    benchmark.with_torchs_lrn(theirs)
    assert not any(isinstance(layer, LocalResponseNorm) for layer in theirs.modules())
    assert any(isinstance(layer, nn.LocalResponseNorm) for layer in theirs.modules())
    images = torch.randn(4, 1, 48, 48)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_an_image_is_left_as_it_is_where_nothing_is_to_change():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8))
    nothing = Augment(flip=0.0)
    assert np.array_equal(benchmark.changed(image, nothing), image)


@pytest.mark.parametrize(
    ("augment", "tolerance"),
    [
        (Augment(flip=1.0), 0.01),
        (Augment(flip=0.0, rotation=16), 0.02),
        (Augment(flip=0.0, scale=0.15, translation=0.08), 0.03),
        (Augment(flip=0.0, gamma=0.3), 0.02),
        (Augment(flip=0.0, contrast=0.3, brightness=0.0), 0.02),
    ],
    ids=["flip", "rotation", "zoom and shift", "gamma", "contrast"],
)
def test_single_images_change_on_average_as_batches_do(augment, tolerance):
    """On a smooth face-like blob, away from the border, which PIL fills with black."""
    torch.manual_seed(0)
    y, x = np.mgrid[:48, :48] / 47 - 0.5
    blob = (255 * np.exp(-8 * ((x - 0.1) ** 2 + 2 * (y + 0.05) ** 2))).astype(np.uint8)
    single = np.mean([np.asarray(benchmark.changed(Image.fromarray(blob), augment)) / 255 for _ in range(2000)], axis=0)
    batch = augment(torch.from_numpy(blob / 255).float().expand(2000, 1, 48, 48)).mean(0)[0].numpy()
    np.testing.assert_allclose(single[10:38, 10:38], batch[10:38, 10:38], atol=tolerance)


def test_its_fit_trains_as_many_steps_as_it_is_told_after_one(composed):
    cfg = composed(SMALL)
    choose_for_machine(cfg)
    faces = benchmark.random_faces(60)
    module = build_module(benchmark.resolved(cfg), benchmark.data_of(cfg, faces))
    before = [p.clone() for p in module.parameters()]
    seen = []
    module.register_forward_pre_hook(lambda _, given: seen.append((module.training, len(given[0]))))
    assert benchmark.Engrec(cfg, module, faces)(3) > 0
    assert [size for training, size in seen if training] == [6, 6, 6, 6]
    assert any(not torch.equal(p, q) for p, q in zip(before, module.parameters(), strict=True))
    seen.clear()
    benchmark.Engrec(cfg, module, faces)(2, 4)
    assert [size for training, size in seen if training] == [4, 4, 4]


def test_flops_are_three_times_those_of_the_forward_pass_but_for_the_first_layer(composed):
    """The gradient of a layer costs as much as the layer twice; the images need none."""
    cfg = composed(["model=vgg_small", "model.width=0.1", "batch_size=2", *SMALL[3:]])
    choose_for_machine(cfg)
    module = build_module(benchmark.resolved(cfg), benchmark.data_of(cfg, benchmark.random_faces(24)))
    counted = benchmark.flops(benchmark.Ceiling(cfg, module, torch.device("cpu")))
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    sides = iter([48, 48, 24, 24, 12, 12, 6, 6, 1])
    forward = [2 * 2 * layer.weight.numel() * next(sides) ** 2 for layer in layers]
    assert counted == 3 * sum(forward) - forward[0]


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nowhere"])
def test_an_output_folder_that_cannot_be_is_named_before_anything_is_measured(composed, tmp_path, monkeypatch, name):
    (tmp_path / "file").touch()
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(ValueError, match=rf"{name} cannot be written to \("):
        benchmark.main([*SMALL, "--out", str(tmp_path / name)])
    assert (tmp_path / "file").is_file()


def test_a_video_is_read_by_the_networks_that_come_with_engrec(composed):
    report = benchmark.Report({})
    benchmark.measure_video(replace(benchmark.QUICK, frames=10, repeats=1), report)
    assert report.video["frames per second"] > 0
    assert sum(report.video.values()) - report.video["frames per second"] == pytest.approx(
        1e3 / report.video["frames per second"]
    )
    frames = list(benchmark.panned(3))
    assert {frame.shape for frame in frames} == {(360, 640, 3)}
    assert all(Detector(320)(frame) for frame in frames)
