"""`engrec.predict`: pictures, arrays, folders and videos to typed answers for every face."""

import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from engrec import weights_file
from engrec.faces.crop import SMALL, STANDARD
from engrec.faces.detect import Detector
from engrec.faces.picture import one_line, upright
from engrec.faces.track import Tracker
from engrec.use.answers import TIME_CONSTANT, Answerer, Seen, SeenFace, given_faces
from engrec.use.follow import Detect, Shot, followed
from engrec.use.inputs import Input, find, is_video, read_picture
from engrec.use.limits import INTENDED_USE
from engrec.use.network import BATCH_SIZE, Network, load_network, names_of

DEFAULT = ("expressions", "engagement")  # weights that come with engrec, in the order of the columns
PHOTO_SIZE, VIDEO_SIZE = 640, 320  # longest side of what the detector reads
PACKAGES = ("engrec", "torch", "numpy", "pillow", "onnxruntime", "av")
Picture = str | Path | Image.Image | np.ndarray
Boxes = Sequence[Sequence[float]]
Weights = str | Path | Sequence[str | Path] | None


class Predictor:
    """Networks and detectors, loaded once."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = list(networks)
        self.answerer = Answerer(self.networks)

    @classmethod
    def load(cls, weights: Weights = None) -> Self:
        """weights: paths of .ckpt, .safetensors or .onnx, or engrec:NAME; None for DEFAULT. Raises
        CheckpointError for weights that cannot be used, ValueError where there are none."""
        return cls([load_network(source) for source in sources_of(weights)])

    @cached_property
    def in_photos(self) -> Detect:
        return Detector(PHOTO_SIZE)

    @cached_property
    def in_videos(self) -> Detect:
        return Detector(VIDEO_SIZE, turned=False)  # a recording is upright

    def pictures(self, pictures: Iterator[tuple[str, Image.Image]], boxes: Boxes | None = None) -> Iterator[Seen]:
        """Answers for pictures, each with its name, in their order. boxes: own ones, instead of those detected."""
        return self.answerer((name, self._shot(picture, boxes)) for name, picture in pictures)

    def frames(
        self, name: str, frames: Iterator[tuple[float, np.ndarray]], keep: bool = False, at_once: int = BATCH_SIZE
    ) -> Iterator[Seen]:
        """Answers for the frames of a video, timestamp and rgb uint8 (H, W, 3) of each; memory does not grow.

        keep: hand on the pixels too; at_once: frames that are answered together, 1 for a camera."""
        shots = followed(frames, self.in_videos, Tracker())
        return self.answerer(((name, shot) for shot in shots), keep, at_once)

    def video(self, path: Path, name: str = "", every: float | None = None) -> Iterator[Seen]:
        """Answers for the frames of a video file. Raises ValueError for a file that is no video; a damaged one is read
        as far as it goes, with a warning."""
        from engrec.faces.video import Video  # which needs av

        with Video(path) as video:
            yield from self.frames(name or str(path), video.frames(every))
            if video.damage:
                warnings.warn(f"{path} is damaged: {video.damage}", stacklevel=2)

    def _shot(self, picture: Image.Image, boxes: Boxes | None) -> Shot:
        rgb = np.asarray(as_picture(picture).convert("RGB"))
        faces = self.in_photos(rgb) if boxes is None else given_faces(boxes, rgb.shape[1], rgb.shape[0])
        return Shot(0, None, rgb, tuple(enumerate(faces)))


def described(networks: Sequence[Network], of_videos: dict[str, Any]) -> dict[str, Any]:
    """With what predictions are made, and what they must not be used for: plain values, for the file beside them.
    of_videos: which frames are read, and how."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "intended_use": INTENDED_USE,
        "weights": [
            network.about() | {"name": name} for network, name in zip(networks, names_of(networks), strict=True)
        ],
        "crop": STANDARD.as_dict(),
        "faces": {
            "longest_side_in_photographs": PHOTO_SIZE,
            "longest_side_in_videos": VIDEO_SIZE,
            **of_videos,
            "smoothing_seconds": TIME_CONSTANT,
            "small_face_px": SMALL,
        },
        "versions": versions,
    }


def sources_of(weights: Weights) -> list[str]:
    """The weights to load. Raises ValueError where none are given and DEFAULT do not come with this copy."""
    if weights is None:
        if not (shipped := [name for name in DEFAULT if name in weights_file.names()]):
            raise ValueError("this copy of engrec has no weights: give some, such as outputs/…/best.ckpt")
        return [f"{weights_file.PREFIX}{name}" for name in shipped]
    several = [weights] if isinstance(weights, str | Path) else list(weights)
    if not several:
        raise ValueError("weights must name at least one network")
    return [str(one) for one in several]


def predict(
    source: Picture | Sequence[Picture],
    weights: Weights = None,
    boxes: Boxes | None = None,
    every: float | None = None,
) -> list[SeenFace]:
    """Answers for every face in a picture, a folder, a video, or several of these; none where there is no face.

    source: a path, a PIL image, or an array uint8 (H, W, 3) in RGB or (H, W) in grey; weights: as Predictor.load takes
    them; boxes: of the faces in a single picture, (x, y, width, height) in pixels, instead of detection; every: seconds
    between the frames of a video that are read, all by default.

    Networks stay loaded between calls. For a long video take `Predictor.video`, which yields frame by frame.
    A file that cannot be read is left out, with a warning. Raises ValueError where no source can be read.
    """
    predictor = _loaded(tuple((one, _version(one)) for one in sources_of(weights)))
    several = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    if boxes is not None and (len(several) != 1 or _is_many(several[0])):
        raise ValueError("boxes= goes with a single picture")
    faces: list[SeenFace] = []
    num_read, failed = 0, list[ValueError]()
    for number, one in enumerate(several):
        if not isinstance(one, str | Path):
            faces += _faces(predictor.pictures(iter([(str(number), as_picture(one))]), boxes))
            num_read += 1
            continue
        if not str(one):
            raise ValueError("the path is empty: give that of a picture, a video or a folder")
        files, problems = find([Path(one)])
        failed += map(ValueError, problems)
        for file in files:
            try:
                faces += _faces(_answers(predictor, file, boxes, every))
                num_read += 1
            except ValueError as error:
                failed.append(error)
    if failed and not num_read:
        raise failed[0]
    for error in failed:
        warnings.warn(f"left out: {error}", stacklevel=2)
    return faces


def _faces(answers: Iterator[Seen]) -> list[SeenFace]:
    return [face for seen in answers for face in seen.faces]


def _answers(predictor: Predictor, file: Input, boxes: Boxes | None, every: float | None) -> Iterator[Seen]:
    if file.is_video:
        return predictor.video(file.path, file.name, every)
    return predictor.pictures(iter([(file.name, read_picture(file.path))]), boxes)


def as_picture(given: Any) -> Image.Image:
    """A PIL image, as a file with it would be read, of a PIL image or an array uint8 (H, W, 3) or (H, W). Raises
    ValueError for others."""
    if isinstance(given, Image.Image):
        try:
            return upright(given)
        except Exception as error:  # Pillow raises a dozen kinds on damaged files
            raise ValueError(f"the picture cannot be read ({one_line(error)})") from error
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and _is_picture(given.shape):
        return Image.fromarray(given).convert("RGB")
    found = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
    raise ValueError(
        f"a picture must be a path, a PIL image, or an array uint8 (H, W, 3) in RGB or (H, W), found {found}"
    )


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and shape[2:] in ((), (3,)) and 0 not in shape


def _is_many(source: Picture) -> bool:
    return isinstance(source, str | Path) and (Path(source).is_dir() or is_video(str(source)))


def _version(source: str) -> tuple[int, int] | None:
    """What changes with the content of the file, so that a new one is loaded."""
    try:
        status = weights_file.located(source).stat()
    except OSError:  # loading it says what is wrong
        return None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _loaded(sources: tuple[tuple[str, tuple[int, int] | None], ...]) -> Predictor:
    return Predictor.load([source for source, _ in sources])
