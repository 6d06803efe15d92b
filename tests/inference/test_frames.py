"""Frames of video files: all of them, in order, upright, at their times; of damaged ones what can be had."""

import gc
import os
import struct
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.inference.clips import FakeCapture, number_in, numbered, write_clip
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.inference.frames import open_frames


def numbers(frames):
    return [number_in(frame.image) for frame in frames]


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name == "frames"]


@pytest.mark.parametrize(
    ("name", "code"), [("a.avi", "FFV1"), ("a.avi", "MJPG"), ("a.mkv", "FFV1"), ("a.mp4", "mp4v"), ("a.mov", "mp4v")]
)
@pytest.mark.parametrize(("fps", "count", "shape"), [(10, 20, (48, 128)), (25, 1, (64, 160)), (60, 120, (48, 128))])
def test_every_frame_comes_once_in_order_at_its_time(tmp_path, name, code, fps, count, shape):
    with open_frames(write_clip(tmp_path / name, count, fps=fps, shape=shape, code=code)) as frames:
        assert (frames.fps, frames.count, frames.size, frames.live) == (fps, count, shape, False)
        assert frames.name == str(tmp_path / name)
        got = list(frames)
    assert numbers(got) == [frame.index for frame in got] == list(range(count))
    np.testing.assert_allclose([frame.seconds for frame in got], np.arange(count) / fps, atol=1e-3)
    assert frames.dropped == 0
    assert not frames.warnings
    # YUV with colors at half size and 8 bits loses a few levels, MPEG-4 and JPEG some more at edges; orange stays
    # orange and no blue (which it would be with red and blue exchanged).
    np.testing.assert_allclose(got[0].image[-16:].mean((0, 1)), numbered(0, shape)[-16:].mean((0, 1)), atol=12)


def test_odd_sizes_and_uneven_times_come_as_they_are(tmp_path):
    """By PyAV, since OpenCV's writer cuts sizes to even ones and has one rate."""
    av = pytest.importorskip("av", reason="pip install 'yolov7-jax[video]'")
    path, shape, times = tmp_path / "odd.mkv", (479, 641), [0, 100, 120, 140, 900, 901, 2000]  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = *shape, "bgr0"  # which loses nothing
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, shape), format="rgb24")
            frame.pts, frame.time_base = at, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_frames(path) as frames:
        assert frames.size == shape
        for number, (frame, at) in enumerate(zip(frames, times, strict=True)):
            np.testing.assert_array_equal(frame.image, numbered(number, shape))
            assert frame.seconds == pytest.approx(at / 1000)
    assert not frames.warnings  # by the rate there should be 61 frames, but the times go to the end


def test_every_nth_frame_keeps_index_and_time(tmp_path):
    with open_frames(write_clip(tmp_path / "a.avi", 20), every=7) as frames:
        assert (frames.count, frames.fps) == (3, pytest.approx(25 / 7))
        got = list(frames)
    assert numbers(got) == [frame.index for frame in got] == [0, 7, 14]
    assert [frame.seconds for frame in got] == pytest.approx([0, 7 / 25, 14 / 25])


def test_rotation_of_phones_is_applied(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3, code="mp4v")
    content = bytearray(path.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8  # as ISO/IEC 14496-12, 8.3.2 lays the box out
    assert struct.unpack_from(">9i", content, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    path.write_bytes(content)
    with open_frames(path) as frames:
        assert frames.size == (128, 48)
        got = list(frames)
    assert numbers(type(frame)(np.rot90(frame.image), frame.index, 0.0) for frame in got) == [0, 1, 2]


def test_a_file_whose_rate_is_no_rate_of_frames_gets_that_of_its_times(tmp_path):
    """Browsers record WebM with a clock of milliseconds and no rate: 1000 frames a second, its reader says."""
    path = write_clip(tmp_path / "a.mkv", 20, fps=1000, code="mp4v")
    content = bytearray(path.read_bytes())
    scale = content.find(b"\x2a\xd7\xb1\x83") + 4  # Matroska's TimestampScale: nanoseconds of a tick, in 3 bytes
    assert int.from_bytes(content[scale : scale + 3], "big") == 1_000_000
    content[scale : scale + 3] = (10_000_000).to_bytes(3, "big")  # frames 10 ms apart
    path.write_bytes(content)
    with open_frames(path) as frames:
        assert frames.count is None
        assert frames.fps == pytest.approx(100)
        got = list(frames)
    assert numbers(got) == list(range(20))
    assert [frame.seconds for frame in got] == pytest.approx(np.arange(20) / 100)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_video_that_is_cut_short_gives_what_is_there_and_a_sentence(tmp_path, part):
    whole = write_clip(tmp_path / "whole.mkv", 100, code="MJPG")
    content = whole.read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: round(len(content) * part)])
    told = []
    with open_frames(path, report=told.append) as frames:
        got = list(frames)
    # frames are of about one size and those of JPEG stand alone: as much is there as was copied
    assert numbers(got) == list(range(len(got)))
    assert len(got) == pytest.approx(100 * part, abs=6)
    last = got[-1]
    sentence = f"{path}: ends at frame {last.index} ({last.seconds:.2f} s), of about 100 that it should have"
    advice = "it is cut short or damaged, so copy or download it again; all frames before have been read"
    assert told == [f"{sentence}: {advice}"]
    assert list(frames.warnings) == told


def test_damaged_frames_are_left_out_and_the_rest_comes(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 60, shape=(240, 320), code="mp4v")
    content = bytearray(path.read_bytes())
    start, length = len(content) // 3, len(content) // 8
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with open_frames(path) as frames:
        got = list(frames)
    assert got[0].index == 0
    assert got[-1].index == 59
    assert got[-1].seconds == pytest.approx(59 / 25)
    assert 30 <= len(got) < 60
    (sentence,) = frames.warnings
    assert f"left out {60 - len(got)} of 60 frames, which cannot be decoded" in sentence


def _cut(path):
    path.write_bytes(write_clip(path.with_name("whole.mp4"), 20, code="mp4v").read_bytes()[:-300])


def _without_frames(path):
    """Its header and nothing else."""
    path.write_bytes(write_clip(path.with_name("whole.avi"), 20).read_bytes()[:5_680])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("gone.mp4", lambda path: None, "gone.mp4: is not there; expected a video file, the number of a camera, a str"),
        ("a.mp4", lambda path: path.mkdir(), "a.mp4: is a folder; expected a video file"),
        ("a.mp4", lambda path: path.touch(), "a.mp4: is empty; copy or download it again"),
        ("a.mp4", lambda path: path.write_text("hello " * 100), "a.mp4: OpenCV finds no video in it that it can deco"),
        ("a" * 300, lambda path: None, r"a: cannot be read \(File name too long\); expected a video file, the number"),
        ("a.mp4", _cut, r"a.mp4: is cut short: the index at its end \(moov\) is missing"),
        ("a.avi", _without_frames, r"a.avi: (OpenCV finds no video|no frame of it can be decoded)"),
    ],
)
def test_sentences_of_files(tmp_path, name, make, sentence):
    make(tmp_path / name)
    with pytest.raises(DataError, match=sentence):
        open_frames(tmp_path / name)
    assert not decoding_threads()


def test_names_that_ffmpeg_takes_for_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.avi", 2).rename("12:30.avi")
    assert numbers(open_frames("12:30.avi")) == [0, 1]


@pytest.mark.parametrize("option", [{"every": 0}, {"ahead": 0}, {"reconnects": -1}, {"fps": 0}, {"fps": float("nan")}])
def test_options_out_of_range(option):
    with pytest.raises(InputError, match=f"{next(iter(option))} must be"):
        open_frames("a.mp4", **option)


def test_a_slow_consumer_is_waited_for(tmp_path, monkeypatch):
    """The decoder is at most `ahead` frames in front, and loses none."""
    decoded = []
    path = write_clip(tmp_path / "a.avi", 40)
    real = cv2.cvtColor
    monkeypatch.setattr(cv2, "cvtColor", lambda *args: decoded.append(1) or real(*args))
    with open_frames(path, ahead=3) as frames:
        for taken, frame in enumerate(frames, start=1):
            assert number_in(frame.image) == taken - 1
            if taken < 10:
                time.sleep(0.02)
            assert len(decoded) <= taken + 3
        assert taken == 40
    assert frames.dropped == 0


def test_breaking_off_ends_the_thread_and_lets_go(tmp_path):
    path = write_clip(tmp_path / "a.avi", 40)
    with pytest.raises(KeyboardInterrupt), open_frames(path):
        raise KeyboardInterrupt
    assert not decoding_threads()
    for _ in open_frames(path):
        break
    gc.collect()
    deadline = time.monotonic() + 5
    while decoding_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not decoding_threads()
    frames = open_frames(path)
    frames.close()
    frames.close()
    assert list(frames) == []


def test_errors_of_the_thread_come_out_in_the_caller():
    def fail_at_third(state=[]):  # noqa: B006 (counts its calls)
        state.append(1)
        if len(state) == 3:
            raise RuntimeError("the driver broke")

    capture = FakeCapture(wait=fail_at_third)
    frames = open_frames(0, opening=lambda source, timeout: capture, ahead=8)
    assert numbers([next(frames), next(frames)]) == [0, 1]
    with pytest.raises(RuntimeError, match="the driver broke"):
        next(frames)
    assert list(frames) == []
    assert capture.released


def memory():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat_over_ten_thousand_frames(tmp_path):
    path = tmp_path / "a.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (128, 32))
    for _ in range(10_000):
        writer.write(np.zeros((32, 128, 3), np.uint8))
    writer.release()
    with open_frames(path) as frames:
        for frame in frames:
            if frame.index == 500:
                before = memory()
    assert frame.index == 9_999
    assert memory() - before < 16e6  # all frames are 122 MB


def test_a_program_that_ends_with_frames_open_ends_well(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", 300, shape=(720, 1280))
    program = f"import yolov7_jax as yolo; frames = yolo.open_frames({str(clip)!r}); print(next(frames).index)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
