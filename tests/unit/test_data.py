"""Which images make up a batch, and what happens to them before the network sees them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engrec.data import BatchIndices, DataModule, epoch_seed
from engrec.splits import Split


def batches(num_images=23, batch_size=4, shuffle=True, seed=0, epoch=0, rank=0, world_size=1):
    sampler = BatchIndices(np.arange(100, 100 + num_images), batch_size, shuffle, seed, rank, world_size)
    sampler.set_epoch(epoch)
    listed = [batch.tolist() for batch in sampler]
    assert len(listed) == len(sampler)
    return listed


def test_the_order_follows_from_seed_and_epoch():
    assert batches(seed=3, epoch=2) == batches(seed=3, epoch=2)
    orders = [batches(seed=seed, epoch=epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_an_epoch_that_is_set_after_iter_counts():
    """As it is when a training is resumed."""
    sampler = BatchIndices(np.arange(100, 123), 4, True, 0, 0, 1)
    iterator = iter(sampler)
    sampler.set_epoch(2)
    assert [batch.tolist() for batch in iterator] == batches(epoch=2)


def test_epochs_of_neighbouring_seeds_have_nothing_in_common():
    seeds = [epoch_seed(seed, epoch) for seed in range(30) for epoch in range(30)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_images", [3, 4, 12, 23, 24, 25])
def test_in_order_every_image_comes_exactly_once(num_images, world_size):
    ranks = [batches(num_images, 4, False, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = [i for rank in ranks for batch in rank for i in batch]
    assert sorted(seen) == list(range(100, 100 + num_images))
    for rank in ranks:
        assert [i for batch in rank for i in batch] == sorted(i for batch in rank for i in batch)
        assert all(len(batch) == 4 for batch in rank[:-1])


@pytest.mark.parametrize("world_size", [2, 3])
def test_shuffled_shards_are_disjoint_and_as_long_as_each_other(world_size):
    ranks = [batches(50, 4, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = [i for rank in ranks for batch in rank for i in batch]
    assert len(set(seen)) == len(seen) == 50 // (4 * world_size) * 4 * world_size
    assert len({len(rank) for rank in ranks}) == 1


def test_a_short_last_batch_is_dropped_and_its_images_change_from_epoch_to_epoch():
    assert [len(batch) for batch in batches(23, 4)] == [4] * 5
    dropped = [set(range(100, 123)) - {i for batch in batches(23, 4, epoch=epoch) for i in batch} for epoch in range(3)]
    assert [len(images) for images in dropped] == [3, 3, 3]
    assert set.union(*dropped) != dropped[0]


def test_a_data_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(batch) for batch in batches(3, 128)] == [[100, 101, 102]]


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_step_sees_the_same_images_on_any_number_of_ranks(world_size):
    alone = [set(batch) for batch in batches(64, 16, epoch=1)]
    ranks = [batches(64, 16 // world_size, epoch=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [set().union(*step) for step in zip(*ranks, strict=True)] == alone


@pytest.fixture
def data(make_faces):
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 24).astype(np.float32)
    faces = make_faces(num_classes=3, soft_labels=soft)
    return DataModule(faces, Split(np.arange(0, 14), np.arange(14, 19), np.arange(19, 24)), upside_down, 4, seed=5)


def upside_down(images):
    return 1 - images.flip(2)


def on(data, training, batch):
    data.trainer = SimpleNamespace(training=training, global_rank=0, world_size=1)
    return data.on_after_batch_transfer(batch, 0)


def test_a_batch_has_the_images_of_its_index(data):
    seen = []
    for batch in data.train_dataloader():
        index = batch["index"].numpy()
        seen += index.tolist()
        np.testing.assert_array_equal(batch["images"], data.faces.images[index])
        np.testing.assert_array_equal(batch["labels"], data.faces.labels[index])
        np.testing.assert_array_equal(batch["soft_labels"], data.faces.soft_labels[index])
        assert batch["images"].dtype == torch.uint8
    assert len(seen) == 12
    assert set(seen) <= set(range(14))


@pytest.mark.parametrize(("side", "expected"), [("val", range(14, 19)), ("test", range(19, 24))])
def test_evaluation_takes_its_side_in_order(data, side, expected):
    loader = getattr(data, f"{side}_dataloader")()
    assert [i for batch in loader for i in batch["index"].tolist()] == list(expected)


def test_images_are_augmented_in_training_only(data):
    batch = next(iter(data.val_dataloader()))
    trained, evaluated = (on(data, training, batch)["images"] for training in (True, False))
    torch.testing.assert_close(trained, -evaluated.flip(2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_images_are_standardised(data, training):
    batch = next(iter(data.test_dataloader()))
    images = on(data, training, batch)["images"]
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean((1, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.var((1, 2, 3), unbiased=False), torch.ones(5), rtol=1e-4, atol=0)


def test_the_data_set_itself_is_not_touched(data):
    before = data.faces.images.copy()
    for batch in data.train_dataloader():
        done = on(data, True, batch)
        assert set(done) == {"index", "images", "labels", "soft_labels"}
        assert batch["images"].dtype == torch.uint8
    np.testing.assert_array_equal(data.faces.images, before)


def test_reading_batches_draws_no_random_numbers(data):
    """Dropout and augmentation would else depend on how often a loader was started."""
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(list(loader)) == len(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_preprocessing_says_what_the_input_is(make_faces):
    split = Split(np.arange(8), np.arange(8, 16), np.arange(16, 24))
    data = DataModule(make_faces(channels=3, size=20), split, upside_down, 4)
    assert data.preprocessing == {"channels": 3, "height": 20, "width": 20, "normalize": "image"}
    assert all(type(value) in (int, str) for value in data.preprocessing.values())


def test_class_counts_are_those_of_training(data):
    assert data.class_counts == [5, 5, 4]
    assert all(type(count) is int for count in data.class_counts)


def test_what_was_seen_is_the_same_in_another_order_and_of_no_other_images(make_faces):
    faces, index = make_faces(), np.arange(24)

    def seen(train, val, test):
        return DataModule(faces, Split(train, val, test), lambda images: images, 4).seen

    assert seen(index[:12], index[12:18], index[18:]) == seen(index[6:18][::-1], index[:6], index[18:])
    assert seen(index[:12], index[12:18], index[18:]) != seen(index[:12], index[12:17], index[17:])
