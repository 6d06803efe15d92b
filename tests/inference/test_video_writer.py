"""Videos that are written: playable, of even size, at their rate, also when they are broken off."""

import os
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

from tests.inference.clips import number_in, numbered, write_clip
from tests.small_networks import small_weights
from yolov7_jax.errors import DataError, InstallationError
from yolov7_jax.inference import av_encoder, video_writer
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.frames import open_frames
from yolov7_jax.inference.video_writer import WRITTEN_SUFFIXES, VideoWriter


@pytest.fixture(params=["OpenCV", "PyAV"])
def encoder(request, monkeypatch):
    """With PyAV, and as if it were not installed."""
    if request.param == "PyAV":
        pytest.importorskip("av", reason="pip install 'yolov7-jax[video]'")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    return request.param


def files(folder):
    return [path.name for path in folder.iterdir()]


def numbers(path):
    return [number_in(frame.image) for frame in open_frames(path)]


def codec(suffix, encoder):
    if suffix == ".webm":
        return "VP9"
    return "H.264" if encoder == "PyAV" and suffix != ".avi" else "MPEG-4"


@pytest.mark.parametrize("suffix", sorted(WRITTEN_SUFFIXES))
@pytest.mark.parametrize(("fps", "shape"), [(25, (48, 128)), (29.97, (49, 129)), (10, (48, 129))])
def test_what_is_written_is_read(tmp_path, encoder, suffix, fps, shape):
    if suffix == ".webm" and encoder == "OpenCV":
        return  # test_webm_says_what_to_install
    path = tmp_path / "new" / f"a{suffix}"
    with VideoWriter(path, fps=fps) as writer:
        for number in range(12):
            writer.write(numbered(number, shape))
        assert not path.exists()  # it has another name until it is whole
    height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
    name = codec(suffix, encoder)
    assert writer.sentence == f"{path}: 12 frames, {width} × {height} pixels, {fps:g} a second, {name}, without sound"
    assert files(path.parent) == [path.name]
    with open_frames(path) as frames:
        assert frames.size == (height, width)
        assert frames.fps == pytest.approx(fps, abs=0.01)
        got = list(frames)
    assert [number_in(frame.image) for frame in got] == list(range(12))
    # The column and row that were added are copies: orange as their neighbors, not black. Codecs lose a few levels.
    np.testing.assert_allclose(got[0].image[-8:, -8:].mean((0, 1)), [230, 120, 10], atol=12)


def test_capitals_and_sizes_that_change(tmp_path, encoder):
    with VideoWriter(tmp_path / "A.MP4", fps=25) as writer:
        writer.write(numbered(1))
        writer.write(numbered(2, (96, 256)))
        writer.write(numbered(3))
    with open_frames(tmp_path / "A.MP4") as frames:
        assert {frame.image.shape for frame in frames} == {(48, 128, 3)}


def test_times_set_the_tempo(tmp_path, encoder):
    """A stream at ten frames a second of which some were dropped and some came too close to each other."""
    with VideoWriter(tmp_path / "a.avi", fps=10) as writer:
        for number, seconds in enumerate([0.0, 0.11, 0.5, 0.52, 0.6, 0.7]):
            writer.write(numbered(number), seconds=seconds)
    assert numbers(tmp_path / "a.avi") == [0, 1, 1, 1, 1, 2, 4, 5]


def test_times_may_begin_late(tmp_path, encoder):
    with VideoWriter(tmp_path / "a.avi", fps=10) as writer:
        writer.write(numbered(7), seconds=0.3)
    assert numbers(tmp_path / "a.avi") == [7, 7, 7, 7]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_written_until_it_was_broken_off_can_be_played(tmp_path, encoder, error):
    with suppress(error), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        for number in range(9):
            writer.write(numbered(number))
        raise error
    assert numbers(tmp_path / "a.mp4") == list(range(9))
    assert files(tmp_path) == ["a.mp4"]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.avi"
    path.write_text("older")
    with VideoWriter(path, fps=25) as writer:
        writer.write(numbered(1))
        assert path.read_text() == "older"
    assert numbers(path) == [1]


def test_without_frames_there_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        pass
    writer.close()
    assert files(tmp_path) == []
    assert writer.sentence == ""


def test_encoding_is_done_by_a_thread_that_is_waited_for(tmp_path, monkeypatch):
    """Whoever writes does not wait for the encoder before five frames wait, and then does."""
    go_on, threads = threading.Semaphore(0), set()

    def slow(self, image):
        threads.add(threading.current_thread())
        assert go_on.acquire(timeout=30)
        real(self, image)

    real = video_writer._Encoding.write
    monkeypatch.setattr(video_writer._Encoding, "write", slow)
    with VideoWriter(tmp_path / "a.avi", fps=25) as writer:
        for number in range(4):
            writer.write(numbered(number))  # would never return in this thread
        waiting = threading.Thread(target=lambda: writer.write(numbered(4)))
        waiting.start()
        waiting.join(0.2)
        waits = waiting.is_alive()
        go_on.release(100)
        waiting.join()
    assert waits
    assert threading.current_thread() not in threads
    assert numbers(tmp_path / "a.avi") == list(range(5))


@pytest.mark.parametrize(
    ("name", "fps", "sentence"),
    [
        ("a.gif", 25, r"a.gif: videos cannot be written as '.gif'; use .avi, .m4v, .mkv, .mov, .mp4, .webm"),
        ("a", 25, "a: videos cannot be written as ''; use"),
        ("a.mp4", 0, "a.mp4: 0 frames a second cannot be written; expected 0.01 to 480"),
        ("a.mp4", float("nan"), "a.mp4: nan frames a second"),
    ],
)
def test_sentences_at_once(tmp_path, name, fps, sentence):
    with pytest.raises(DataError, match=sentence):
        VideoWriter(tmp_path / name, fps=fps)


def test_webm_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InstallationError, match=r"'.webm' is written by PyAV; pip install 'yolov7-jax\[video\]'"):
        VideoWriter(tmp_path / "a.webm", fps=25)


def test_places_and_sizes_that_cannot_be_written(tmp_path, encoder):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"a.mp4: cannot be written \(Not a directory\)|\(File exists\)"):
        VideoWriter(tmp_path / "file" / "a.mp4", fps=25).write(numbered(0))
    with pytest.raises(DataError, match=r"b.mp4: no encoder here takes 70000 × 2 pixels; use .avi or another size"):
        VideoWriter(tmp_path / "b.mp4", fps=25).write(np.zeros((2, 70_000, 3), np.uint8))
    assert files(tmp_path) == ["file"]


_FILLS_DISK = """
import resource, sys
import numpy as np
if sys.argv[1] == "OpenCV":
    sys.modules["av"] = None
from yolov7_jax.errors import DataError
from yolov7_jax.inference.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
rng = np.random.default_rng(0)
try:
    with VideoWriter("a.mkv", fps=25) as writer:
        for number in range(60):
            writer.write(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_said(tmp_path, encoder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _FILLS_DISK, encoder]
    run = subprocess.run(
        command, capture_output=True, timeout=60, check=False, cwd=tmp_path, env=environment, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == (
        "a.mkv: not all frames could be written (what could stands in a.part.mkv); see whether the disk is full, make "
        "room and start again\n"
    )
    assert 40_000 < (tmp_path / "a.part.mkv").stat().st_size <= 100_000
    assert files(tmp_path) == ["a.part.mkv"]


def test_pyav_without_its_codec_is_as_if_it_were_not_there(monkeypatch):
    pytest.importorskip("av", reason="pip install 'yolov7-jax[video]'")
    assert av_encoder.can_encode(".mp4")
    assert not av_encoder.can_encode(".avi")
    monkeypatch.setitem(av_encoder.CODECS, ".mp4", ("libgone", "H.264", {}))
    assert not av_encoder.can_encode(".mp4")


def test_from_a_video_through_a_detector_into_a_video(tmp_path):
    """Frames are read ahead, detected in and encoded at once; each result belongs to its frame."""
    detector = Detector(small_weights())
    path = write_clip(tmp_path / "a.avi", 12, shape=(80, 128))  # half as large: what other tests compile for
    with open_frames(path) as frames:
        one_by_one = detector([frame.image for frame in frames])
    with open_frames(path) as frames, VideoWriter(tmp_path / "found.mkv", fps=frames.fps) as video:
        for position, result in enumerate(detector.stream(frame.image for frame in frames)):
            assert result.position == position == number_in(result.image)
            np.testing.assert_array_equal(result.detections.boxes_xyxy_px, one_by_one[position].boxes_xyxy_px)
            video.write(result.image)
    assert numbers(tmp_path / "found.mkv") == list(range(12))
