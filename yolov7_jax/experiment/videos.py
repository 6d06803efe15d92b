"""Runs of detection in moving images: videos, cameras, streams and pipes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.experiment.inference import DRAWN, Output, file_name, write_detections
from yolov7_jax.inference.decoding import Frame
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.frames import Frames
from yolov7_jax.inference.results import Result
from yolov7_jax.inference.tracking import LOW_CONFIDENCE, Tracker
from yolov7_jax.inference.video_writer import VideoWriter
from yolov7_jax.prefetch import ProgressBar, no_progress, prefetch
from yolov7_jax.training import hosts
from yolov7_jax.types import Detections
from yolov7_jax.viz.draw import Trails, draw_detections

_AHEAD = 4  # frames that wait to be drawn at most


@dataclass
class VideoRun:
    """What `detect_video` did: its folder, the video with boxes if there is one, and what it counted.

    frames: that were looked at. objects: detections by class, or tracked objects where they are tracked. dropped:
    frames of a live source that came too quickly. sentences: what is to be said of it, such as that a file ended early.
    interrupted: Ctrl-C ended it.
    """

    folder: Path
    video: Path | None = None
    frames: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    overflow: int = 0
    sentences: list[str] = field(default_factory=list)
    interrupted: bool = False


def detect_video(
    detector: Detector,
    frames: Frames,
    folder: Path,
    *,
    options: Options | None = None,
    output: Output = DRAWN,
    track: bool = False,
    progress: ProgressBar = no_progress,
) -> VideoRun:
    """Detects in each frame; writes detections.jsonl, a line a frame, NAME.mp4 with boxes, and crops if asked for.

    Lines are written as frames are done. Ctrl-C ends it as the end of the source does: what was written is whole.
    Frames are decoded, drawn and encoded in threads while the network works on others.

    Args:
        detector: the network and its weights.
        frames: of `open_frames`; they are closed in the end.
        folder: where to write; a number is added to its name if it is there.
        options: of detection. Where objects are tracked, `confidence` is what an object begins with, and detections
            from 0.1 on carry it on.
        output: what to write; with crops or scores each frame has its label file too.
        track: whether objects are numbered over the frames, see `Tracker`.
        progress: shows how far it is; its total is 0 where nobody knows.

    Raises:
        DataError: the folder or the video cannot be written, or a stream broke off for good. InputError: an option is
            out of its range. InstallationError: the tracker is missing.
    """
    options = options or Options()
    stem = file_name(Path(frames.name).stem)
    with ExitStack() as opened:
        opened.enter_context(frames)  # first: their thread ends whatever fails
        tracker = None
        if track:
            tracker = Tracker(fps=frames.fps, confidence=options.confidence, agnostic=options.agnostic)
            options = replace(options, confidence=min(options.confidence, LOW_CONFIDENCE))
        if frames.live:
            options = replace(options, workers=1)  # fewer frames on their way: what is shown is younger
        folder = opened.enter_context(hosts.new_folder(folder))
        run = VideoRun(folder)
        writer = None
        if output.images:
            run.video = folder / f"{stem}.mp4"
            writer = VideoWriter(run.video, fps=frames.fps)
        lines = opened.enter_context((folder / "detections.jsonl").open("w", encoding="utf-8"))
        seen: dict[int, Frame] = {}
        results = detector.stream(_images(frames, seen), options)
        each = _Each(run, output, stem, seen, tracker, frames.every, writer, lines)
        try:
            for _ in progress(prefetch(each.take, results, workers=1, ahead=_AHEAD, beside=True), frames.count or 0):
                pass
        except KeyboardInterrupt:
            run.interrupted = True
        finally:
            if writer is not None:
                writer.close()
        run.dropped = frames.dropped
        run.sentences = [*frames.warnings, *([writer.sentence] if writer is not None and writer.sentence else [])]
    return run


def _images(frames: Frames, seen: dict[int, Frame]) -> Iterator[NDArray[np.uint8]]:
    """The images of frames, which are noted by their places as they are taken."""
    for place, frame in enumerate(frames):
        seen[place] = frame
        yield frame.image


@dataclass
class _Each:
    """What is done with each frame, one after the other, in a thread of its own."""

    run: VideoRun
    output: Output
    stem: str
    seen: dict[int, Frame]
    tracker: Tracker | None
    every: int
    writer: VideoWriter | None
    lines: IO[str]
    trails: Trails = field(default_factory=Trails)
    known: set[int] = field(default_factory=set)
    last: int | None = None

    def take(self, result: Result) -> None:
        """Numbers the objects of a frame, counts, draws and writes them."""
        frame, found = self.seen.pop(result.position), result.detections
        assert found is not None  # frames are images already
        if self.tracker is not None:
            passed = 1 if self.last is None else (frame.index - self.last) / self.every
            found = self.tracker.update(found, frames=passed)
        self.last = frame.index
        self._count(found)
        line = {"frame": frame.index, "seconds": round(frame.seconds, 4), **found.to_dict()}
        print(json.dumps(line), file=self.lines, flush=True)
        if self.output.crops or self.output.save_confidence:
            name = Path(f"{self.stem}-{frame.index:06}.jpg")
            plain = replace(self.output, images=False)
            write_detections(self.run.folder, name, result._replace(image=frame.image, detections=found), plain)
        if self.writer is not None:  # last: it draws on the frame itself
            if self.tracker is not None:
                self.trails.draw(frame.image, found, copy=False)
            self.writer.write(draw_detections(frame.image, found, copy=False), seconds=frame.seconds)

    def _count(self, found: Detections) -> None:
        self.run.frames += 1
        self.run.overflow += found.overflow
        for one in found:
            if one.track_id is None or one.track_id not in self.known:
                self.run.objects[one.label] += 1
            if one.track_id is not None:
                self.known.add(one.track_id)
