"""Which images make up a batch, where they lie, and what happens to them before the network sees them."""

import json
import logging
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from engrec.data import (
    Batches,
    BatchIndices,
    DataModule,
    EqualSubjects,
    ahead,
    check_monitor,
    divide,
    preprocessing_of,
)
from engrec.faces.crop import STANDARD, Crop
from engrec.splits import KFold, Official, Split, Teachers
from engrec.transforms import epoch_seed


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


SUBJECTS = np.repeat(["a", "b", "c"], [1, 4, 15])


def balanced(epoch=0, rank=0, world_size=1, batch_size=4, seed=0):
    """Of 1, 4 and 15 images of three subjects, those of an epoch."""
    sampler = EqualSubjects(np.arange(100, 120), batch_size, True, seed, rank, world_size, subjects=SUBJECTS)
    sampler.set_epoch(epoch)
    return [batch.tolist() for batch in sampler]


def test_subjects_are_drawn_equally_often():
    """20 images of three subjects are 6 or 7 of each; none comes twice before all others of its subject have."""
    for epoch in range(10):
        images = np.array([i for batch in balanced(epoch) for i in batch])
        assert len(images) == 20
        times = np.bincount(images - 100, minlength=20)
        assert sorted(np.bincount(np.repeat([0, 1, 2], [1, 4, 15]), times)) == [6, 7, 7]
        assert times[1:5].min() >= 1
        assert times[5:].max() == 1


def test_the_subject_that_has_one_more_changes_and_so_do_the_images():
    first, *others = (np.bincount([i - 100 for b in balanced(epoch) for i in b], minlength=20) for epoch in range(10))
    assert len({int(times[0]) for times in (first, *others)}) == 2
    assert {i for times in (first, *others) for i in np.flatnonzero(times)} == set(range(20))


def test_balanced_epochs_follow_from_seed_and_epoch_on_any_number_of_ranks():
    assert balanced(3) == balanced(3) != balanced(4)
    assert balanced(3, seed=1) != balanced(3)
    alone = [sorted(batch) for batch in balanced(1)]
    ranks = [balanced(1, rank=rank, world_size=2, batch_size=2) for rank in range(2)]
    assert [sorted(one + other) for one, other in zip(*ranks, strict=True)] == alone


def test_training_is_balanced_by_subject_and_evaluation_is_not(make_faces):
    subjects = np.array(["a"] * 2 + ["b"] * 12 + ["c"] * 5 + ["d"] * 5)
    split = Split(np.arange(0, 14), np.arange(14, 19), np.arange(19, 24))
    data = DataModule(make_faces(subjects=subjects), split, upside_down, 7, balance="subject")
    seen = subjects[torch.cat([batch["index"] for batch in data.train_dataloader()]).numpy()]
    assert (seen == "a").sum() == (seen == "b").sum() == 7
    assert [i for batch in data.val_dataloader() for i in batch["index"].tolist()] == list(range(14, 19))


def test_class_counts_are_those_of_a_balanced_epoch(make_faces):
    """Subject a has 2 images of class 0, b has 4 of class 0 and 8 of class 1: 7 + 7/3 and 14/3 of 14."""
    labels = np.array([0] * 2 + [0] * 4 + [1] * 8 + [0, 1] * 5)
    subjects = np.array(["a"] * 2 + ["b"] * 12 + ["c"] * 10)
    split = Split(np.arange(0, 14), np.arange(14, 19), np.arange(19, 24))
    data = DataModule(make_faces(labels=labels, subjects=subjects), split, upside_down, 7, balance="subject")
    assert data.class_counts == pytest.approx([7 + 7 / 3, 14 / 3])
    seen = torch.zeros(2)
    for epoch in range(300):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        seen += torch.cat([batch["labels"] for batch in loader]).bincount(minlength=2)
    assert (seen / 300).tolist() == pytest.approx(data.class_counts, rel=0.02)


def test_without_subjects_nothing_can_be_balanced(make_faces):
    split = Split(np.arange(0, 14), np.arange(14, 19), np.arange(19, 24))
    with pytest.raises(ValueError, match=r"random has no subjects to balance: set balance=null"):
        DataModule(make_faces(subjects=None), split, upside_down, 4, balance="subject")


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


@pytest.mark.parametrize(
    ("recipe", "crop"),
    [
        ({"importer": "fer2013", "crop": "as distributed"}, STANDARD),
        ({"importer": "wacv2016"}, STANDARD),
        ({"importer": "manifest", "crop": "as distributed"}, None),
        ({"importer": "faces", "crop": Crop(side=1.3).as_dict()}, Crop(side=1.3)),
    ],
)
def test_preprocessing_says_how_faces_were_cropped_where_it_is_known(make_faces, recipe, crop):
    stored = preprocessing_of(make_faces(recipe={"name": "mine"} | recipe)).get("crop")
    assert stored == (None if crop is None else json.loads(json.dumps(crop.as_dict())))


def test_class_counts_are_those_of_training(data):
    assert data.class_counts == [5, 5, 4]
    assert all(type(count) is int for count in data.class_counts)


def test_what_was_seen_is_the_same_in_another_order_and_of_no_other_images(make_faces):
    faces, index = make_faces(), np.arange(24)

    def seen(train, val, test):
        return DataModule(faces, Split(train, val, test), lambda images: images, 4).seen

    assert seen(index[:12], index[12:18], index[18:]) == seen(index[6:18][::-1], index[:6], index[18:])
    assert seen(index[:12], index[12:18], index[18:]) != seen(index[:12], index[12:17], index[17:])


@pytest.mark.parametrize(
    ("trainings", "known"),
    [
        ([], False),
        ([{"dataset": "others", "seen": "more"}], False),
        ([{"dataset": "random", "seen": "own"}], False),
        ([{"dataset": "random", "seen": None}], None),
        ([{"dataset": "random"}, {"dataset": "random", "seen": "own"}], None),
        ([{"dataset": "random", "seen": "more"}], True),
        ([{"dataset": "random", "seen": None}, {"dataset": "random", "seen": "more"}], True),
    ],
)
def test_a_network_may_know_images_of_its_own_data_set_alone(make_faces, trainings, known):
    index = np.arange(24)
    data = DataModule(make_faces(), Split(index[:12], index[12:18], index[18:]), lambda images: images, 4)
    named = [one | ({"seen": data.seen} if one.get("seen") == "own" else {}) for one in trainings]
    assert data.may_know(named) is known


def until(condition):
    """Wait for another thread, five seconds at most; whether it came to that."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.fixture
def pins(monkeypatch):
    """The addresses of what is pinned, for which there need not be a GPU: the tensor stays where it is."""
    seen = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (seen.append(tensor.data_ptr()), tensor)[1])
    return seen


def loaders(num_images=23, shuffle=True):
    """The same batches, indexed when they are asked for and by a thread."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (130, 1, 4, 4), np.uint8))
    tensors = {"images": images, "labels": torch.arange(130) % 7}
    for pinned in (False, True):
        sampler = BatchIndices(np.arange(100, 100 + num_images), 4, shuffle, seed=0, rank=0, world_size=1)
        yield Batches(tensors, sampler, pinned)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_images", [2, 4, 9, 23])
def test_batches_are_the_same_with_and_without_a_thread(pins, num_images, shuffle):
    plain, threaded = loaders(num_images, shuffle)
    assert len(plain) == len(threaded)
    for epoch in range(3):
        listed = []
        for loader in (plain, threaded):
            loader.sampler.set_epoch(epoch)
            listed.append(list(loader))
            assert len(listed[-1]) == len(loader)
        for one, other in zip(*listed, strict=True):
            assert list(one) == list(other) == ["index", "images", "labels"]
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_thread_pins_every_tensor_and_without_it_none_is(pins):
    plain, threaded = loaders()
    list(plain)
    assert not pins
    found = [tensor for batch in list(threaded) for tensor in batch.values()]
    assert sorted(tensor.data_ptr() for tensor in found) == sorted(pins)


@pytest.mark.parametrize("pinned", [False, True])
def test_an_epoch_that_is_set_after_iter_of_a_loader_counts(pins, pinned):
    loader = list(loaders())[pinned]
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    assert [batch["index"].tolist() for batch in iterator] == batches(epoch=2)


class Indices(pl.LightningModule):
    """Learns nothing and remembers which images it was given in which epoch."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).append(batch["index"].tolist())
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("pinned", [False, True])
def test_the_trainer_sets_the_epoch_of_either_loader(pins, pinned):
    module = Indices()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, list(loaders())[pinned])
    assert module.seen == {epoch: batches(epoch=epoch) for epoch in range(3)}


@pytest.mark.parametrize("at_once", [2, 5, 100])
@pytest.mark.parametrize("num_images", [2, 4, 9, 23])
def test_batches_that_are_made_together_are_those_made_alone(num_images, at_once):
    plain, _ = loaders(num_images)
    prepared = []

    def prepare(batch):
        prepared.append(len(batch["index"]))
        return batch | {"images": batch["images"].float() / 255}

    together = Batches(plain.tensors, plain.sampler, at_once=at_once, prepare=prepare)
    assert len(together) == len(plain)
    for epoch in range(3):
        iterator = iter(together)
        plain.sampler.set_epoch(epoch)  # after iter(), as on resuming
        for one, other in zip(plain, iterator, strict=True):
            assert list(one) == list(other)
            assert torch.equal(one["images"].float() / 255, other["images"])
            assert all(torch.equal(one[name], other[name]) for name in ("index", "labels"))
    assert prepared == 3 * [sum(len(i) for i in part) for part in parts_of(batches(num_images), at_once)]


def parts_of(things, size):
    return [things[i : i + size] for i in range(0, len(things), size)]


@pytest.mark.parametrize(("pixels", "at_once"), [(0, 1), (4 * 256, 1), (2 * 4 * 256, 2), (7 * 4 * 256 - 1, 6)])
def test_on_an_accelerator_so_many_batches_are_made_together_as_it_may_hold(make_faces, monkeypatch, pixels, at_once):
    """12 training images of 16×16 in batches of 4."""
    split = Split(np.arange(12), np.arange(12, 17), np.arange(17, 24))
    data = DataModule(make_faces(), split, lambda images: images, 4, at_once=pixels)
    assert data.train_dataloader().at_once <= 1  # on a CPU
    monkeypatch.setattr(DataModule, "on_accelerator", True)
    assert max(1, data.train_dataloader().at_once) == at_once
    assert data.val_dataloader().at_once <= 1


def test_images_that_are_made_together_are_made_once(make_faces, monkeypatch):
    """Scaled, augmented and standardised as those made batch by batch are."""
    split, changed = Split(np.arange(12), np.arange(12, 17), np.arange(17, 24)), []

    def augment(images):
        changed.append(len(images))
        return images.flip(3)

    data = DataModule(make_faces(), split, augment, 4)
    data.trainer = SimpleNamespace(training=True, global_rank=0, world_size=1)
    alone = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    monkeypatch.setattr(DataModule, "on_accelerator", True)
    together = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert changed == [4, 4, 4, 12]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one["index"], other["index"])
        torch.testing.assert_close(one["images"], other["images"])


@pytest.mark.parametrize("number", [1, 3, 5])
def test_the_thread_is_as_many_calls_ahead_as_it_may_be_and_no_more(number):
    called = []
    results = ahead(lambda n: (called.append(threading.get_ident()), n * n)[1], range(20), number)
    assert not called
    for k in range(20):
        assert next(results) == k * k
        allowed = min(20, k + 1 + number)
        assert until(lambda allowed=allowed: len(called) >= allowed)
        time.sleep(0.002)  # in which one call more would be made, were it given to the thread
        assert len(called) == allowed
    assert list(results) == []
    assert len(set(called)) == 1
    assert called[0] != threading.get_ident()


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("place", [0, 1, 4, 9])
def test_an_error_comes_where_its_result_would(number, place):
    taken = []
    results = ahead(lambda n: 1 // (n - place), range(10), number)
    with pytest.raises(ZeroDivisionError):
        taken.extend(results)  # takes what comes before the error too
    assert taken == [1 // (n - place) for n in range(place)]
    assert list(results) == []


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("leave", ["close", "forget", "error"])
def test_an_iterator_that_is_left_half_way_ends_its_thread(leave):
    before, called = workers(), []

    def slowly(n):
        time.sleep(0.01)
        called.append(n)
        return n

    def half_way():
        results = ahead(slowly, range(10**6))
        with suppress(RuntimeError):
            for n in results:
                if n == 4 and leave == "error":
                    raise RuntimeError("in the middle of an epoch")
                if n == 4:
                    break
        if leave == "close":
            assert isinstance(results, Generator)
            results.close()

    leaving = threading.Thread(target=half_way, daemon=True)  # so that a test that fails does not hang either
    leaving.start()
    leaving.join(5)
    assert not leaving.is_alive()
    assert until(lambda: workers() == before)
    assert called == list(range(len(called)))
    assert 5 <= len(called) <= 5 + 3


def set_up(data, monkeypatch, root_device="cpu", memory=10**9):
    monkeypatch.setattr("engrec.data.memory_of", lambda device: memory)
    strategy = SimpleNamespace(root_device=torch.device(root_device))
    data.trainer = SimpleNamespace(strategy=strategy, training=False, global_rank=0, world_size=1)
    data.setup("fit")
    return data.train_dataloader()


@pytest.mark.parametrize(
    ("place", "share", "missing", "on_device"),
    [
        ("auto", 0.25, 0, True),
        ("auto", 0.25, 1, False),
        ("auto", 1.0, 0, True),
        ("auto", 1.0, 1, False),
        ("device", 0.25, 1, True),
        ("host", 0.25, 0, False),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta", "cuda"])
def test_the_data_set_is_on_the_device_where_it_is_asked_for_or_fits(
    data, monkeypatch, caplog, place, share, missing, on_device, device
):
    """To the byte that is missing. meta is a device that every torch has, and a host that pins needs no cuda."""
    device = "meta" if on_device and device == "cuda" else device
    data.place, data.device_share = place, share
    size = sum(tensor.nbytes for tensor in data.tensors.values())
    assert size == 24 * (16 * 16 + 8 + 3 * 4)
    with caplog.at_level(logging.INFO, "engrec.data"):
        loader = set_up(data, monkeypatch, device, round(size / share) - missing)
    found = device if on_device else "cpu"
    assert {tensor.device.type for tensor in (*data.tensors.values(), *loader.tensors.values())} == {found}
    assert next(iter(loader.sampler)).device.type == found  # or each batch would be indexed from afar
    assert data.pinned == loader.pinned == (device == "cuda")
    (said,) = caplog.messages
    assert said.startswith(f"the data set is on the {device if on_device else 'host'}: 0 MB (the {device} has")


def test_the_log_says_how_large_the_data_set_is_and_the_memory(make_faces, monkeypatch, caplog):
    faces = make_faces(num_images=24, size=300)
    data = DataModule(faces, Split(np.arange(8), np.arange(8, 16), np.arange(16, 24)), upside_down, 4)
    with caplog.at_level(logging.INFO, "engrec.data"):
        set_up(data, monkeypatch, memory=85_899_345_920)
    assert caplog.messages == ["the data set is on the cpu: 2 MB (the cpu has 85.9 GB)"]


def test_a_second_setup_changes_nothing_and_is_not_said(data, monkeypatch, caplog):
    """Lightning calls it for fit, validate and test each."""
    with caplog.at_level(logging.INFO, "engrec.data"):
        set_up(data, monkeypatch, "meta")
        before = data.tensors
        set_up(data, monkeypatch, "meta", memory=1)
        assert data.tensors is before
        assert len(caplog.messages) == 1


def test_another_device_is_moved_to(data, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "engrec.data"):
        set_up(data, monkeypatch, "cpu")
        assert data.device == torch.device("cpu")
        set_up(data, monkeypatch, "meta")
    assert data.device == torch.device("meta")
    assert [said.split(":")[0] for said in caplog.messages] == [f"the data set is on the {d}" for d in ("cpu", "meta")]


def test_batches_hold_what_they_held_before_setup(data, monkeypatch, pins):
    expected = list(data.train_dataloader())
    for place, device in (("device", "cpu"), ("host", "cuda")):
        data.place = place
        for one, other in zip(set_up(data, monkeypatch, device), expected, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_pixels_are_the_stored_images_on_the_device_of_the_index(data, monkeypatch):
    index = torch.tensor([7, 0, 7, 23])
    pixels = data.pixels(index)
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(pixels, data.faces.images[index.numpy()])
    set_up(data, monkeypatch, "meta")
    assert data.pixels(index.to("meta")).device.type == "meta"
    assert data.pixels(index.to("meta")).shape == pixels.shape


def test_a_teachers_fold_parts_no_copies_and_no_person(make_faces):
    """Half of the images repeat another one, with other labels and people; three images are of one person."""
    faces = make_faces(96, num_classes=2, splits=np.array(["train"] * 84 + ["val"] * 6 + ["test"] * 6))
    faces.images[42:84] = faces.images[:42, :, :, ::-1]
    for fold in range(3):
        split = divide(faces, Teachers(fold, num_folds=3, val_fraction=0.3))
        parts = [set(side.tolist()) for side in (split.train, split.val, split.test)]
        assert set.union(*parts) == set(range(84))
        for part in parts:
            assert part == {(i + 42) % 84 for i in part}
            assert part == {i // 3 * 3 + k for i in part for k in range(3)}


def test_frames_of_a_clip_stay_together_where_nobody_knows_the_people(make_faces):
    """In the validation images that are taken from the training part, and among teachers."""
    clips = np.array([f"c{i // 8:02d}.mp4" for i in range(96)])
    labels, parts = np.arange(96) // 8 % 2, np.array(["train"] * 72 + ["test"] * 24)
    faces = make_faces(96, subjects=None, clips=clips, labels=labels, splits=parts)
    splits = [divide(faces, Official()), *(divide(faces, Teachers(fold, 3, 0.3)) for fold in range(3))]
    for split in splits:
        seen = [set(clips[side].tolist()) for side in (split.train, split.val, split.test)]
        assert all(seen)
        assert sum(map(len, seen)) == len(set.union(*seen))


def test_a_metric_that_is_undefined_on_the_validation_images_chooses_no_epoch(make_faces):
    faces = make_faces(24, num_classes=3)
    lacking = Split(np.arange(12), np.flatnonzero(np.arange(24) % 3 < 2)[8:], np.arange(20, 24))
    with pytest.raises(ValueError, match=r"validation has no image of class class2, so val/auc is undefined"):
        check_monitor("val/auc", faces, lacking)
    check_monitor("val/balanced_accuracy", faces, lacking)
    check_monitor("val/auc", faces, Split(np.arange(12), np.arange(12, 20), np.arange(20, 24)))


def test_a_split_that_is_impossible_names_the_data_set(make_faces):
    with pytest.raises(ValueError, match=r"^random: the data set has no subjects"):
        divide(make_faces(subjects=None), KFold(0))
    with pytest.raises(ValueError, match=r"^random: the data set has no official split"):
        divide(make_faces(), Teachers(0))
