"""Runs of detection and evaluation."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import EVALUATION, Options
from yolov7_jax.datasets import with_names
from yolov7_jax.errors import InputError
from yolov7_jax.evaluation.coco import evaluate, to_coco_json
from yolov7_jax.evaluation.confusion import confusion_matrix, objects_by_image
from yolov7_jax.files import new_folder, write_atomically, write_json
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.types import CocoResult, Detections
from yolov7_jax.viz.draw import draw_detections
from yolov7_jax.viz.figures import confusion_figure, precision_recall_figure, save_figure


@dataclass(frozen=True)
class DetectionRun:
    """What `detect` did: its folder, how many objects it found in each image, and what could not be read."""

    folder: Path
    counts: dict[Path, int]
    failures: dict[Path, str]
    overflow: int


@dataclass(frozen=True)
class ValidationRun:
    """What `validate` found: the result, milliseconds an image by stage, and its folder if it wrote one.

    failures: why images could not be read, by their ids; they count as images without detections.
    """

    result: CocoResult
    speed_ms: dict[str, float]
    overflow: int
    failures: dict[int, str]
    folder: Path | None


def detect(
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    *,
    options: Options | None = None,
    draw: bool = True,
    progress: ProgressBar = no_progress,
) -> DetectionRun:
    """Detects in image files and writes detections.json, labels/*.txt (YOLO format) and images/ with boxes.

    Images that cannot be read are skipped and listed. detections.json is written even if the run is interrupted.

    Raises:
        DataError: the folder cannot be written. InputError: an option is out of its range.
    """
    results = detector.stream(images, options)
    folder = new_folder(folder)
    names = _unique_names(images)
    rows: dict[int, dict[str, Any]] = {}
    counts: dict[Path, int] = {}
    failures: dict[Path, str] = {}
    overflow = 0
    try:
        for result in progress(results, len(images)):
            path = images[result.position]
            if result.error is not None:
                failures[path] = str(result.error)
                continue
            found, (height, width) = result.detections, result.image.shape[:2]
            counts[path] = len(found)
            overflow += found.overflow
            row = {"image": str(path), "height": height, "width": width}
            rows[result.position] = {**row, "detections": _json_rows(found), "overflow": found.overflow}
            _write_detections(folder, names[result.position], result.image, found, draw=draw)
    finally:
        ordered = [rows[index] for index in sorted(rows)]
        unread = [{"image": str(path), "reason": reason} for path, reason in failures.items()]
        write_json(folder / "detections.json", {"images": ordered, "unread": unread})
    return DetectionRun(folder, counts, failures, overflow)


def _write_detections(folder: Path, name: Path, image: NDArray[np.uint8], found: Detections, *, draw: bool) -> None:
    """Writes the label file of an image (class, center and size in fractions of it), and the image with boxes."""
    height, width = image.shape[:2]
    boxes = xyxy_to_cxcywh(found.boxes_xyxy_px) / [width, height, width, height]
    rows = zip(found.class_ids, boxes, strict=True)
    lines = (f"{number} " + " ".join(f"{value:.6f}" for value in box) + "\n" for number, box in rows)
    write_atomically(folder / "labels" / f"{name.stem}.txt", "".join(lines))
    if draw:
        write_image(folder / "images" / name, draw_detections(image, found))


def _json_rows(found: Detections) -> list[dict[str, Any]]:
    """One row a detection, the best score first."""
    return [
        {
            "class": found.names[number],
            "class_id": int(number),
            "score": round(float(score), 5),
            "box_xyxy_px": [round(float(edge), 2) for edge in box],
        }
        for box, score, number in zip(found.boxes_xyxy_px, found.scores, found.class_ids, strict=True)
    ]


class Truth(NamedTuple):
    """Labeled images, and what is there to find in them, as COCO JSON, read once."""

    source: SourceMixin
    coco: dict[str, Any]


def read_truth(source: Source, names: tuple[str, ...]) -> Truth:
    """The ground truth of labeled images for a detector with these classes.

    Raises:
        InputError: the classes do not fit.
    """
    whole = _with_classes(complete(source), names)
    return Truth(whole, whole.ground_truth())


def validate(
    detector: Detector,
    source: Source | Truth,
    *,
    options: Options = EVALUATION,
    folder: Path | None = None,
    progress: ProgressBar = no_progress,
) -> ValidationRun:
    """COCO AP of a detector on labeled images.

    Images that cannot be read are reported, and count as images without detections. With a folder it writes
    metrics.json, detections.json (COCO results), precision_recall.png and confusion.png.

    Args:
        detector: the network and its weights.
        source: labeled images, or what `read_truth` has read of them.
        options: of detection.
        folder: where to write; a number is added to its name if it is there.
        progress: shows how far it is.

    Raises:
        DataError: labels or all of the images cannot be used. InputError: their classes do not fit the detector's.
    """
    whole, truth = source if isinstance(source, Truth) else read_truth(source, detector.names)
    folder = None if folder is None else new_folder(folder)  # before the work, should it not be writable
    began = time.perf_counter()
    found = _detect_labeled(detector, whole, truth, options, progress)
    detected = time.perf_counter()
    outcome = evaluate(truth, found.rows)
    seconds = {**found.seconds, "total": detected - began, "evaluate": time.perf_counter() - detected}
    speed_ms = {stage: 1000 * spent / len(whole) for stage, spent in seconds.items()}
    run = ValidationRun(outcome, speed_ms, found.overflow, found.failures, folder)
    if folder is not None:
        settings = {**asdict(options), "size": detector.size, "images": len(whole), "overflow": found.overflow}
        settings["unread"] = found.failures
        classes = [row._asdict() for row in outcome.per_class]
        metrics = {**outcome.numbers(), "per_class": classes, "speed_ms": run.speed_ms, "settings": settings}
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "detections.json", found.rows)
        save_figure(precision_recall_figure(outcome), folder / "precision_recall.png")
        save_figure(confusion_figure(found.confusion, whole.names), folder / "confusion.png")
    return run


class _Found(NamedTuple):
    """Detections in all images as rows of COCO, their confusion matrix, how long what took, and what failed by id."""

    rows: list[dict[str, Any]]
    confusion: NDArray[np.int64]
    seconds: dict[str, float]
    overflow: int
    failures: dict[int, str]


def _detect_labeled(
    detector: Detector, source: SourceMixin, truth: dict[str, Any], options: Options, progress: ProgressBar
) -> _Found:
    objects = objects_by_image(truth, source.category_ids)
    rows: list[dict[str, Any]] = []
    confusion = np.zeros((len(source.names) + 1,) * 2, np.int64)
    seconds: dict[str, float] = defaultdict(float)
    overflow = 0
    failures: dict[int, str] = {}
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), detector.names)
    images = (_image(source, index) for index in range(len(source)))
    for result in progress(detector.stream(images, options), len(source)):
        image_id = source.image_ids[result.position]
        if result.error is not None:
            failures[image_id] = str(result.error)
            if len(failures) == len(source):
                raise result.error
            result = result._replace(detections=nothing, seconds={})
        rows += to_coco_json(result.detections, image_id=image_id, category_ids=source.category_ids)
        confusion += confusion_matrix(result.detections, *objects[image_id], num_classes=len(source.names))
        overflow += result.detections.overflow
        for stage, spent in result.seconds.items():
            seconds[stage] += spent
    return _Found(rows, confusion, seconds, overflow, failures)


def _image(source: SourceMixin, index: int) -> Path | Callable[[], NDArray[np.uint8]]:
    """The image's file, or what reads the image if it has no file of its own."""
    file = source.path(index)
    return file if file.exists() else partial(source.read, index)


def known_by_name(source: SourceMixin, names: Sequence[str]) -> bool:
    """Whether the classes of a source are found among these by their names, and need not be taken by number."""
    return set(source.names) <= set(names)


def _with_classes(source: SourceMixin, names: tuple[str, ...]) -> SourceMixin:
    """The source with its classes in the network's order; names that differ are taken for the same by their places."""
    if known_by_name(source, names):
        return with_names(source, names)
    if len(source.names) != len(names):
        raise InputError(
            f"the network has {len(names)} classes and the data {len(source.names)}, which have other names; "
            "use data with the classes it was trained on"
        )
    return source


def _unique_names(paths: Sequence[Path]) -> list[Path]:
    """File names for what is written of each image; images of one stem get numbers."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem)
        names.append(Path(stem + path.suffix))
    return names
