"""`yolov7-jax detect WEIGHTS SOURCE...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov7_jax.cli.arguments import (
    add_detector,
    add_processes,
    add_weights,
    detector_options,
    join,
    load_detector,
    looking_on,
)
from yolov7_jax.cli.explaining import add_explaining, check_explaining, explain_detected
from yolov7_jax.config import Options

if TYPE_CHECKING:
    from yolov7_jax.experiment import DetectionRun, Output, VideoRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="images, folders, globs, .txt lists of them; or videos, the number of a camera, the address of a stream, "
        "- for encoded frames on standard input",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/detect"), help="folder (default runs/detect)")
    add_detector(parser, Options())
    parser.add_argument(
        "--classes",
        type=_class_list,
        action="extend",
        metavar="CLASS[,CLASS...]",
        help="names or numbers of the classes wanted, with commas between them: person,dog or 0,16 or "
        "'traffic light,dog'; may be given again",
    )
    parser.add_argument("--agnostic", action="store_true", help="non-maximum suppression across classes")
    parser.add_argument("--no-images", action="store_true", help="write no images or videos with boxes")
    parser.add_argument("--crops", action="store_true", help="write the part of the image in each box, by class")
    parser.add_argument("--save-confidence", action="store_true", help="add scores to the lines of label files")
    videos = parser.add_argument_group("videos, cameras and streams")
    videos.add_argument("--track", action="store_true", help="number the objects over the frames")
    videos.add_argument("--every", type=int, default=1, metavar="N", help="look at each n-th frame only (default 1)")
    add_explaining(parser)
    add_processes(parser, "the images shared by many devices or hosts, which share the folder too")


def _class_list(text: str) -> list[str]:
    classes = [part.strip() for part in text.split(",")]
    if not all(classes):
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, got {text!r}")
    return classes


def run(parsed: argparse.Namespace) -> int:
    """Detects; status 1 where images could not be read."""
    from yolov7_jax.experiment import Output, detect
    from yolov7_jax.inference.frames import is_moving
    from yolov7_jax.inference.image_paths import find_images
    from yolov7_jax.training.hosts import all_or_none, is_first

    join(parsed)
    report, progress = looking_on()
    moving = [source for source in parsed.sources if is_moving(source)]
    still = [source for source in parsed.sources if source not in moving]
    with all_or_none():
        images = find_images(still)
        options = Options(**detector_options(parsed))
        output = Output(not parsed.no_images, parsed.crops, parsed.save_confidence)
        detector = load_detector(parsed, report)
        check_explaining(parsed, detector)
    for source in moving:
        _detect_video(detector, source, parsed, options, output, report)
    if not still:
        return 0
    done = detect(detector, images, parsed.output, options=options, output=output, progress=progress, shared=True)
    if is_first():
        _show(done)
    explain_detected(parsed, detector, images, done.folder, options, progress)
    return 1 if done.failures else 0


def _detect_video(
    detector: Any, source: str, parsed: argparse.Namespace, options: Options, output: Output, report: Any
) -> None:
    from yolov7_jax.cli.console import Display
    from yolov7_jax.experiment import detect_video
    from yolov7_jax.inference.frames import open_frames

    frames = open_frames(source, every=parsed.every, report=report)
    done = detect_video(
        detector,
        frames,
        parsed.output,
        options=options,
        output=output,
        track=parsed.track,
        progress=lambda items, total: Display().progress(items, total, what="frames"),
    )
    _show_video(done)


def _show_video(done: VideoRun) -> None:
    for sentence in done.sentences:
        print(sentence, file=sys.stderr)
    _tell_overflow(done.overflow)
    dropped = f" ({done.dropped} more came too quickly and were dropped)" if done.dropped else ""
    found = ", ".join(f"{count} {label}" for label, count in done.objects.most_common()) or "nothing"
    print(f"{found} in {done.frames} frames{dropped}; see {done.folder}")


def _tell_overflow(overflow: int) -> None:
    if overflow:
        print(f"{overflow} candidates were left out: raise --confidence", file=sys.stderr)


def _show(done: DetectionRun) -> None:
    for reason in done.failures.values():
        print(f"skipped: {reason}", file=sys.stderr)
    _tell_overflow(done.overflow)
    found = sum(done.counts.values())
    print(f"{found} objects in {len(done.counts)} images; see {done.folder}")
