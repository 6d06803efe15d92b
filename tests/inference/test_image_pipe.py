"""Frames through standard input and named pipes: images in a row in whatever pieces they come, or a video."""

import os
import subprocess
import sys
import threading
from contextlib import suppress

import cv2
import numpy as np
import pytest

from tests.inference.clips import jpeg, number_in, numbered, write_clip
from yolov7_jax.errors import DataError
from yolov7_jax.inference import image_pipe
from yolov7_jax.inference.frames import open_frames


def png(number):
    return cv2.imencode(".png", cv2.cvtColor(numbered(number), cv2.COLOR_RGB2BGR))[1].tobytes()


def with_thumbnail(data):
    """A JPEG with another one, which has an end of its own, in its header, as cameras write it."""
    inside = jpeg(99)
    return data[:2] + b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside + data[2:]


def progressive(number):
    """A JPEG of several scans."""
    return cv2.imencode(".jpg", numbered(number), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


@pytest.fixture
def through(tmp_path):
    """Opens a named pipe through which bytes come."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writers = []

    def write(data):
        with suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            pipe.write(data)

    def start(data, **options):
        writers.append(threading.Thread(target=write, args=(data,), daemon=True))
        writers[-1].start()
        return open_frames(path, **options)

    yield start
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive()


def numbers(frames):
    return [number_in(frame.image) for frame in frames]


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
def test_images_of_both_kinds_in_a_row(through, monkeypatch, piece):
    """In whatever pieces they come."""
    monkeypatch.setattr(image_pipe, "_CHUNK", piece)
    data = jpeg(0) + png(1) + with_thumbnail(jpeg(2)) + progressive(3) + png(4) + jpeg(5)
    with through(data, fps=5) as frames:
        assert (frames.fps, frames.count, frames.live, frames.size) == (5, None, False, (48, 128))
        got = list(frames)
    assert numbers(got) == list(range(6))
    assert [frame.seconds for frame in got] == pytest.approx(np.arange(6) / 5)
    np.testing.assert_array_equal(got[1].image, numbered(1))  # PNG loses nothing
    assert not frames.warnings


def test_what_is_between_images_is_left_out(through):
    """As of a camera's answer over HTTP, saved as it came."""
    boundary = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    assert numbers(through(boundary.join([jpeg(0), jpeg(1), png(2)]) + b"\r\n--frame--")) == [0, 1, 2]


def test_damaged_images_are_left_out_and_counted(through):
    broken = png(1)[:60] + bytes(20) + png(1)[80:]  # its pixels
    with through(png(0) + broken + png(2)) as frames:
        assert [(frame.index, number_in(frame.image)) for frame in frames] == [(0, 0), (2, 2)]
    (sentence,) = frames.warnings
    assert "left out 1 of 3 frames" in sentence


@pytest.mark.parametrize("last", [jpeg(2)[:-30], jpeg(2)[:-1], jpeg(2)[:4], png(2)[:-30], png(2)[:-1], png(2)[:20]])
def test_a_pipe_that_ends_within_an_image(through, last):
    told = []
    assert numbers(through(jpeg(0) + jpeg(1) + last, report=told.append)) == [0, 1]
    (sentence,) = told
    assert sentence.endswith("ends within image 2, which is left out; all before have been read")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty; expected JPEG or PNG images one after another"),
        (b"hello\n" * 1000, "neither images nor a video that can be decoded from a pipe; expected JPEG or PNG"),
        (b"hello", "neither images nor a video"),
        (jpeg(0)[:-20], "no frame of it can be decoded"),
    ],
)
def test_pipes_of_something_else(through, data, sentence):
    with pytest.raises(DataError, match=sentence):
        through(data)


@pytest.mark.parametrize(("name", "code"), [("a.mkv", "FFV1"), ("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_a_video_comes_through_a_pipe(through, tmp_path, name, code):
    content = write_clip(tmp_path / name, 30, code=code).read_bytes()
    with through(content) as frames:
        assert numbers(frames) == list(range(30))
        assert frames.fps == 25


def test_breaking_off_a_pipe_of_a_video_lets_its_writer_go(through, tmp_path):
    """The fixture waits for the writer."""
    content = write_clip(tmp_path / "a.mkv", 20, shape=(240, 320), code="HFYU").read_bytes()  # which packs little
    assert len(content) > 1e6  # more than pipes hold
    with through(content) as frames:
        next(frames)


_READER = """
from yolov7_jax.inference.frames import open_frames
from tests.inference.clips import number_in
print([number_in(frame.image) for frame in open_frames("-")])
"""


def _by_stdin(code, **given):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False, **given)
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_standard_input():
    assert _by_stdin(_READER, input=jpeg(0) + jpeg(1) + jpeg(2)) == (0, "[0, 1, 2]\n", "")


def test_a_program_ends_while_it_still_waits_for_standard_input():
    """Its thread is in the middle of a read then."""
    code = 'from yolov7_jax.inference.frames import open_frames\nprint(open_frames("-").size)'
    reading, writing = os.pipe()
    os.write(writing, jpeg(0))
    try:
        assert _by_stdin(code, stdin=reading) == (0, "(48, 128)\n", "")
    finally:
        os.close(reading)
        os.close(writing)


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match=r"standard input: cannot be read \(there is none\); expected JPEG or PNG"):
        open_frames("-")
