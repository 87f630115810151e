"""A checkpoint on disk is complete and of one moment, whoever writes it; the newest one waits."""

import errno
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from engrec.runs import checkpoint_io
from engrec.runs.checkpoint_io import Saver


def checkpoint(value, epoch=0):
    return {"state_dict": {"weight": torch.full((3, 2), value)}, "epoch": epoch, "nested": [{"moment": torch.ones(2)}]}


def read(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def held(monkeypatch):
    """What is written, in order, by a thread that is held before each writing until it is let go."""
    let_go, order, really = threading.Semaphore(0), [], checkpoint_io.write

    def write(checkpoint, path):
        assert let_go.acquire(timeout=20)
        order.append((path.name, checkpoint["epoch"]))
        really(checkpoint, path)

    monkeypatch.setattr(checkpoint_io, "write", write)
    return let_go, order


@pytest.fixture
def saver():
    made = Saver(beside=True)
    yield made
    made.waiting.clear()
    if made.thread is not None:
        made.thread.shutdown()


@pytest.mark.parametrize("beside", [None, True])
def test_it_comes_back_as_it_was_and_leaves_nothing_beside_it(tmp_path, beside):
    saver, path = Saver(beside), tmp_path / "new" / "last.ckpt"
    saver.save_checkpoint(checkpoint(1.5, 7), path)
    saver.teardown()
    found = read(path)
    assert found["epoch"] == 7
    assert torch.equal(found["state_dict"]["weight"], torch.full((3, 2), 1.5))
    assert torch.equal(found["nested"][0]["moment"], torch.ones(2))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_on_a_cpu_nothing_is_copied_and_no_thread_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_io, "copied_to_host", None)
    saver = Saver()
    saver.save_checkpoint(checkpoint(1.0), tmp_path / "last.ckpt")
    assert saver.thread is None
    assert (tmp_path / "last.ckpt").is_file()


def test_it_is_of_the_moment_when_it_was_saved(tmp_path, saver, held):
    let_go, _ = held
    given = checkpoint(1.0)
    saver.save_checkpoint(given, tmp_path / "last.ckpt")
    given["state_dict"]["weight"].fill_(9)  # as the next step of the optimizer does
    given["nested"][0]["moment"].zero_()
    assert not (tmp_path / "last.ckpt").exists()
    let_go.release()
    saver.teardown()
    assert torch.equal(read(tmp_path / "last.ckpt")["state_dict"]["weight"], torch.ones(3, 2))
    assert torch.equal(read(tmp_path / "last.ckpt")["nested"][0]["moment"], torch.ones(2))


def test_strides_are_kept(tmp_path, saver):
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    saver.save_checkpoint({"state_dict": {"weight": weight}}, tmp_path / "last.ckpt")
    saver.teardown()
    found = read(tmp_path / "last.ckpt")["state_dict"]["weight"]
    assert torch.equal(found, weight)
    assert found.stride() == weight.stride()


def taken_by_the_thread(saver):
    while saver.waiting:
        pass


def test_the_newest_takes_the_place_of_what_waits_last_under_its_name(tmp_path, saver, held):
    let_go, order = held
    for epoch in range(5):
        saver.save_checkpoint(checkpoint(1.0, epoch), tmp_path / "last.ckpt")
        if epoch == 0:
            taken_by_the_thread(saver)
        assert len(saver.waiting) == min(epoch, 1)
    for _ in range(2):
        let_go.release()
    saver.teardown()
    assert order == [("last.ckpt", 0), ("last.ckpt", 4)]
    assert read(tmp_path / "last.ckpt")["epoch"] == 4


def test_the_best_of_an_epoch_is_written_before_the_last_that_speaks_of_it(tmp_path, saver, held):
    """Of two epochs while another is written; the second has no better best."""
    let_go, order = held
    saver.save_checkpoint(checkpoint(1.0, 0), tmp_path / "last.ckpt")
    taken_by_the_thread(saver)
    for name, epoch in (("best.ckpt", 1), ("last.ckpt", 1), ("last.ckpt", 2)):
        saver.save_checkpoint(checkpoint(1.0, epoch), tmp_path / name)
    for _ in range(3):
        let_go.release()
    saver.teardown()
    assert order == [("last.ckpt", 0), ("best.ckpt", 1), ("last.ckpt", 2)]


def test_a_third_that_would_wait_waits_for_the_disk(tmp_path, saver, held):
    let_go, order = held
    names = ("best.ckpt", "last.ckpt", "best.ckpt", "last.ckpt")

    def train():
        for epoch, name in enumerate(names):
            saver.save_checkpoint(checkpoint(1.0, epoch), tmp_path / name)

    training = threading.Thread(target=train, daemon=True)
    training.start()
    training.join(0.5)
    assert training.is_alive()  # with the fourth in hand
    assert len(saver.waiting) == 2
    let_go.release()
    training.join(20)
    assert not training.is_alive()
    for _ in range(3):
        let_go.release()
    saver.teardown()
    assert order == [(name, epoch) for epoch, name in enumerate(names)]


@pytest.mark.parametrize("beside", [None, True])
def test_what_cannot_be_written_is_raised_and_the_one_before_stays(tmp_path, monkeypatch, beside):
    path, saver = tmp_path / "last.ckpt", Saver(beside)
    saver.save_checkpoint(checkpoint(1.0), path)
    saver.teardown()

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)

    def save():
        saver.save_checkpoint(checkpoint(2.0), path)
        saver.teardown()

    with pytest.raises(OSError, match="No space left"):
        save()
    saver.teardown()  # which has been said
    assert read(path)["state_dict"]["weight"][0, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which is Linux's")
def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    (tmp_path / f".last.ckpt.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        Saver().save_checkpoint(checkpoint(1.0), tmp_path / "last.ckpt")
    assert not [*tmp_path.iterdir()]


TOO_LARGE = """
import resource, sys, torch
from pathlib import Path
from engrec.runs.checkpoint_io import Saver

for size in (1, 1000, 200_000, 3_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        Saver().save_checkpoint({"state_dict": {str(i): torch.zeros(50_000) for i in range(20)}}, Path(sys.argv[1]))
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_disk_that_fills_up_in_the_middle_is_an_error_of_the_system(tmp_path):
    """torch would say "unexpected pos 802112 vs 802064"."""
    path = tmp_path / "last.ckpt"
    done = subprocess.run([sys.executable, "-c", TOO_LARGE, path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == 4 * [f"{errno.EFBIG} {path}"], done.stderr
    assert not [*tmp_path.iterdir()]


def test_what_the_thread_could_not_write_stops_the_next_saving(tmp_path, monkeypatch, saver):
    monkeypatch.setattr(checkpoint_io, "write", lambda checkpoint, path: 1 / 0)
    saver.save_checkpoint(checkpoint(1.0), tmp_path / "last.ckpt")
    while not saver.written[0].done():
        pass
    with pytest.raises(ZeroDivisionError):
        saver.save_checkpoint(checkpoint(1.0), tmp_path / "last.ckpt")


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.5)


class Stop(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 3:
            raise SystemExit(143)  # as a signal does


def fit(folder, beside, *callbacks):
    kept = [ModelCheckpoint(folder, name, enable_version_counter=False, **how) for name, how in KEPT.items()]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=5,
        callbacks=[*kept, *callbacks],
        plugins=[Saver(beside)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))
    with suppress(SystemExit):
        trainer.fit(Line(), torch.utils.data.DataLoader(list(batches), batch_size=None))


KEPT = {"best": {"monitor": "loss", "save_weights_only": True}, "last": {}}


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:The number of training")
@pytest.mark.parametrize("stop", [[], [Stop()]], ids=["to the end", "stopped"])
def test_a_training_leaves_what_it_would_without_a_thread(tmp_path, stop):
    for name, beside in (("plain", None), ("thread", True)):
        fit(tmp_path / name, beside, *stop)
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (read(tmp_path / folder / name) for folder in ("plain", "thread"))
        assert one["epoch"] == other["epoch"] == (2 if stop else 4)
        assert torch.equal(one["state_dict"]["layer.weight"], other["state_dict"]["layer.weight"])
    moments = [
        read(tmp_path / folder / "last.ckpt")["optimizer_states"][0]["state"][0] for folder in ("plain", "thread")
    ]
    assert torch.equal(*(moment["momentum_buffer"] for moment in moments))
