"""A video's answers over time, as a picture: for each face its crop and, for each network, shares of the classes."""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from engrec.runs.pictures import write
from engrec.use.answers import Answerer, Seen, SeenFace
from engrec.use.colours import of_classes
from engrec.use.limits import LIMITS

MOST_BINS = 800  # of which a picture shows each as a pixel or two
MOST_FACES, MOST_KEPT = 4, 32  # shown; kept in memory
AWAY = 2.0  # seconds after which a face does not come back under its id
FINEST = 0.05  # seconds of a bin, at first
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000, 86400)  # seconds


@dataclass
class _OneFace:
    """crop: of the moment at which it was largest; last: seconds at which it was seen last; bins: number of frames,
    and sums of probabilities by network."""

    crop: np.ndarray
    largest: float
    last: float = 0.0
    num_frames: int = 0
    bins: dict[int, tuple[int, list[np.ndarray]]] = field(default_factory=dict)


class Timeline:
    """Gathers smoothed answers while a video is read. Memory does not grow with the video: bins become wider."""

    def __init__(self, title: str, answerer: Answerer) -> None:
        self.title, self.answerer = title, answerer
        self.width, self.end, self.num_frames, self.num_faces = FINEST, 0.0, 0, 0
        self.faces: dict[int, _OneFace] = {}

    def add(self, seen: Seen) -> None:
        seconds = max(0.0, seen.seconds or 0.0)
        self.end = max(self.end, seconds)
        self.num_frames += 1
        while seconds >= MOST_BINS * self.width:
            self._widen()
        for face, crop in zip(seen.faces, seen.crops, strict=True):
            self._add(face, crop, seconds)

    def _add(self, face: SeenFace, crop: np.ndarray, seconds: float) -> None:
        if face.face_id not in self.faces:
            self._make_room(seconds)
            self.num_faces += 1
        kept = self.faces.setdefault(face.face_id, _OneFace(crop, face.face_px))
        number = int(seconds // self.width)
        if face.face_px > kept.largest:
            kept.crop, kept.largest = crop, face.face_px
        kept.num_frames += 1
        kept.last = seconds
        rows = [np.array(list((a.smoothed or a.probabilities).values())) for a in face.answers]
        kept.bins[number] = _sum(kept.bins.get(number), (1, rows))

    def _make_room(self, seconds: float) -> None:
        """Where there are many faces, drop the one that was seen for the shortest time, of those that are gone."""
        gone = [track for track, face in self.faces.items() if seconds - face.last > AWAY]
        if len(self.faces) >= MOST_KEPT and gone:
            del self.faces[min(gone, key=lambda track: self.faces[track].num_frames)]

    def _widen(self) -> None:
        """Join each two bins to one."""
        self.width *= 2
        for face in self.faces.values():
            joined: dict[int, tuple[int, list[np.ndarray]]] = {}
            for number, one in face.bins.items():
                joined[number // 2] = _sum(joined.get(number // 2), one)
            face.bins = joined

    def shown(self) -> list[tuple[int, _OneFace]]:
        """The faces that were seen longest, in the order of their ids."""
        longest = sorted(self.faces, key=lambda track: -self.faces[track].num_frames)[:MOST_FACES]
        return [(track, self.faces[track]) for track in sorted(longest)]

    def write(self, path: Path) -> Path | None:
        """A PNG; None, and no file, where there was no face."""
        if not self.faces:
            return None
        with warnings.catch_warnings(action="ignore"):  # a name in letters that the font lacks
            return write(self.figure(), path, dpi=110)

    def figure(self) -> Figure:
        faces, networks = self.shown(), self.answerer.networks
        num_rows = len(faces) * len(networks)
        figure = Figure(figsize=(11, 1.3 + 1.25 * num_rows), facecolor="white", layout="constrained")
        grid = figure.add_gridspec(num_rows, 2, width_ratios=(1, 11))
        for row, (track, face) in enumerate(faces):
            first = row * len(networks)
            thumbnail = figure.add_subplot(grid[first : first + len(networks), 0])
            _show_crop(thumbnail, track, face)
            for k in range(len(networks)):
                axes = figure.add_subplot(grid[first + k, 1])
                self._show_shares(axes, face, k, is_last=first + k == num_rows - 1, legend=row == 0)
        more = f"; {len(faces)} of {self.num_faces} faces, those seen longest" if self.num_faces > len(faces) else ""
        title = f"{_literally(self.title)}: probability of each class, smoothed over a second{more}"
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        figure.supxlabel(LIMITS, fontsize=8, color="0.35", x=0.01, ha="left")
        return figure

    @property
    def reach(self) -> int:
        """Bins from one frame to the next, 1 where a bin has several frames."""
        return max(1, math.ceil(self.end / max(1, self.num_frames - 1) / self.width - 1e-6))

    def _show_shares(self, axes: Any, face: _OneFace, k: int, is_last: bool, legend: bool) -> None:
        """The classes of network k, stacked, where the face was seen."""
        network = self.answerer.networks[k]
        colours = of_classes(network.class_names, "light")
        for start, rows in _runs(face, k, self.reach):
            edges = self.width * (start + np.arange(len(rows) + 1))
            heights = np.cumsum(rows, axis=1)
            heights = np.concatenate([np.zeros((len(rows), 1)), heights], axis=1)
            heights = np.concatenate([heights, heights[-1:]])  # the last bin has a width too
            for j in range(len(network.class_names)):
                axes.fill_between(edges, heights[:, j], heights[:, j + 1], step="post", color=colours[j], linewidth=0)
        axes.set(xlim=(0, max(self.end, self.width)), ylim=(0, 1), yticks=(0, 1), facecolor="#f4f4f4")
        axes.set_yticklabels(["0", "1"], fontsize=8)
        axes.set_ylabel(network.task, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        short = self.end < 10
        axes.xaxis.set_major_locator(MultipleLocator(_step(self.end)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} s" if short else _clock(x)))
        axes.tick_params(labelbottom=is_last, labelsize=8)
        if legend:
            patches = [axes.fill_between([], [], color=colour) for colour in colours]
            words = [_literally(name.replace("_", " ")) for name in network.class_names]
            # From top to bottom, as they are stacked.
            axes.legend(
                patches[::-1], words[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False, fontsize=7.5,
                labelspacing=0.15, handlelength=1.0, handleheight=0.8, borderaxespad=0.3,
            )  # fmt: skip


def _sum(one: tuple[int, list[np.ndarray]] | None, other: tuple[int, list[np.ndarray]]) -> tuple[int, list[np.ndarray]]:
    if one is None:
        return other
    return one[0] + other[0], [a + b for a, b in zip(one[1], other[1], strict=True)]


def _runs(face: _OneFace, k: int, reach: int) -> list[tuple[int, np.ndarray]]:
    """Successive bins in which the face was seen: number of the first, and means (bins, K). A frame fills the `reach`
    bins to the next one."""
    numbers = np.array(sorted(face.bins))
    means = np.stack([face.bins[n][1][k] / face.bins[n][0] for n in numbers])
    # One bin more may be empty, as frames are not quite at equal distances.
    breaks = np.flatnonzero(np.diff(numbers) > reach + 1) + 1
    runs = []
    for own, rows in zip(np.split(numbers, breaks), np.split(means, breaks), strict=True):
        filled = np.searchsorted(own, np.arange(own[0], own[-1] + reach), side="right") - 1
        runs.append((int(own[0]), rows[filled]))
    return runs


def _show_crop(axes: Any, track: int, face: _OneFace) -> None:
    picture = face.crop.transpose(1, 2, 0)
    axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(f"face {track}", fontsize=9)
    axes.axis("off")


def _literally(text: str) -> str:
    """Text in which a dollar is no formula."""
    return text.replace("$", r"\$")


def _step(end: float) -> float:
    """Seconds between two times that are written below the picture."""
    return next((step for step in STEPS if end <= 12 * step), end / 12)


def _clock(seconds: float) -> str:
    """0:45 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
