"""Frames of live sources: the newest ones, whoever is slow; and taken up again when they break off."""

import itertools
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import pytest

from tests.inference.clips import FakeCapture, jpeg, number_in, numbered, write_clip
from yolov7_jax.errors import DataError
from yolov7_jax.inference.captures import is_address, is_camera, name_of
from yolov7_jax.inference.frames import open_frames

ADDRESS = "rtsp://me:secret@10.0.0.7/door"


def numbers(frames):
    return [number_in(frame.image) for frame in frames]


def opening_of(*captures):
    """Opens a fake after the other; notes what was asked for."""
    rest, asked = iter(captures), []

    def opening(source, timeout):
        asked.append((source, timeout))
        return next(rest)

    opening.asked = asked
    return opening


@pytest.mark.parametrize(("source", "opened"), [(0, 0), ("3", 3), ("/dev/video2", "/dev/video2"), (ADDRESS, ADDRESS)])
def test_live_sources_are_opened_as_what_they_are(source, opened):
    opening = opening_of(FakeCapture(5, fps=15))
    with open_frames(source, opening=opening, ahead=9, reconnects=0, timeout=3) as frames:
        assert (frames.fps, frames.count, frames.live, frames.size) == (15, None, True, (48, 128))
        got = list(frames)
    assert opening.asked == [(opened, 3)]
    assert numbers(got) == [frame.index for frame in got] == [0, 1, 2, 3, 4]
    assert frames.dropped == 0
    assert list(frames.warnings) == [f"{name_of(source)}: ended at frame 5"]
    seconds = [frame.seconds for frame in got]
    assert seconds == sorted(seconds)


def test_of_a_source_that_is_faster_than_its_consumer_the_newest_frames_come():
    """For each frame taken the camera sends ten; of all that wait the newest three are kept."""
    sent, go_on, ten_sent = itertools.count(), threading.Semaphore(1), threading.Semaphore(0)

    def wait():
        number = next(sent)
        if number % 10 == 0:
            if number:
                ten_sent.release()
            assert go_on.acquire(timeout=30)

    with open_frames(0, opening=opening_of(FakeCapture(100, wait=wait)), ahead=3, reconnects=0) as frames:
        got = []
        for _ in range(5):
            assert ten_sent.acquire(timeout=30)
            got.append(next(frames))
            dropped = frames.dropped
            go_on.release()
        go_on.release(1000)
        rest = list(frames)
    indices = [frame.index for frame in got + rest]
    assert numbers(got + rest) == indices == sorted(set(indices))
    assert indices[:5] == [7, 17, 27, 37, 47]
    assert dropped == 50 - 5 - 2  # five taken, and 48 and 49 wait
    assert indices[-3:] == [97, 98, 99]
    assert frames.dropped == 100 - len(indices)


def test_every_nth_frame_of_a_camera():
    frames = open_frames(0, opening=opening_of(FakeCapture(10)), every=4, ahead=9, reconnects=0)
    assert [(frame.index, number_in(frame.image)) for frame in frames] == [(0, 0), (4, 4), (8, 8)]
    assert frames.fps == pytest.approx(30 / 4)


@pytest.mark.parametrize(("fps", "expected"), [(0.0, 25), (-1.0, 25), (90_000.0, 25), (float("nan"), 25), (15.0, 15)])
def test_rates_that_are_none(fps, expected):
    with open_frames(0, opening=opening_of(FakeCapture(1, fps=fps)), reconnects=0) as frames:
        assert frames.fps == expected
    with open_frames(0, opening=opening_of(FakeCapture(1, fps=fps)), fps=12, reconnects=0) as frames:
        assert frames.fps == 12


def test_a_stream_that_breaks_off_is_taken_up_again():
    """After a first try at which nothing answers and a second at which no frame comes."""
    captures = [FakeCapture(3), FakeCapture(is_open=False), FakeCapture(0), FakeCapture(4, first=50)]
    told = []
    opening = opening_of(*captures, *[FakeCapture(is_open=False)] * 3)
    frames = open_frames(ADDRESS, opening=opening, ahead=9, reconnects=3, pause=0.01, report=told.append)
    got = [next(frames) for _ in range(7)]
    assert numbers(got) == [0, 1, 2, 50, 51, 52, 53]
    assert [frame.index for frame in got] == list(range(7))
    name = "rtsp://me:***@10.0.0.7/door"
    sentence = (
        f"{name}: broke off at frame 7 and did not come back in 3 tries; see whether it still sends, or allow more"
    )
    with pytest.raises(DataError, match=sentence.replace("*", r"\*")):
        next(frames)
    first, again = ([0.01, 0.02, 0.04],) * 2
    tries = f"{name}: broke off at frame %d; tries again in %g s (try %d of 3)"
    assert told == [
        *(tries % (3, pause, number) for number, pause in enumerate(first, start=1)),
        f"{name}: is back",
        *(tries % (7, pause, number) for number, pause in enumerate(again, start=1)),
    ]
    assert list(frames.warnings) == told
    assert all(capture.released for capture in captures if capture.is_open)


def test_damaged_frames_of_a_stream_do_not_break_it_off():
    opening = opening_of(FakeCapture(60, damaged=[3, 4, *range(10, 35)]))
    with open_frames(ADDRESS, opening=opening, ahead=60, reconnects=0) as frames:
        assert numbers(frames) == [*range(3), *range(5, 10), *range(35, 60)]


def test_a_stream_whose_frames_are_waited_for_in_vain_has_broken_off():
    """Each of the reads takes as long as the stream was given."""
    reads = []

    class Silent(FakeCapture):
        def grab(self):
            if self.numbers < 2:
                return super().grab()
            reads.append(time.sleep(1.05))
            return False

    with open_frames(ADDRESS, opening=opening_of(Silent()), reconnects=0) as frames:
        assert numbers(frames) == [0, 1]
    assert len(reads) == 1


def test_closing_does_not_wait_for_the_next_try():
    broke_off = threading.Event()
    opening = opening_of(FakeCapture(1))
    frames = open_frames(0, opening=opening, pause=600, report=lambda sentence: broke_off.set())
    assert broke_off.wait(30)
    started = time.monotonic()
    frames.close()
    assert time.monotonic() - started < 1
    assert not frames._ahead.thread.is_alive()


@pytest.mark.parametrize(
    ("source", "capture", "sentence"),
    [
        (0, FakeCapture(is_open=False), r"camera 0: cannot be opened; connect it, close what else uses it, or try ano"),
        (0, FakeCapture(0), r"camera 0: answers but sends no frame; see whether it works in a player"),
        (ADDRESS, FakeCapture(is_open=False), r"rtsp://me:\*\*\*@10.0.0.7/door: no video comes from there within 10 s"),
        (ADDRESS, FakeCapture(0), r"rtsp://me:\*\*\*@10.0.0.7/door: answers but sends no frame"),
    ],
)
def test_sentences_of_live_sources(source, capture, sentence):
    with pytest.raises(DataError, match=sentence):
        open_frames(source, opening=opening_of(capture))
    assert capture.released == capture.is_open


def test_there_is_no_camera_of_that_number():
    with pytest.raises(DataError, match="camera 63: cannot be opened"):
        open_frames(63)


@pytest.mark.parametrize(
    ("source", "camera", "address"),
    [
        (0, True, False),
        ("12", True, False),
        ("/dev/video0", True, False),
        ("/dev/shm/a.mp4", False, False),
        ("a.mp4", False, False),
        ("http://a/b", False, True),
        ("RTSP://a/b", False, True),
        ("udp://@:5000", False, True),
        ("C:/a.mp4", False, False),
        ("-", False, False),
    ],
)
def test_kinds_of_sources(source, camera, address):
    assert (is_camera(source), is_address(source)) == (camera, address)


@pytest.fixture
def server(tmp_path):
    """Serves MJPEG as cameras do, so many frames a connection as `server.frames` says, and a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/clip.mp4":
                content = self.server.clip
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            count = next(self.server.frames, None)
            if count is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(count):
                image = jpeg(next(self.server.numbers))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                self.wfile.write(head.encode() + image + b"\r\n")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.clip = write_clip(tmp_path / "clip.mp4", 30, code="mp4v").read_bytes()
    server.numbers = itertools.count()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_camera_on_the_network_that_comes_back_once(server):
    server.frames = iter([12, 9])
    told = []
    frames = open_frames(f"{server.address}/video", pause=0.01, reconnects=2, ahead=50, report=told.append)
    assert frames.live
    got = []
    with pytest.raises(DataError, match="video: broke off at frame 21 and did not come back in 2 tries"):
        got.extend(iter(frames))
    assert told[:2] == [
        f"{server.address}/video: broke off at frame 12; tries again in 0.01 s (try 1 of 2)",
        f"{server.address}/video: is back",
    ]
    assert len(told) == 4


def test_frames_of_a_camera_on_the_network_come_in_order(server):
    server.frames = iter([12, 9])
    got = []
    with open_frames(f"{server.address}/video", pause=0.01, ahead=50) as frames:
        for frame in frames:
            got.append(frame)
            if len(got) == 21:
                break
    assert numbers(got) == [frame.index for frame in got] == list(range(21))


def test_a_server_that_refuses(server):
    server.frames = iter([])
    with pytest.raises(DataError, match=r"http://127.0.0.1:[0-9]+/video: no video comes from there within 5 s"):
        open_frames(f"{server.address}/video", timeout=5)


def test_a_server_that_does_not_answer_is_waited_for_so_long(server):
    """A socket that takes connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(DataError, match=r"no video comes from there within 0\.5 s"):
            open_frames(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.5)
        assert time.monotonic() - started < 5


def test_a_file_on_a_server_is_no_live_source(server):
    with open_frames(f"{server.address}/clip.mp4") as frames:
        assert (frames.live, frames.count) == (False, 30)
        assert numbers(frames) == list(range(30))
    assert not frames.warnings


def test_an_image_of_a_camera_is_in_rgb():
    """OpenCV's are in BGR: orange would be blue."""
    with open_frames(0, opening=opening_of(FakeCapture(1)), reconnects=0) as frames:
        assert (next(frames).image == numbered(0)).all()
    assert cv2.cvtColor(numbered(0), cv2.COLOR_RGB2BGR)[0, 0].tolist() == [10, 120, 230]
