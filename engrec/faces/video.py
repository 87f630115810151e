"""Frames of a video with their times: upright, one at a time, damage in words; and a writer. Needs PyAV."""

import itertools
import logging
import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path, PurePath
from types import ModuleType
from typing import IO, Any, Self

import numpy as np
from PIL import Image, ImageOps

from engrec.machine.files import atomic_write
from engrec.words import counted

# Containers by the names of FFmpeg's readers. Not its pictures, and not its playlists, which can name other addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg,mjpeg"
VIDEO_SUFFIXES = {
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
    ".ts", ".webm", ".wmv",
}  # fmt: skip
WRITERS = {  # FFmpeg's container and codec
    ".mp4": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx"),
    ".avi": ("avi", "mpeg4"),
    ".mjpeg": ("mjpeg", "mjpeg"),
}
# Without frames that refer to later ones: with them, a last frame that is shown for long ends the file too early.
SPEED = {"libx264": {"preset": "veryfast", "bf": "0"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}
MOST_PIXELS = 2**26  # of a frame: four times 4K in each direction
MOST_STRETCH = 4  # of the pixels' shape; beyond, the header is wrong
CLOSE = 5e-4  # seconds: half of the unit that WebM and AVI round times to
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.5  # less than this at the end may be rounding of the header
MISSING_FRAMES = 1.5  # of AVI, whose header has the number of frames
TS_PACKETS = (188, 192, 204)  # bytes
FIRST_FRAMES = 5  # if these have one timestamp, all have
INVENTS = ("concealing", "error while decoding MB")  # in FFmpeg's log
CLOCK_JUMPS = 1.0  # seconds: a timestamp that is so much earlier is of a clock that has started again
MOST_RATE = 1000  # frames a second; beyond, the header is wrong


def is_video(name: str) -> bool:
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES


class Video:
    """A video file, for `with`. Attributes: duration (seconds) and num_frames, as the header states them or None;
    codec; damage, after the last frame: what could not be read, in one line, or None.

    Raises ValueError for a file that is missing, empty, no video, or without pictures.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.av = pyav()
        self.converter = self.av.video.reformatter.VideoReformatter()  # one for all frames: each new one takes a while
        self.damage: str | None = None
        self.file = _open(self.path)
        try:
            self.container = self._container()
            self.stream = self._stream()
        except BaseException:
            self.file.close()
            raise
        context = self.stream.codec_context
        context.thread_type, context.thread_count = "NONE", 1  # what is invented is said on the thread that decodes
        self.codec: str = context.name.upper()
        self.start = max((self.container.start_time or 0) / 1e6, 0)  # of a part of a recording
        length = (self.container.duration or 0) / 1e6
        if self.container.format.name == "matroska,webm":
            length -= self.start  # the header has the time at which it ends
        self.duration: float | None = length if length > 0 else None
        self.num_frames: int | None = self.stream.frames or None
        rate = self.stream.average_rate
        if self.num_frames and rate and self.container.format.name == "avi":
            self.duration = float(self.num_frames / rate)  # the other one is guessed from the size of the file
        elif self.num_frames is None and self.duration and rate:
            self.num_frames = round(self.duration * float(rate))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()
        self.file.close()

    def frames(self, every: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds since the first frame, as the file states them, and the picture, uint8 RGB (H, W, 3), upright.

        every: seconds; the first frame of each such period. None: all frames. To be iterated once. Raises ValueError
        where not one frame can be read; damage after the first frame ends the iteration, see `damage`.
        """
        if every is not None and not every > 0:
            raise ValueError(f"every must be a number of seconds above 0, found {every}")
        due = 0.0
        for seconds, frame in self._timed():
            if every is not None:
                if seconds + CLOSE < due:
                    continue
                due = (math.floor((seconds + CLOSE) / every) + 1) * every
            yield seconds, self._upright(frame)

    def _container(self) -> Any:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
        try:
            raw = "mjpeg" if self.path.suffix.lower() == ".mjpeg" else None  # which FFmpeg may take for one picture
            return self.av.open(self.file, "r", raw, options=options, metadata_errors="replace")
        except (self.av.error.FFmpegError, OSError) as error:
            if kind := _picture(self.file):
                message = f"{self.path.name} is a picture, not a video: name it {self.path.stem}.{kind.lower()}"
            else:
                message = f"{self.path.name} cannot be read as a video ({_words(error)}): replace or remove it"
            raise ValueError(message) from error

    def _stream(self) -> Any:
        covers = self.av.stream.Disposition.attached_pic  # the cover of a piece of music
        streams = [stream for stream in self.container.streams.video if not stream.disposition & covers]
        if not streams:
            kinds = sorted({stream.type for stream in self.container.streams}) or ["nothing"]
            raise ValueError(f"{self.path.name} contains no video, only {', '.join(kinds)}: remove it")
        context = streams[0].codec_context
        if context is None:
            raise ValueError(f"{self.path.name} is in a format that cannot be decoded here: save it as H.264")
        if context.width * context.height > MOST_PIXELS:
            size = f"{context.width} × {context.height}"
            raise ValueError(f"{self.path.name} has frames of {size} pixels, more than {MOST_PIXELS}: make it smaller")
        return streams[0]

    def _timed(self) -> Iterator[tuple[float, Any]]:
        """Each frame and its seconds since the first; a frame without a time follows the last one at the usual rate."""
        frames = self._decoded()
        head = list(itertools.islice(frames, FIRST_FRAMES))
        untimed = len(head) > 1 and len({frame.time for frame in head} - {None}) == 1
        first: float | None = None
        rate = self._rate_without_times() if untimed else float(self.stream.average_rate or 25)
        step = 1 / rate
        seconds, number = 0.0, 0
        for frame in itertools.chain(head, frames):
            if frame.time is not None and not untimed:
                if first is None or frame.time - first < seconds - CLOCK_JUMPS:
                    first = frame.time - (seconds + step if number else 0.0)
                seconds = max(frame.time - first, seconds)
            elif number:
                seconds += step
            number += 1
            yield seconds, frame
        if number == 0:
            raise ValueError(f"{self.path.name} contains no frame that can be read{self._reason()}: remove it")
        self._judge(number, seconds)
        if untimed and self.damage is None:
            self.damage = (
                f"read {counted(number, 'frame')}, whose timestamps are all the same: counted at {rate:g} a second"
            )

    def _rate_without_times(self) -> float:
        """Frames a second, as the codec or the container states them; FFmpeg computes that of MP4 from timestamps."""
        container = 0 if "mp4" in self.container.format.name else self.stream.average_rate
        rate = float(self.stream.codec_context.framerate or container or 0)
        if not 0 < rate <= MOST_RATE:
            raise ValueError(
                f"{self.path.name} has one timestamp for all frames and states no frame rate: save it with timestamps"
            )
        return rate

    def _decoded(self) -> Iterator[Any]:
        """Frames; from each damaged one to the next key frame they are left out and counted, as each of them is made of
        those before. What cannot be read ends them."""
        self._broken: list[str] = []
        self._left_out = 0
        self._end: str | None = None
        self._reached = 0.0
        is_damaged, clean_from = False, None
        packets = self.container.demux()  # sound too: it tells how far the file reaches
        while True:
            try:
                packet = next(packets, None)
            except (self.av.error.FFmpegError, OSError) as error:
                self._end = _words(error)
                return
            if packet is None:
                return
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.time_base:
                self._reached = max(self._reached, float((time + (packet.duration or 0)) * packet.time_base))
            if packet.stream is not self.stream:
                continue
            frames, reason = self._decode(packet)
            if reason is not None or packet.is_corrupt:
                if not is_damaged:
                    self._broken.append(reason or "it is incomplete")
                is_damaged = True
                # A packet with a gap before it may be complete itself.
                clean_from = None if packet.pts is None else packet.pts + (reason is not None)
            for frame in frames:
                if is_damaged and not (frame.key_frame and self._is_later(frame, clean_from)):
                    self._left_out += 1
                    continue
                is_damaged = False
                yield frame

    def _decode(self, packet: Any) -> tuple[list[Any], str | None]:
        """The frames that are complete with this packet, and what is wrong with it. A decoder that invents the missing
        part of a picture raises nothing: it only says so in its log."""
        with self.av.logging.Capture(local=True) as heard:
            try:
                frames = packet.decode()
            except self.av.error.FFmpegError as error:
                return [], _words(error)
        invents = any(text.startswith(INVENTS) for _, _, text in heard)
        return frames, "parts of pictures are missing" if invents else None

    def _is_later(self, frame: Any, start: int | None) -> bool:
        """Whether a frame is from this timestamp on, or from a clock that has started again."""
        if start is None or frame.pts is None:
            return True
        return frame.pts >= start or float((start - frame.pts) * frame.time_base) > CLOCK_JUMPS

    def _judge(self, number: int, seconds: float) -> None:
        read = f"read {counted(number, 'frame')}, {seconds:.1f} s"
        missing = (self.duration or 0) - (self._reached - self.start)
        allowed = max(MISSING_SECONDS, MISSING_SHARE * (self.duration or 0))
        if self.container.format.name == "avi" and self.stream.average_rate:
            allowed = MISSING_FRAMES / float(self.stream.average_rate)
        if self._end is not None:
            self.damage = f"{read}, then: {self._end}"
        elif self.duration and missing > allowed:
            self.damage = f"{read}, then: it ends before the {self.duration:.1f} s that its header states"
        elif self.container.format.name == "mpegts" and all(
            os.fstat(self.file.fileno()).st_size % n for n in TS_PACKETS
        ):
            self.damage = f"{read}, then: it ends in the middle of a packet"
        elif self._broken:
            frames = f"{counted(self._left_out, 'frame')} after " if self._left_out else ""
            self.damage = f"{read}, without {frames}{counted(len(self._broken), 'damaged part')}: {self._broken[0]}"

    def _reason(self) -> str:
        reason = self._end or next(iter(self._broken), None)
        return "" if reason is None else f" ({reason})"

    def _upright(self, frame: Any) -> np.ndarray:
        width, shape = frame.width, self.stream.sample_aspect_ratio
        if shape and 1 / MOST_STRETCH <= shape <= MOST_STRETCH:
            width = round(width * shape)  # of television: pixels that are no squares
        rgb = self.converter.reformat(frame, width, frame.height, "rgb24").to_ndarray()
        return np.ascontiguousarray(displayed(rgb, _display_matrix(frame)))


def displayed(rgb: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """The stored picture (H, W, 3) as a player shows it: turned by quarters, mirrored, or both. matrix: a, b, c, d of
    ISO 14496-12, by which the stored x, y are shown at ax + cy, bx + dy; None: as it is."""
    if matrix is None:
        return rgb
    a, b, c, d = matrix
    if abs(b) > abs(a):
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    kept = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if kept is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(kept, np.int32).tolist()
    return a, b, c, d


def write_video(path: str | Path, frames: Iterable[Any], rate: float | None = 25) -> None:
    """Write a video, complete or not at all; the suffix says how, see WRITERS.

    frames: uint8 RGB (H, W, 3); those of another size than the first are fitted into it, with borders. rate: of them, a
    second; None: frames are pairs of seconds and picture, as `Video.frames` yields them, which .avi and .mjpeg cannot
    store. An odd side loses its last pixel.
    Raises ValueError for another suffix, and where there are no frames.
    """
    path, av = Path(path), pyav()
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path.name} must end in one of {', '.join(WRITERS)}")
    kind, codec = WRITERS[path.suffix.lower()]
    timed = frames if rate is None else ((number / rate, frame) for number, frame in enumerate(frames))
    with atomic_write(path, "wb") as file, av.open(file, "w", format=kind) as container:
        _encode(container, codec, timed, rate)


def _encode(container: Any, codec: str, timed: Iterable[tuple[float, np.ndarray]], rate: float | None) -> None:
    av, stream, height, width = pyav(), None, 0, 0
    codec = codec if codec in av.codecs_available else "mpeg4"  # not every build has H.264
    steady = None if rate is None else Fraction(rate).limit_denominator(1001)
    for seconds, rgb in timed:
        if stream is None:
            height, width = rgb.shape[:2]
            stream = container.add_stream(codec, rate=steady or 30)
            stream.height, stream.width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
            if not stream.height or not stream.width:
                raise ValueError(f"frames of {rgb.shape[1]} × {rgb.shape[0]} pixels are too small for a video")
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.time_base = 1 / steady if steady else Fraction(1, 1000)
            stream.options = SPEED.get(codec, {})
        if rgb.shape[:2] != (height, width):  # the recording changed its size
            rgb = np.asarray(ImageOps.pad(Image.fromarray(rgb), (width, height)))
        picture = np.ascontiguousarray(rgb[: stream.height, : stream.width])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.time_base = stream.codec_context.time_base
        frame.pts = round(seconds / frame.time_base)
        container.mux(stream.encode(frame))
    if stream is None:
        raise ValueError("there are no frames to write")
    container.mux(stream.encode())


def _open(path: Path) -> IO[bytes]:
    """The file itself and not its name, which FFmpeg would take for an address."""
    try:
        if not path.exists():
            raise ValueError(f"{path} does not exist: give the path of a video")
        if not path.is_file():
            raise ValueError(f"{path} is not a file: give the path of a video")
        if path.stat().st_size == 0:
            raise ValueError(f"{path.name} is empty (0 bytes): download it again or remove it")
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path.name} cannot be opened: {error.strerror}") from error


def _picture(file: IO[bytes]) -> str | None:
    """Format of a picture, None where it is none."""
    try:
        file.seek(0)
        return Image.open(file).format
    except Exception:  # Pillow raises a dozen kinds on damaged files
        return None


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def pyav() -> ModuleType:
    """The package av. Raises ValueError, with the command that installs it, where it is not there."""
    try:
        import av
        import av.error
        import av.logging
        import av.stream
    except ImportError as error:
        raise ValueError("videos need PyAV: pip install -e '.[use]'") from error
    if av.logging.get_level() is None:  # what it says is heard where frames are decoded, and is printed nowhere
        log = logging.getLogger("libav")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        av.logging.set_level(av.logging.INFO)
    return av
