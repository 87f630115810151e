"""A data set and a split become batches: indexed whole on the host, made into network input on the device."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from engrec.datasets.prepared import Faces
from engrec.splits import Split
from engrec.transforms import standardize, to_float

Batch = dict[str, Tensor]


class Batches(Dataset[Batch]):
    """Whole batches of a Faces: one index operation per tensor, nothing per image."""

    def __init__(self, faces: Faces) -> None:
        self.tensors = {"images": torch.from_numpy(faces.images), "labels": torch.from_numpy(faces.labels)}
        if faces.soft_labels is not None:
            self.tensors["soft_labels"] = torch.from_numpy(faces.soft_labels)

    def __getitem__(self, index: Tensor) -> Batch:
        return {"index": index} | {name: tensor[index] for name, tensor in self.tensors.items()}


class BatchIndices(Sampler[Tensor]):
    """Which images make up each batch, for one rank of `world_size`.

    Shuffled, the order follows from seed and epoch alone, whatever the world size, and images that would make a short
    last batch are left out of the epoch; in order, every image comes exactly once over all ranks.
    """

    def __init__(
        self, index: np.ndarray, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int
    ) -> None:
        self.index, self.batch_size, self.shuffle, self.seed = torch.from_numpy(index), batch_size, shuffle, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, len(self.index) // (self.batch_size * self.world_size))
        return -(-len(self.index[self.rank :: self.world_size]) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, so that the epoch counts that is set after iter(): so the trainer does on resuming.
        order = self.index
        if self.shuffle:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            order = order[torch.randperm(len(order), generator=generator)]
        yield from order[self.rank :: self.world_size].split(self.batch_size)[: len(self)]


def epoch_seed(seed: int, epoch: int) -> int:
    """One seed for each epoch of each run, so that an epoch draws the same whether or not the run was interrupted."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


class DataModule(pl.LightningDataModule):
    """Faces, who trains and who tests, and what happens to a batch on the device: scale, augment, standardise."""

    def __init__(
        self,
        faces: Faces,
        split: Split,
        augment: Callable[[Tensor], Tensor],
        batch_size: int,
        seed: int = 0,
        eval_batch_size: int = 512,
    ) -> None:
        super().__init__()
        self.faces, self.split, self.augment = faces, split, augment
        self.batch_size, self.seed, self.eval_batch_size = batch_size, seed, eval_batch_size

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What the network's input is: to be the same wherever its weights are used."""
        channels, height, width = self.faces.images.shape[1:]
        return {"channels": channels, "height": height, "width": width, "normalize": "image"}

    @property
    def seen(self) -> str:
        """A checksum of which images training and validation see."""
        sources = sorted(self.faces.sources[np.concatenate([self.split.train, self.split.val])].tolist())
        return hashlib.sha256("\n".join(sources).encode()).hexdigest()

    @property
    def class_counts(self) -> list[int]:
        """Training images of each class."""
        return np.bincount(self.faces.labels[self.split.train], minlength=len(self.faces.class_names)).tolist()

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.split.val, self.eval_batch_size, shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.split.test, self.eval_batch_size, shuffle=False)

    def _loader(self, index: np.ndarray, batch_size: int, shuffle: bool) -> DataLoader[Batch]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = BatchIndices(index, batch_size, shuffle, self.seed, rank, world_size)
        # Its own generator, or each new iterator would draw from that of dropout and augmentation.
        return DataLoader(Batches(self.faces), batch_size=None, sampler=sampler, generator=torch.Generator())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images = to_float(batch["images"])
        if self.trainer is not None and self.trainer.training:
            images = self.augment(images)
        return batch | {"images": standardize(images)}
