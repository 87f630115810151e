"""Frames of videos and their times, of good files and bad ones."""

import struct
import sys
import tracemalloc

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, drawn, in_one_line
from PIL import Image

from engrec.faces.video import WRITERS, Video, is_video, write_video

SIZE = (120, 160)


def pictures(number, colour=(255, 0, 0)):
    """Frames with a coloured corner at the top left, on a grey that gets brighter by 8 a frame."""
    for index in range(number):
        picture = np.full((*SIZE, 3), 8 * index, np.uint8)
        picture[:40, :40] = colour
        yield picture


def read(path, every=None):
    with Video(path) as video:
        frames = list(video.frames(every))
        return [seconds for seconds, _ in frames], [picture for _, picture in frames], video


@pytest.fixture
def clip(tmp_path):
    """A video of 20 frames, 10 a second, in the format of its suffix."""

    def clip(suffix=".mp4", number=20):
        write_video(tmp_path / f"clip{suffix}", pictures(number), rate=10)
        return tmp_path / f"clip{suffix}"

    return clip


@pytest.mark.parametrize("suffix", sorted(set(WRITERS) - {".mjpeg"}))
def test_what_is_written_is_read_with_its_times(clip, suffix):
    seconds, frames, video = read(clip(suffix))
    assert seconds == pytest.approx(np.arange(20) / 10, abs=1e-3)
    assert video.duration == pytest.approx(2.0, abs=0.05)
    assert video.num_frames == 20
    assert video.damage is None
    for index, (frame, expected) in enumerate(zip(frames, pictures(20), strict=True)):
        assert frame.dtype == np.uint8
        assert frame.shape == (*SIZE, 3)
        difference = np.abs(frame[60:].astype(int) - expected[60:])
        assert difference.mean() < 6, index


def test_frames_are_chosen_by_time(clip):
    assert read(clip(), every=0.5)[0] == pytest.approx([0, 0.5, 1.0, 1.5])
    assert read(clip(), every=0.25)[0] == pytest.approx([0, 0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8])
    assert len(read(clip(), every=0.01)[0]) == 20
    for every in (0, -1, float("nan")):
        with Video(clip()) as video, pytest.raises(ValueError, match="above 0"):
            list(video.frames(every))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_variable_frame_rate_keeps_its_times(tmp_path, suffix):
    times = [0.0, 0.1, 0.15, 0.9, 2.0]
    write_video(tmp_path / f"a{suffix}", zip(times, pictures(5), strict=True), rate=None)
    seconds, _, video = read(tmp_path / f"a{suffix}")
    assert seconds == pytest.approx(times, abs=1e-3)
    assert video.damage is None


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0)),
        ((-1, 0, 0, 1), (0, -1)), ((0, 1, 1, 0), (0, 0)), ((1, 0, 0, -1), (-1, 0)), ((0, -1, -1, 0), (-1, -1)),
    ],
)  # fmt: skip
def test_frames_are_turned_and_mirrored_as_a_player_shows_them(clip, matrix, corner):
    """The matrix of QuickTime: x' = a x + c y, y' = b x + d y, so the corner at the top left moves as listed."""
    path = clip()
    content = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    _, frames, _ = read(path)
    turned = abs(matrix[1]) == 1
    assert frames[3].shape == ((160, 120, 3) if turned else (120, 160, 3))
    rows, columns = (slice(0, 20) if side == 0 else slice(-20, None) for side in corner)
    red, green, blue = frames[3][rows, columns].reshape(-1, 3).mean(0)
    assert red > 200
    assert max(green, blue) < 60


def test_pixels_that_are_no_squares_are_stretched(tmp_path):
    with av.open(tmp_path / "tv.mkv", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for picture in pictures(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert read(tmp_path / "tv.mkv")[1][0].shape == (120, 320, 3)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_file_says_how_much_was_read(clip, suffix):
    path = clip(suffix)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    seconds, _, video = read(path)
    assert 0 < len(seconds) < 20
    assert video.damage.startswith(f"read {len(seconds)} frames, {seconds[-1]:.1f} s, then: ")


def muxed(path, codec, number=20, rate=10, **changed):
    """A video whose packets have these times instead of their own; of a function, what it says of each packet."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures(number)]
        for packet in [packet for frame in [*frames, None] for packet in stream.encode(frame)]:
            for name, value in changed.items():
                setattr(packet, name, value(packet) if callable(value) else value)
            container.mux(packet)
    return path


@pytest.mark.parametrize("share", [0.9, 0.6])
def test_an_avi_without_its_end_is_held_against_the_number_of_frames_in_its_header(clip, share):
    path = clip(".avi", 30)
    content = path.read_bytes()
    assert read(path)[2].damage is None
    start, end = content.index(b"movi"), content.rindex(b"idx1")
    path.write_bytes(content[: start + int(share * (end - start))])
    seconds, _, video = read(path)
    assert 0 < len(seconds) < 30
    assert (video.duration, video.num_frames) == (3, 30)
    assert (
        video.damage
        == f"read {len(seconds)} frames, {seconds[-1]:.1f} s, then: it ends before the 3.0 s that its header states"
    )


def test_a_transport_stream_that_ends_in_a_packet_or_lacks_some_says_so(tmp_path):
    path = muxed(tmp_path / "a.ts", "mpeg2video")
    content = path.read_bytes()
    assert read(path)[2].damage is None
    path.write_bytes(content[: len(content) * 6 // 10 // 188 * 188 + 100])
    assert read(path)[2].damage.endswith(" s, then: it ends in the middle of a packet")
    middle = len(content) // 2 // 188 * 188
    path.write_bytes(content[:middle] + content[middle + 188 :])
    assert "without 3 frames after 1 damaged part: it is incomplete" in read(path)[2].damage


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "mpeg4"), (".mp4", "mpeg4"), (".ts", "mpeg4"), (".webm", "libvpx")]
)
def test_without_usable_timestamps_frames_are_counted_at_the_stated_rate(tmp_path, suffix, codec):
    seconds, _, video = read(muxed(tmp_path / f"a{suffix}", codec, pts=0, dts=0))
    assert seconds == pytest.approx(np.arange(20) / 10)
    assert video.damage == "read 20 frames, whose timestamps are all the same: counted at 10 a second"
    assert len(read(tmp_path / f"a{suffix}", every=0.5)[0]) == 4


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".ts"])
def test_a_part_of_a_recording_that_does_not_begin_at_0_is_whole(tmp_path, suffix):
    later = {
        name: lambda packet, name=name: round(getattr(packet, name) + 600 / packet.time_base) for name in ("pts", "dts")
    }
    path = muxed(tmp_path / f"part{suffix}", "libvpx" if suffix == ".webm" else "mpeg4", **later)
    seconds, _, video = read(path)
    assert (len(seconds), video.damage) == (20, None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    if suffix == ".mkv":
        assert "then: " in read(path)[2].damage


def test_without_timestamps_and_rate_a_video_is_refused(tmp_path):
    muxed(tmp_path / "a.mp4", "libvpx-vp9", pts=0, dts=0)
    with pytest.raises(ValueError, match=r"a\.mp4 has one timestamp for all frames and states no frame rate: save it"):
        read(tmp_path / "a.mp4")


def test_a_truncated_download_says_how_much_was_read(tmp_path):
    with av.open(tmp_path / "a.mp4", "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in pictures(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) * 7 // 10])
    seconds, _, video = read(tmp_path / "a.mp4")
    assert 0 < len(seconds) < 20
    assert video.damage.startswith(f"read {len(seconds)} frames, ")


def test_a_damaged_place_in_the_middle_costs_only_itself(clip):
    path = clip(".avi")
    content = bytearray(path.read_bytes())
    starts = [index for index in range(len(content)) if content.startswith(b"00dc", index)]
    content[starts[8] + 8 : starts[8] + 24] = bytes(16)
    path.write_bytes(content)
    seconds, _, video = read(path)
    assert seconds[-1] == pytest.approx(1.9, abs=0.01)
    assert len(seconds) >= 18
    assert video.damage is None or "\n" not in video.damage


def test_frames_that_a_decoder_has_invented_are_left_out_up_to_the_next_key_frame(tmp_path, capfd):
    """FFmpeg says nothing of a picture of which it has invented a part, nor of those that are made of it."""
    path, noise = tmp_path / "a.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10", "bf": "0", "sc_threshold": "0"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(30):
            frame = noise.integers(0, 255, (*SIZE, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    whole = read(path)
    assert len(whole[0]) == 30
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux() if packet.pts == 1300)
        start = path.read_bytes().index(bytes(packet)) + packet.size // 2
    content = bytearray(path.read_bytes())
    content[start : start + 200] = noise.bytes(200)
    path.write_bytes(content)
    seconds, frames, video = read(path)
    kept = [n for n in range(30) if not 13 <= n < 20]
    assert seconds == [whole[0][n] for n in kept]
    assert all(np.array_equal(frame, whole[1][n]) for frame, n in zip(frames, kept, strict=True))
    assert video.damage == "read 23 frames, 2.9 s, without 7 frames after 1 damaged part: parts of pictures are missing"
    assert capfd.readouterr().err == ""


def test_a_clock_that_starts_again_goes_on_from_where_it_was(tmp_path):
    path = muxed(tmp_path / "a.ts", "mpeg2video")
    alone = read(path)[0]
    path.write_bytes(path.read_bytes() * 2)
    seconds, _, video = read(path)
    assert len(alone) * 2 - 4 <= len(seconds) <= len(alone) * 2
    assert all(0 < step < 0.5 for step in np.diff(seconds))
    assert seconds[-1] == pytest.approx(2 * alone[-1] + 0.1, abs=0.11)
    assert video.duration is None or video.duration > alone[-1]


def test_webm_of_a_browser_has_no_duration(tmp_path):
    """A browser's recorder cannot go back to write the length at the start."""

    class Pipe:
        def __init__(self, file):
            self.write = file.write

    with (tmp_path / "live.webm").open("wb") as file, av.open(Pipe(file), "w", "webm", options={"live": "1"}) as live:
        stream = live.add_stream("libvpx", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in pictures(8):
            live.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        live.mux(stream.encode())
    seconds, _, video = read(tmp_path / "live.webm")
    assert seconds == pytest.approx(np.arange(8) / 10, abs=1e-3)
    assert (video.duration, video.num_frames, video.damage) == (None, None, None)


def write_sound(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def make_bad(path, kind):
    if kind == "sound":
        write_sound(path)
    elif kind in ("JPEG", "PNG"):
        Image.fromarray(next(pictures(1))).save(path, kind)
    elif kind == "folder":
        path.mkdir()
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else np.random.default_rng(0).bytes(5000))


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contents")
    for suffix in (".mp4", ".avi", ".webm"):
        write_video(folder / f"a{suffix}", pictures(6), rate=10)
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@drawn(2)
@given(data=st.data())
def test_damaged_files_are_read_as_far_as_possible_or_refused_in_one_line(contents, tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(sorted(contents)))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(data.draw(damaged(contents[suffix])))
    if (found := in_one_line(read, path)) is not None:
        seconds, frames, video = found
        assert seconds == sorted(seconds)
        assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in frames)
        assert video.damage is None or "\n" not in video.damage


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sound", "contains no video, only audio"),
        ("JPEG", "is a picture, not a video: name it a.jpeg"),
        ("PNG", "is a picture"),
        ("empty", "is empty"),
        ("noise", "cannot be read as a video"),
        ("playlist", "cannot be read as a video"),
        ("missing", "does not exist"),
        ("folder", "is not a file"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, kind, message):
    make_bad(tmp_path / "a.mp4", kind)
    with pytest.raises(ValueError, match=message) as caught:
        Video(tmp_path / "a.mp4")
    assert "a.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_video_without_frames_is_refused(tmp_path):
    with av.open(tmp_path / "a.avi", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=r"a\.avi (contains no|cannot be read)"):
        read(tmp_path / "a.avi")


def test_without_pyav_the_command_to_install_it_is_named(clip, monkeypatch):
    path = clip()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[use\]'"):
        Video(path)


def test_memory_does_not_grow_with_the_length(tmp_path):
    write_video(tmp_path / "long.avi", (picture for _ in range(10) for picture in pictures(20)), rate=30)
    with Video(tmp_path / "long.avi") as video:
        frames = video.frames()
        for _ in range(20):
            next(frames)
        tracemalloc.start()
        assert sum(1 for _ in frames) == 180
        assert tracemalloc.get_traced_memory()[1] < 10 * 3 * 120 * 160
        tracemalloc.stop()


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield from pictures(3)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", failing())
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="must end in one of"):
        write_video(tmp_path / "a.gif", pictures(2))
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_lose_their_last_pixel(tmp_path):
    write_video(tmp_path / "a.mp4", (picture[:119, :159] for picture in pictures(2)))
    assert read(tmp_path / "a.mp4")[1][0].shape == (118, 158, 3)


def test_videos_are_known_by_their_suffix():
    assert is_video("a/b.MP4")
    assert is_video("x.avi")
    assert not is_video("x.jpg")
    assert not is_video("mp4")
