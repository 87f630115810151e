"""Faces in a picture: YuNet, run by onnxruntime where it is installed, by torch otherwise, with the same boxes.

YuNet: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023; the weights are
2023mar of OpenCV's model zoo (MIT, see LICENSE-yunet.txt). Its outputs are decoded as OpenCV's FaceDetectorYN does.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from engrec.machine.onnx_runtime import onnxruntime

NAME = "YuNet 2023mar"
PATH = Path(__file__).parent / "yunet.onnx"
SHA256 = "85260e29ac9c2546c0f4dcb9f98ad5b754e986f76592473013aa6cfd8c0e446b"
SIZE, LEAST, THRESHOLD, MOST_OVERLAP = 640, 128, 0.6, 0.3
ENGINES = ("auto", "onnxruntime", "torch")
STRIDES = (8, 16, 32)  # of the network's three grids of places
ANGLES = (-90, -45, 45, 90)  # degrees by which a picture without a face is turned
LARGEST = 2.0  # sides of the picture that a box may measure
TURNED_THRESHOLD = 0.85  # the least score in a turned picture, in which more things resemble a face

Point = tuple[float, float]
Network = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Face:
    """A face in a picture, in pixels from its top left corner.

    box: x, y of the top left corner, width, height. score: from 0 to 1. landmarks: the person's right eye and left eye,
    the tip of the nose, the right and the left corner of the mouth. turned: whether it was found only after the picture
    was turned.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    landmarks: tuple[Point, Point, Point, Point, Point] | None = None
    turned: bool = False

    @property
    def roll(self) -> float:
        """Degrees by which the line of the eyes is turned clockwise; 0 without landmarks."""
        if self.landmarks is None:
            return 0.0
        (right_x, right_y), (left_x, left_y) = self.landmarks[:2]
        return math.degrees(math.atan2(left_y - right_y, left_x - right_x))

    @property
    def px(self) -> float:
        """The longer side of the box."""
        return max(self.box[2:])

    def problem(self, width: int, height: int) -> str:
        """Why the box cannot be cropped from a picture of this size; empty if it can be. It must be finite, at least a
        pixel, at most LARGEST pictures, and not beside the picture."""
        x, y, w, h = self.box
        most = LARGEST * max(height, width)
        if not all(map(math.isfinite, (*self.box, self.roll))) or min(w, h) <= 0:
            return f"the box {self.box} must be finite x, y, width and height, the last two above 0"
        if not 1 <= max(w, h) <= most:
            return f"the box {self.box} must have a longer side of 1 to {most:g} pixels"
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            return f"the box {self.box} is beside the picture of {width}×{height} pixels"
        return ""


def largest(faces: Sequence[Face]) -> Face:
    """The face of whom a picture is: that with the longest side."""
    return max(faces, key=lambda face: face.px)


class Detector:
    """Finds the faces of a picture.

    size: pixels of the longer side given to the network, to which larger pictures are reduced; pictures under LEAST
    are enlarged to that, as the network misses faces that fill such a small one. threshold: the least
    score of a face. engine: "onnxruntime", "torch", or "auto", onnxruntime where it is installed. turned: whether a
    picture in which nothing is found is turned by 45° and 90° to both sides, which takes four times as long; a face
    in it must have TURNED_THRESHOLD too.

    Raises ValueError for a setting out of its range, and for onnxruntime where it is not installed.
    """

    def __init__(
        self, size: int = SIZE, threshold: float = THRESHOLD, engine: str = "auto", turned: bool = True
    ) -> None:
        if not 32 <= size <= 8192:
            raise ValueError(f"detect_size must be 32 to 8192 pixels, found {size}")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, found {threshold}")
        self.size, self.threshold, self.turned = size, threshold, turned
        self.engine = chosen(engine)
        self.network: Network = _onnxruntime() if self.engine == "onnxruntime" else _torch()

    def __call__(self, rgb: np.ndarray) -> list[Face]:
        """The faces of a picture, uint8 (H, W, 3), that can be cropped, from left to right."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"a picture must be uint8 (H, W, 3), found {rgb.dtype} {rgb.shape}")
        resized, scales = _resized(rgb, self.size)
        faces = self._found(resized, self.threshold) or (self._turned(resized) if self.turned else [])
        found = [face for face in (_scaled(face, *scales) for face in faces) if not face.problem(*rgb.shape[1::-1])]
        return sorted(found, key=lambda face: face.box[0])

    def _found(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        height, width = rgb.shape[:2]
        padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
        padded[0, :, :height, :width] = rgb.transpose(2, 0, 1)[::-1]  # BGR
        return decoded(self.network(padded), padded.shape[3] // 8, threshold)

    def _turned(self, rgb: np.ndarray) -> list[Face]:
        """The faces that are found at the angle with the highest score."""
        image, threshold = Image.fromarray(rgb), max(self.threshold, TURNED_THRESHOLD)
        found: list[list[Face]] = []
        for angle in ANGLES:
            turned = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
            faces = self._found(np.asarray(turned), threshold)
            found.append([turned_back(face, angle, turned.size, image.size) for face in faces])
        return max(found, key=lambda faces: max((face.score for face in faces), default=0.0))


def chosen(engine: str) -> str:
    """The engine that "auto" stands for. Raises ValueError for an unknown one, and one that is not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, found {engine!r}")
    installed = importlib.util.find_spec("onnxruntime") is not None
    if engine == "onnxruntime" and not installed:
        raise ValueError("onnxruntime is not installed: pip install 'engrec[use]', or set the engine to torch")
    return ("onnxruntime" if installed else "torch") if engine == "auto" else engine


def _onnxruntime() -> Network:
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # made for one size of pictures
    session = runtime.InferenceSession(str(PATH), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, map(np.asarray, session.run(names, {"input": images})), strict=True))

    return run


def _torch() -> Network:
    from engrec.faces.graph import Graph

    return Graph(PATH)


def _resized(rgb: np.ndarray, size: int) -> tuple[np.ndarray, Point]:
    """The picture with a longer side from LEAST to `size`, and by how much its width and height were divided."""
    height, width = rgb.shape[:2]
    longer = max(height, width)
    given = min(max(longer, LEAST), size)
    if given == longer:
        return rgb, (1.0, 1.0)
    other = max(1, round(width * given / longer)), max(1, round(height * given / longer))
    image = Image.fromarray(rgb).resize(other, Image.Resampling.BILINEAR)
    return np.asarray(image), (width / other[0], height / other[1])


def decoded(outputs: dict[str, np.ndarray], columns: int, threshold: float) -> list[Face]:
    """The faces in the network's outputs, the highest score first, those that overlap a better one left out.

    columns: of the grid with stride 8.
    """
    rows = [_places(outputs, stride, columns * 8 // stride, threshold) for stride in STRIDES]
    found = np.concatenate(rows)
    found = found[np.argsort(-found[:, 0], kind="stable")]
    return [_face(row) for row in found[_best(found[:, 1:5])].tolist()]


def _places(outputs: dict[str, np.ndarray], stride: int, columns: int, threshold: float) -> np.ndarray:
    """Score, box and landmarks (n, 15) of the places of one grid at which the network sees a face.

    The score is sqrt(cls · obj). Centres are in strides from the place, sizes are logarithms of strides.
    """
    cls, obj = (outputs[f"{name}_{stride}"].reshape(-1).clip(0, 1) for name in ("cls", "obj"))
    scores = np.sqrt(cls * obj)
    index = np.flatnonzero(scores >= threshold)
    places = np.stack([index % columns, index // columns], axis=1).astype(np.float64)
    box = outputs[f"bbox_{stride}"].reshape(-1, 4)[index].astype(np.float64)
    sizes = np.exp(box[:, 2:].clip(-20, 20))
    corners = places + box[:, :2] - sizes / 2
    landmarks = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[index] + places[:, None]
    return np.concatenate(
        [scores[index, None], stride * corners, stride * sizes, stride * landmarks.reshape(-1, 10)], axis=1
    )


def _best(boxes: np.ndarray) -> list[int]:
    """Which of these boxes (n, 4), the best first, overlap no better one by more than MOST_OVERLAP (non-maximum
    suppression by intersection over union)."""
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    areas, kept = boxes[:, 2] * boxes[:, 3], []
    waiting = np.arange(len(boxes))
    while len(waiting):
        first, rest = waiting[0], waiting[1:]
        kept.append(int(first))
        sides = np.minimum(end[first], end[rest]) - np.maximum(start[first], start[rest])
        common = sides.clip(0).prod(1)
        waiting = rest[common <= MOST_OVERLAP * (areas[first] + areas[rest] - common)]
    return kept


def _face(row: Sequence[float]) -> Face:
    score, x, y, width, height, *points = row
    eye, other_eye, nose, corner, other_corner = zip(points[::2], points[1::2], strict=True)
    return Face((x, y, width, height), score, (eye, other_eye, nose, corner, other_corner))


def _scaled(face: Face, across: float, down: float) -> Face:
    x, y, width, height = face.box
    box = (x * across, y * down, width * across, height * down)
    return _with_points(box, face, lambda x, y: (x * across, y * down))


def turned_back(face: Face, angle: float, turned: tuple[int, int], size: tuple[int, int]) -> Face:
    """A face of a picture turned anticlockwise by `angle` degrees, in the picture itself; sizes are width, height.

    The box keeps its centre and its longer side: it lies down at 90°, and is a square at 45°.
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def back(x: float, y: float) -> Point:
        x, y = x - turned[0] / 2, y - turned[1] / 2
        return cos * x - sin * y + size[0] / 2, sin * x + cos * y + size[1] / 2

    x, y, width, height = face.box
    centre = back(x + width / 2, y + height / 2)
    width, height = (height, width) if angle % 90 == 0 else (face.px, face.px)
    box = (centre[0] - width / 2, centre[1] - height / 2, width, height)
    return _with_points(box, replace(face, turned=True), back)


def _with_points(box: tuple[float, float, float, float], face: Face, moved: Callable[[float, float], Point]) -> Face:
    if face.landmarks is None:
        return replace(face, box=box)
    eye, other_eye, nose, corner, other_corner = (moved(x, y) for x, y in face.landmarks)
    return replace(face, box=box, landmarks=(eye, other_eye, nose, corner, other_corner))
