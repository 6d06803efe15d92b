"""Runs over videos: a line and a drawn frame for each frame, whatever ends them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.inference.clips import FakeCapture, jpeg, number_in, numbered, write_clip
from tests.small_networks import small_weights
from yolov7_jax.cli.main import main
from yolov7_jax.config import Options
from yolov7_jax.convert.weights_file import save
from yolov7_jax.errors import InstallationError
from yolov7_jax.experiment.inference import Output
from yolov7_jax.experiment.videos import VideoRun, detect_video
from yolov7_jax.image import read_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.frames import open_frames

SHAPE = (50, 140)  # of frames


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_weights())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.mkv", 12, fps=10.0, shape=SHAPE)


def lines(run: VideoRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "detections.jsonl").read_text().splitlines()]


def test_a_line_and_a_drawn_frame_for_each(detector: Detector, clip: Path, tmp_path: Path) -> None:
    run = detect_video(detector, open_frames(clip), tmp_path / "out", options=Options(batch_size=5))
    rows = lines(run)
    assert [row["frame"] for row in rows] == list(range(12))
    assert [row["seconds"] for row in rows] == [number / 10 for number in range(12)]
    assert run.frames == 12
    for row in (rows[0], rows[7]):  # the frames lie in the batches that they should
        with open_frames(clip) as frames:
            image = next(frame.image for frame in frames if frame.index == row["frame"])
        assert row["detections"] == detector(image)[0].to_rows()
    assert sum(run.objects.values()) == sum(len(row["detections"]) for row in rows) > 0
    assert run.video == tmp_path / "out" / "a.mp4"
    with open_frames(run.video) as drawn:
        images = [frame.image for frame in drawn]
    assert len(images) == 12
    assert images[0].shape[:2] == SHAPE
    assert run.sentences[-1].endswith("without sound")


def test_objects_keep_their_numbers(detector: Detector, tmp_path: Path) -> None:
    still = [numbered(5, SHAPE)] * 6
    capture = FakeCapture(6)
    capture.retrieve = lambda _image: (True, still[0][..., ::-1].copy())  # type: ignore[method-assign]
    frames = open_frames(0, opening=lambda *_: capture, reconnects=0, ahead=6)
    run = detect_video(detector, frames, tmp_path / "out", options=Options(confidence=0.3), track=True)
    *_, before, last = lines(run)
    numbers = [row["track_id"] for row in last["detections"]]
    assert len(set(numbers)) == len(numbers) > 0
    assert [row["track_id"] for row in before["detections"]] == numbers
    assert sum(run.objects.values()) == len({row["track_id"] for line in lines(run) for row in line["detections"]})


def test_crops_and_scores_of_each_frame(detector: Detector, clip: Path, tmp_path: Path) -> None:
    output = Output(images=False, crops=True, save_confidence=True)
    run = detect_video(detector, open_frames(clip, every=6), tmp_path / "out", output=output)
    assert sorted(path.name for path in (run.folder / "labels").iterdir()) == ["a-000000.txt", "a-000006.txt"]
    first = lines(run)[0]["detections"][0]
    scored = (run.folder / "labels/a-000000.txt").read_text().splitlines()[0].split()
    assert float(scored[-1]) == pytest.approx(first["score"], abs=1e-5)
    crop = read_image(run.folder / "crops" / first["class"] / "a-000000-1.jpg")
    left, top, right, bottom = first["box_xyxy_px"]
    assert abs(crop.shape[1] - (right - left)) <= 2
    assert abs(crop.shape[0] - (bottom - top)) <= 2
    assert run.video is None
    assert not list(run.folder.glob("*.mp4"))


def test_ctrl_c_leaves_whole_files(detector: Detector, clip: Path, tmp_path: Path) -> None:
    def interrupted(items: Iterable[Any], total: int) -> Iterator[Any]:
        for number, item in enumerate(items):
            yield item
            if number == 3:
                raise KeyboardInterrupt

    frames = open_frames(clip)
    run = detect_video(detector, frames, tmp_path / "out", progress=interrupted)
    assert run.interrupted
    assert run.video is not None
    with open_frames(run.video) as drawn:
        assert len(list(drawn)) == run.frames == len(lines(run)) >= 4
    assert next(frames, None) is None  # the source is let go


def test_commands_take_videos_beside_images_and_pipes(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save("net.safetensors", small_weights())
    (tmp_path / "0.jpg").write_bytes(jpeg(3))
    assert main(["detect", "net.safetensors", "0.jpg", str(clip), "--every", "4", "--track"]) == 0
    told = capsys.readouterr()
    assert "in 3 frames; see runs/detect\n" in told.out
    assert "in 1 images; see runs/detect-2\n" in told.out
    assert "without sound" in told.err
    Path("frames").write_bytes(b"".join(jpeg(number) for number in range(4)))
    with Path("frames").open() as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        assert main(["detect", "net.safetensors", "-", "--no-images"]) == 0
    assert "in 4 frames; see runs/detect-3" in capsys.readouterr().out
    assert main(["detect", "net.safetensors", "absent.mp4"]) == 2
    assert "absent.mp4: is not there" in capsys.readouterr().err
    assert main(["detect", "net.safetensors", "https://example.com/a.jpg"]) == 2
    assert "images are not fetched from the network" in capsys.readouterr().err


def test_what_is_drawn_is_the_frame(detector: Detector, clip: Path, tmp_path: Path) -> None:
    run = detect_video(detector, open_frames(clip), tmp_path / "out", options=Options(confidence=1.0))
    assert run.video is not None
    with open_frames(run.video) as drawn:  # nothing is found at this confidence, so that numbers can be read
        assert [number_in(frame.image) for frame in drawn] == list(range(12))
    assert run.objects == {}


def test_the_source_is_let_go_where_the_tracker_is_missing(
    detector: Detector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    frames = open_frames(clip)
    with pytest.raises(InstallationError, match=r"pip install 'yolov7-jax\[track\]'"):
        detect_video(detector, frames, tmp_path / "out", track=True)
    assert next(frames, None) is None
    assert not (tmp_path / "out").exists()
