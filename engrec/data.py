"""A data set and a split become batches, indexed at once and turned into network input on the device that trains."""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Sampler

from engrec import splits
from engrec.datasets.faults import kept_together
from engrec.datasets.prepared import Faces
from engrec.datasets.schema import SPLITS
from engrec.faces.crop import crop_of
from engrec.machine.hardware import memory_of
from engrec.splits import Official, Split, Strategy
from engrec.transforms import Batch, Mixup, Progressive, epoch_seed, mirrored_at_first, standardize, to_float
from engrec.words import counted

log = logging.getLogger(__name__)


class Batches:
    """Batches of some tensors: one index operation per tensor, nothing per image.

    pinned: the tensors are on the host and the device is not; a thread then indexes a few batches ahead into pinned
    memory, from which the device copies without waiting. at_once: this many batches are indexed, and changed by
    `prepare`, in one operation, which costs the host of a GPU as much as one batch would.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        sampler: "BatchIndices",
        pinned: bool = False,
        at_once: int = 1,
        prepare: Callable[[Batch], Batch] = dict,
    ) -> None:
        self.tensors, self.pinned, self.at_once, self.prepare = tensors, pinned, at_once, prepare
        self.sampler = self.batch_sampler = sampler  # under both names, as Lightning looks for one to shuffle

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        if self.at_once > 1:
            return self._at_once()
        return ahead(self._pinned, self.sampler) if self.pinned else map(self.take, self.sampler)

    def take(self, index: Tensor) -> Batch:
        """The batch of the images at `index` (B,), integers on the tensors' device."""
        return {"index": index} | {name: tensor[index] for name, tensor in self.tensors.items()}

    def _at_once(self) -> Iterator[Batch]:
        batches = iter(self.sampler)
        while indices := list(islice(batches, self.at_once)):
            together = self.prepare(self.take(torch.cat(indices)))
            parts = zip(*(tensor.split([len(index) for index in indices]) for tensor in together.values()), strict=True)
            yield from (dict(zip(together, part, strict=True)) for part in parts)

    def _pinned(self, index: Tensor) -> Batch:
        return {name: tensor.pin_memory() for name, tensor in self.take(index).items()}


def ahead(function: Callable[[Any], Any], arguments: Iterable[Any], number: int = 3) -> Iterator[Any]:
    """function(argument) for each argument in order, computed by a thread that is `number` calls ahead."""
    arguments = iter(arguments)
    with ThreadPoolExecutor(1) as thread:
        results = deque(thread.submit(function, argument) for argument in islice(arguments, number))
        while results:
            result = results.popleft().result()
            results.extend(thread.submit(function, argument) for argument in islice(arguments, 1))
            yield result


class BatchIndices(Sampler[Tensor]):
    """The image indices of each batch, for one rank of `world_size`.

    Shuffled: the order depends on seed and epoch alone, whatever the world size; images that would make a short last
    batch are left out of the epoch. In order: every image comes exactly once over all ranks.
    """

    def __init__(
        self,
        index: np.ndarray,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.index, self.batch_size, self.shuffle, self.seed = torch.from_numpy(index), batch_size, shuffle, seed
        self.rank, self.world_size, self.device, self.epoch = rank, world_size, device, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, len(self.index) // (self.batch_size * self.world_size))
        return -(-len(self.index[self.rank :: self.world_size]) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, as the trainer sets the epoch after iter() when it resumes.
        order = self.index
        if self.shuffle:
            order = self.shuffled(torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch)))
        order = order[self.rank :: self.world_size].to(self.device)  # the whole order in one copy
        yield from order.split(self.batch_size)[: len(self)]

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """The images of an epoch (N,) in the order in which all ranks together take them."""
        return self.index[torch.randperm(len(self.index), generator=generator)]


class EqualSubjects(BatchIndices):
    """Shuffled images of which each subject has the same number in an epoch, to one image, as many in all as there are.

    A subject with few images has them repeated, each as often as the others; of one with many, some wait for another
    epoch.
    """

    def __init__(self, index: np.ndarray, *settings: Any, subjects: np.ndarray) -> None:
        """subjects (N,): of the images at `index`."""
        super().__init__(index, *settings)
        number = np.unique(subjects, return_inverse=True)[1]
        self.of_subject = [self.index[torch.from_numpy(number == i)] for i in range(number.max() + 1)]

    def shuffled(self, generator: torch.Generator) -> Tensor:
        each, more = divmod(len(self.index), len(self.of_subject))
        lucky = torch.randperm(len(self.of_subject), generator=generator)[:more].tolist()
        parts = [drawn(own, each + (i in lucky), generator) for i, own in enumerate(self.of_subject)]
        order = torch.cat(parts)
        return order[torch.randperm(len(order), generator=generator)]


def drawn(index: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """So many of these images (M,): all of them, shuffled, as often as needed, so that none comes twice more often than
    another."""
    rounds = [torch.randperm(len(index), generator=generator) for _ in range(-(-number // len(index)))]
    return index[torch.cat(rounds)[:number]] if rounds else index[:0]


class DataModule(pl.LightningDataModule):
    """A data set, its split, and what happens to a batch on the device: scale, augment, standardise, mix.

    augment and mixup act in training alone, as their epoch says; evaluation is at the size of the stored images.
    place: where the images are kept as uint8, on the "device" that trains or on the "host"; "auto" is the device if
    they take at most the share device_share of its memory. at_once: pixels of training batches that an accelerator
    prepares together (16 M pixels are 67 MB). balance: "subject" gives each subject the same number of images in an
    epoch of training.

    Raises ValueError where balance needs subjects and there are none.
    """

    def __init__(
        self,
        faces: Faces,
        split: Split,
        augment: Callable[[Tensor], Tensor],
        batch_size: int,
        seed: int = 0,
        eval_batch_size: int = 512,
        place: str = "auto",
        device_share: float = 0.25,
        at_once: int = 2**24,
        mixup: Mixup | None = None,
        balance: Literal["subject"] | None = None,
    ) -> None:
        super().__init__()
        if balance is not None and faces.subjects is None:
            raise ValueError(f"{faces.name} has no subjects to balance: set balance=null")
        self.faces, self.split, self.augment, self.mixup = faces, split, augment, mixup
        if isinstance(augment, Progressive):
            check_sizes(augment, faces.images.shape[2])
        self.batch_size, self.seed, self.eval_batch_size = batch_size, seed, eval_batch_size
        self.place, self.device_share, self.at_once, self.balance = place, device_share, at_once, balance
        self.tensors = {"images": torch.from_numpy(faces.images), "labels": torch.from_numpy(faces.labels)}
        if faces.soft_labels is not None:
            self.tensors["soft_labels"] = torch.from_numpy(faces.soft_labels)
        self.placed_for: torch.device | None = None
        self.pinned = False

    @property
    def preprocessing(self) -> dict[str, Any]:
        return preprocessing_of(self.faces)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of all that the network is given: training images by epoch, and those of evaluation."""
        height, width = self.faces.images.shape[2:]
        sides = [side for _, side in self.augment.sizes or ()] if isinstance(self.augment, Progressive) else []
        return [*((int(side), round(side * width / height)) for side in sides), (height, width)]

    @cached_property
    def seen(self) -> str:
        return seen(self.faces, self.split)

    def may_know(self, trainings: Iterable[Mapping[str, Any]]) -> bool | None:
        """Whether a network with these trainings may know the test images, or people in them. See `may_know`."""
        return may_know(trainings, self.faces, self.split)

    @property
    def num_people(self) -> dict[str, int] | None:
        return num_people(self.faces, self.split)

    @property
    def class_counts(self) -> list[int] | list[float]:
        """Images of each class in an epoch of training; with balance, as many as are expected."""
        train, num_classes = self.split.train, len(self.faces.class_names)
        labels = self.faces.labels[train]
        if self.balance is None:
            return np.bincount(labels, minlength=num_classes).tolist()
        _, subject, images = np.unique(self._subjects(train), return_inverse=True, return_counts=True)
        times = len(train) / len(images) / images[subject]  # that an image is drawn
        return np.bincount(labels, times, num_classes).tolist()

    def _subjects(self, index: np.ndarray) -> np.ndarray:
        assert self.faces.subjects is not None
        return self.faces.subjects[index]

    def setup(self, stage: str) -> None:
        """Move the data set to the device that trains, or leave it on the host."""
        device = self.trainer.strategy.root_device  # pyright: ignore[reportOptionalMemberAccess]
        if device == self.placed_for:
            return
        self.placed_for = device
        size, memory = sum(tensor.nbytes for tensor in self.tensors.values()), memory_of(device)
        fits = self.place == "device" or (self.place == "auto" and size <= self.device_share * memory)
        self.tensors = {name: tensor.to(device if fits else "cpu") for name, tensor in self.tensors.items()}
        self.pinned = not fits and device.type == "cuda"
        place = device.type if fits else "host"
        log.info(
            "the data set is on the %s: %.0f MB (the %s has %.1f GB)", place, size / 1e6, device.type, memory / 1e9
        )

    @property
    def device(self) -> torch.device:
        return self.tensors["images"].device

    def pixels(self, index: Tensor) -> Tensor:
        """The images (B, C, H, W) at `index` (B,) as they are stored, uint8, on the device of the index."""
        return self.tensors["images"][index.to(self.device)].to(index.device)

    def train_dataloader(self) -> Batches:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Batches:
        return self._loader(self.split.val, self.eval_batch_size, shuffle=False)

    def test_dataloader(self) -> Batches:
        return self._loader(self.split.test, self.eval_batch_size, shuffle=False)

    def _loader(self, index: np.ndarray, batch_size: int, shuffle: bool) -> Batches:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(index) < world_size:
            fewer = max(1, len(index))
            raise ValueError(
                f"{counted(len(index), 'image')} for {world_size} devices, so that one is idle: "
                f"set trainer.devices={fewer}"
            )
        settings = (index, batch_size, shuffle, self.seed, rank, world_size, self.device)
        balanced = shuffle and self.balance == "subject"
        sampler = EqualSubjects(*settings, subjects=self._subjects(index)) if balanced else BatchIndices(*settings)
        at_once = self.at_once // (batch_size * self.faces.images[0].size) if shuffle and self.on_accelerator else 1
        return Batches(self.tensors, sampler, self.pinned, at_once, self.network_input)

    @property
    def on_accelerator(self) -> bool:
        """Whether the data set is on a device that works asynchronously to the host."""
        return self.device.type != "cpu"

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch if batch["images"].is_floating_point() else self.network_input(batch)

    def network_input(self, batch: Batch) -> Batch:
        """The batch with its images scaled, augmented and mixed while training, and standardised."""
        images = to_float(batch["images"])
        if self.trainer is None or not self.trainer.training:
            return batch | {"images": standardize(images)}
        batch = batch | {"images": standardize(self._augmented(images, batch["index"]))}
        return self.mixup(batch) if self.mixup is not None and self.mixup.active(*self._epoch) else batch

    def _augmented(self, images: Tensor, index: Tensor) -> Tensor:
        if not isinstance(self.augment, Progressive):
            return self.augment(images)
        epoch, max_epochs = self._epoch
        height, width = images.shape[2:]
        mirrored = self._mirrored_at_first[index] ^ (epoch % 2 == 1) if self.augment.alternate else None
        size = self.augment.size(epoch, max_epochs, (height, width))
        return self.augment.at(epoch, max_epochs)(images, mirrored, size)

    @property
    def _epoch(self) -> tuple[int, int]:
        """The current epoch, and how many there are."""
        trainer = self.trainer
        return trainer.current_epoch, trainer.max_epochs  # pyright: ignore[reportOptionalMemberAccess, reportReturnType]

    @cached_property
    def _mirrored_at_first(self) -> Tensor:
        assert isinstance(self.augment, Progressive)
        device = self.trainer.strategy.root_device  # pyright: ignore[reportOptionalMemberAccess]
        return mirrored_at_first(len(self.faces.labels), self.augment.flip, self.seed).to(device)


def preprocessing_of(faces: Faces) -> dict[str, Any]:
    """What images go through; it must be the same wherever the network's weights are used. "crop" is missing where it
    is unknown how the faces were cropped."""
    channels, height, width = faces.images.shape[1:]
    crop = crop_of(faces.recipe.get("crop"), faces.recipe.get("importer"))
    size = {"channels": channels, "height": height, "width": width, "normalize": "image"}
    return size if crop is None else size | {"crop": crop.as_dict()}


def num_people(faces: Faces, split: Split) -> dict[str, int] | None:
    """Subjects in each part; None if they are unknown."""
    subjects = faces.subjects
    return None if subjects is None else {name: len(set(subjects[getattr(split, name)])) for name in SPLITS}


def seen(faces: Faces, split: Split) -> str:
    """A checksum of the images in training and validation."""
    sources = sorted(faces.sources[np.concatenate([split.train, split.val])].tolist())
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()


def may_know(trainings: Iterable[Mapping[str, Any]], faces: Faces, split: Split) -> bool | None:
    """Whether a network may have been trained on test images, or on people in them: one of its trainings (see
    checkpoint.trainings) was on this data set, but not on exactly the images in training and validation. None if it
    was on this data set, and on which of its images is not known."""
    task = faces.recipe.get("task")  # the synthetic faces of each task are others
    here = {
        one.get("seen") for one in trainings if one.get("dataset") == faces.name and task in (None, one.get("task"))
    }
    others = here - {seen(faces, split)}
    return None if others == {None} else bool(others)


def check_sizes(augment: Progressive, height: int) -> None:
    """Raise ValueError for training images larger than those stored."""
    if larger := [side for _, side in augment.sizes or () if side > height]:
        raise ValueError(f"augment.sizes has {larger[-1]:g} pixels, the images have {height}: set augment.sizes=[]")


def check_monitor(monitor: str, faces: Faces, split: Split) -> None:
    """Raise ValueError where the metric that chooses the epoch is undefined on the validation images."""
    missing = sorted(set(range(len(faces.class_names))) - set(faces.labels[split.val].tolist()))
    if monitor == "val/auc" and missing:
        names = ", ".join(faces.class_names[k] for k in missing)
        raise ValueError(
            f"{faces.name}: validation has no image of class {names}, so val/auc is undefined and can choose no epoch: "
            "set monitor=val/balanced_accuracy, another split.seed or a larger split.val_fraction"
        )


def divide(faces: Faces, strategy: Strategy) -> Split:
    """The split of a data set. Raises ValueError for one that is impossible, or cannot give an honest number."""
    groups = faces.subjects if strategy.parts_copies else kept_together(faces)
    if groups is None and isinstance(strategy, Official):
        groups = faces.clips  # frames of one clip are nearly the same image
    try:
        split = strategy(faces.labels, groups, faces.splits)
        splits.check(split, faces.labels, groups, len(faces.class_names), strategy.leaks)
    except ValueError as error:
        raise ValueError(f"{faces.name}: {error}") from error
    return split
