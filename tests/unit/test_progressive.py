"""What changes with the epochs: the size of training images, their augmentation, what is mirrored, what is mixed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_steps import Reads, Waits
from torch.nn import functional as F

from engrec.data import DataModule
from engrec.errors import CONF
from engrec.splits import Split
from engrec.transforms import Augment, Mixup, Progressive, affine, mirrored_at_first, standardize, ten_crop_zoom_views

NAN, INF = float("nan"), float("inf")
SIZES = ((0, 32), (0.5, 40), (0.86, 48))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def composed(group, name):
    return instantiate(OmegaConf.load(CONF / group / f"{name}.yaml"), _convert_="all")


@pytest.mark.parametrize(("max_epochs", "starts"), [(100, (50, 86)), (84, (42, 72)), (70, (35, 60)), (30, (15, 26))])
def test_sizes_start_at_their_share_of_the_epochs(max_epochs, starts):
    progressive = composed("augment", "progressive")
    sides = [progressive.size(epoch, max_epochs, (48, 48))[0] for epoch in range(max_epochs)]
    assert sides == [32] * starts[0] + [40] * (starts[1] - starts[0]) + [48] * (max_epochs - starts[1])


def test_without_sizes_they_are_the_images_own_and_a_width_is_in_proportion():
    assert Progressive().size(3, 10, (48, 40)) == (48, 40)
    assert Progressive(sizes=[[0, 24]]).size(3, 10, (48, 96)) == (24, 48)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 28), (48, 48)])
def test_resizing_alone_is_that_of_torch(height, width):
    images = torch.rand(3, 2, 48, 48)
    expected = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    resized = affine(images, 0.0, 0.0, 0.0, 0.0, size=(height, width))
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(Augment(flip=0.0)(images, size=(height, width)), expected, rtol=0, atol=1e-5)


def test_a_smaller_image_is_the_larger_one_under_the_same_random_numbers():
    """Of a smooth image: the map from place to place is the same, only the pixels are fewer."""
    row, column = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    images, numbers = (row + 0.5 * column).expand(8, 1, 48, 48), (0.5, 12.0, 0.15, 0.08)
    torch.manual_seed(1)
    large = affine(images, *numbers)
    torch.manual_seed(1)
    small = affine(images, *numbers, size=(24, 24))
    torch.testing.assert_close(small[..., 3:-3, 3:-3], F.avg_pool2d(large, 2)[..., 3:-3, 3:-3], rtol=0, atol=2e-2)


def test_resizing_adds_no_sampling(monkeypatch):
    calls = []
    sample = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *args, **kwargs: (calls.append(1), sample(*args, **kwargs))[1])
    augment = composed("augment", "progressive").at(0, 100)
    assert augment(torch.rand(4, 1, 48, 48), size=(32, 32)).shape == (4, 1, 32, 32)
    assert len(calls) == 1


def test_late_numbers_replace_the_others_from_their_share_on():
    progressive = composed("augment", "progressive")
    early, late = progressive.at(85, 100), progressive.at(86, 100)
    assert early == Augment(0.5, 0, 12.0, 0.15, 0.08, 0.2, 0.2, 0.0, 0.25)
    assert late == Augment(0.5, 0, 6.0, 0.08, 0.04, 0.0, 0.0, 0.0, 0.0)
    assert Progressive(rotation=3.0).at(99, 100) == Augment(rotation=3.0)


def test_with_every_feature_off_it_is_the_plain_augmentation():
    numbers = {"flip": 0.5, "rotation": 12.0, "scale": 0.1, "translation": 0.1, "contrast": 0.2, "erase": 0.3}
    images, outs = torch.rand(6, 1, 24, 24), []
    for augment in (Augment(**numbers), Progressive(**numbers).at(4, 9)):
        torch.manual_seed(2)
        outs.append(augment(images))
    assert torch.equal(*outs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rotation": NAN}, r"augment\.rotation=nan must be a number from 0 to 180"),
        ({"gamma": INF}, r"augment\.gamma=inf must be a number from 0 to 5"),
        ({"sizes": [[0, 32], [0.5, 0]]}, r"augment\.sizes=\[\[0, 32\], \[0\.5, 0\]\] must have whole numbers"),
        ({"sizes": [[0, -32]]}, r"augment\.sizes=.* must have whole numbers of at least 8"),
        ({"sizes": [[0, NAN]]}, r"augment\.sizes=.* must have whole numbers"),
        ({"sizes": [[0, INF]]}, r"augment\.sizes=.* must have whole numbers"),
        ({"sizes": [[0.1, 32]]}, r"augment\.sizes=.* must have rising shares of the epochs, the first 0"),
        ({"sizes": [[0, 32], [1.5, 48]]}, r"augment\.sizes=.* must have rising shares"),
        ({"sizes": [[0, 32], [NAN, 48]]}, r"augment\.sizes=.* must have rising shares"),
        ({"sizes": [[0, 32], [0.5, 40], [0.5, 48]]}, r"augment\.sizes=.* must have rising shares"),
        ({"sizes": 32}, r"augment\.sizes=32 must be pairs"),
        ({"sizes": "32"}, r"augment\.sizes=32 must be pairs"),
        ({"sizes": [["early", 32]]}, r"augment\.sizes=.* must have shares of the epochs that are numbers"),
        ({"late": {"start": "early"}}, r"augment\.late\.start=early must be a number from 0 to 1"),
        ({"late": {"start": 0.5, "erase": "off"}}, r"augment\.late\.erase=off must be a number from 0 to 1"),
        ({"sizes": [32, 48]}, r"augment\.sizes=\[32, 48\] must be pairs"),
        ({"late": {"start": -0.1}}, r"augment\.late\.start=-0\.1 must be a number from 0 to 1"),
        ({"late": {"start": NAN}}, r"augment\.late\.start=nan"),
        ({"late": {"start": INF}}, r"augment\.late\.start=inf"),
        ({"late": {"start": 0.5, "erase": -1}}, r"augment\.late\.erase=-1 must be a number from 0 to 1"),
        ({"late": {"start": 0.5, "rotation": NAN}}, r"augment\.late\.rotation=nan"),
        ({"late": {"start": 0.5, "size": 40}}, r"augment\.late\.size must be one of start, flip, "),
        ({"late": {"erase": 0}}, r"augment\.late needs a start"),
        ({"alternate": 2}, r"augment\.alternate=2 must be true or false"),
    ],
)
def test_mistakes_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        Progressive(**arguments)


# --- in a data module -----------------------------------------------------------------------------------------------


def trained_on(data, epoch, max_epochs=10):
    """The network input of the training batches of an epoch."""
    root = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        training=True, global_rank=0, world_size=1, current_epoch=epoch, max_epochs=max_epochs, strategy=root
    )
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


@pytest.fixture
def make_data(make_faces):
    def make_data(augment, mixup=None, **fields):
        faces = make_faces(num_images=40, size=24, **fields)
        split = Split(np.arange(32), np.arange(32, 36), np.arange(36, 40))
        return DataModule(faces, split, augment, 8, seed=5, mixup=mixup)

    return make_data


def test_training_images_have_the_size_of_their_epoch_and_others_their_own(make_data):
    data = make_data(Progressive(sizes=[[0, 16], [0.5, 24]]))
    assert [{batch["images"].shape for batch in trained_on(data, epoch)} for epoch in (0, 4, 5)] == [
        {(8, 1, 16, 16)},
        {(8, 1, 16, 16)},
        {(8, 1, 24, 24)},
    ]
    data.trainer.training = False
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch["images"].shape == (4, 1, 24, 24)
    assert data.preprocessing["height"] == 24


def test_a_size_above_that_of_the_images_is_refused(make_data):
    with pytest.raises(ValueError, match=r"augment\.sizes has 32 pixels, the images have 24: set augment\.sizes=\[\]"):
        make_data(Progressive(sizes=[[0, 16], [0.5, 32]]))


def mirrored(data, epoch):
    """Which training images are mirrored in an epoch."""
    found = {}
    for batch in trained_on(data, epoch):
        for index, image in zip(batch["index"].tolist(), batch["images"], strict=True):
            plain = standardize(torch.from_numpy(data.faces.images[index : index + 1]).float() / 255)[0]
            flipped = torch.allclose(image, plain.flip(2), atol=1e-4)
            assert flipped != torch.allclose(image, plain, atol=1e-4)
            found[index] = flipped
    return found


def test_a_flip_that_alternates_shows_each_image_both_ways_in_turn(make_data):
    """Another data module, as after resuming, mirrors the same; another seed mirrors others at first."""
    data = make_data(Progressive(flip=0.5, alternate=True))
    first, second, third = (mirrored(data, epoch) for epoch in (0, 1, 2))
    assert second == {index: not flipped for index, flipped in first.items()}
    assert third == first == mirrored(make_data(Progressive(flip=0.5, alternate=True)), 2)
    assert 4 < sum(first.values()) < 28
    assert not torch.equal(mirrored_at_first(100, 0.5, 0), mirrored_at_first(100, 0.5, 1))
    assert abs(mirrored_at_first(10_000, 0.3, 0).float().mean().item() - 0.3) < 0.02


# --- mixup ----------------------------------------------------------------------------------------------------------


def batch_of(number=64, **more):
    images = torch.randn(number, 1, 6, 6)
    return {"index": torch.arange(number), "images": images, "labels": torch.arange(number) % 7, **more}


def test_a_mixed_image_is_made_of_two_in_the_parts_that_are_said():
    batch = batch_of(soft_labels=torch.rand(64, 7))
    before = batch["images"].clone()
    mixed = Mixup(alpha=1.0, share=0.5)(batch)
    assert torch.equal(batch["images"], before)
    parts = mixed["mixed"]
    assert ((parts >= 0.5) & (parts <= 1)).all()
    assert 20 < (parts < 1).sum() < 44
    for i, part in enumerate(parts):
        candidates = part * before[i] + (1 - part) * before
        [other] = [j for j in range(64) if torch.allclose(mixed["images"][i], candidates[j], atol=1e-6)][:1]
        if part < 0.999:
            assert mixed["other_labels"][i] == batch["labels"][other]
            assert torch.equal(mixed["other_soft_labels"][i], batch["soft_labels"][other])
    assert torch.equal(mixed["labels"], batch["labels"])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_parts_are_the_larger_half_of_a_beta_distribution(alpha):
    """E max(λ, 1 - λ) by numerical integration of the density, from a million draws of numpy's."""
    drawn = np.random.default_rng(0).beta(alpha, alpha, 10**6)
    parts = Mixup(alpha=alpha)(batch_of(20_000))["mixed"]
    assert parts.mean().item() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_so_many_images_are_mixed(share):
    parts = Mixup(alpha=5.0, share=share)(batch_of(10_000))["mixed"]
    assert (parts < 1).float().mean().item() == pytest.approx(share, abs=0.02)


def test_mixup_is_active_from_its_start_to_before_its_end():
    mixup = composed("mixup", "half")
    assert [epoch for epoch in range(100) if mixup.active(epoch, 100)] == list(range(10, 86))
    assert [epoch for epoch in range(4) if Mixup().active(epoch, 4)] == [0, 1, 2, 3]


def test_images_are_mixed_in_their_epochs_of_training_alone(make_data):
    data = make_data(Augment(flip=0.0), Mixup(start=0.2, end=0.8))
    assert [any("mixed" in batch for batch in trained_on(data, epoch)) for epoch in (1, 2, 7, 8)] == [0, 1, 1, 0]
    data.trainer.training, data.trainer.current_epoch = False, 5
    assert "mixed" not in data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)


def test_on_an_accelerator_batches_that_are_made_together_are_as_large_and_as_mixed(make_data, monkeypatch):
    monkeypatch.setattr(DataModule, "on_accelerator", True)
    data = make_data(Progressive(sizes=[[0, 16]], alternate=True), Mixup(alpha=5.0))
    batches = trained_on(data, 1)
    assert [batch["images"].shape for batch in batches] == [(8, 1, 16, 16)] * 4
    assert all(len(batch[name]) == 8 for batch in batches for name in ("mixed", "other_labels"))
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(32))


def test_no_batch_waits_for_the_device(make_data):
    augment = replace(composed("augment", "progressive"), sizes=[[0, 16]], alternate=True)
    data = make_data(augment, Mixup(), soft_labels=np.full((40, 2), 0.5, np.float32))
    [batch, *_] = data.train_dataloader()
    trained_on(data, 0)
    with Waits() as waited, Reads() as read:
        data.on_after_batch_transfer(batch, 0)
    assert not waited.seen + read.seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(({"alpha": value}, rf"mixup\.alpha={value} must be a number above 0") for value in (0, -1, NAN, INF)),
        *(
            ({"share": value}, rf"mixup\.share={value} must be a number above 0 and at most 1")
            for value in (0, -1, 1.5, NAN, INF)
        ),
        *(({"start": value}, rf"mixup\.start={value} must be a number from 0 to 1") for value in (-1, 1.5, NAN, INF)),
        *(({"end": value}, rf"mixup\.end={value} must be a number from 0 to 1") for value in (-1, 1.5, NAN, INF)),
        ({"start": 0.5, "end": 0.5}, r"mixup\.end=0\.5 must be above mixup\.start=0\.5"),
    ],
)
def test_numbers_of_mixup_out_of_range_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        Mixup(**arguments)


# --- ten crops that are zoomed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "tall", "wide"), [(48, 48, 44, 44), (96, 60, 88, 55)])
def test_zoomed_crops_are_the_resized_windows_and_their_mirror_images(height, width, tall, wide):
    images = torch.rand(2, 2, height, width)
    views = ten_crop_zoom_views(images)
    assert len(views) == 10
    assert all(view.shape == images.shape for view in views)
    places = [(top, left) for top in (0, height - tall) for left in (0, width - wide)]
    for top, left in [((height - tall) // 2, (width - wide) // 2), *places]:
        window = images[:, :, top : top + tall, left : left + wide]
        expected = affine(window, 0.0, 0.0, 0.0, 0.0, size=(height, width))
        for view in (expected, expected.flip(3)):
            assert sum(torch.allclose(view, found, atol=1e-5) for found in views) == 1
    assert all(torch.equal(*pair) for pair in zip(views, ten_crop_zoom_views(images), strict=True))
