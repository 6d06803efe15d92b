"""Runs of detection and evaluation."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import ValConfig
from yolov7_jax.datasets import with_names
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.evaluation.coco import evaluate, to_coco_json
from yolov7_jax.evaluation.confusion import confusion_matrix, objects_by_image
from yolov7_jax.evaluation.report import metrics_json, write_json
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector, Options
from yolov7_jax.inference.records import detection_rows, yolo_lines
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.types import CocoResult, Detections
from yolov7_jax.viz.draw import draw_detections
from yolov7_jax.viz.evaluation_figures import confusion_figure, precision_recall_figure
from yolov7_jax.viz.figure import save_figure

T = TypeVar("T")
ProgressBar = Callable[[Iterable[T], int], Iterable[T]]
"""Shows the progress of something of known length while handing it on."""

EVALUATION = Options(**vars(ValConfig()), multi_label=True, rect=False)
"""How COCO AP is measured: every class over a low threshold, up to 300 detections an image."""


def no_progress(items: Iterable[T], total: int) -> Iterable[T]:  # noqa: ARG001
    """Shows nothing."""
    return items


@dataclass(frozen=True)
class DetectionRun:
    """What `detect` did: its folder, how many objects it found in each image, and what could not be read."""

    folder: Path
    counts: dict[Path, int]
    failures: dict[Path, str]
    overflow: int


@dataclass(frozen=True)
class ValidationRun:
    """What `validate` found: the result, milliseconds an image by stage, and its folder if it wrote one."""

    result: CocoResult
    speed_ms: dict[str, float]
    overflow: int
    folder: Path | None


def detect(
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    *,
    options: Options | None = None,
    draw: bool = True,
    progress: ProgressBar[Any] = no_progress,
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
            rows[result.position] = {"image": str(path), "height": height, "width": width, **detection_rows(found)}
            _write_detections(folder, names[result.position], result.image, found, draw=draw)
    finally:
        ordered = [rows[index] for index in sorted(rows)]
        unread = [{"image": str(path), "reason": reason} for path, reason in failures.items()]
        write_json(folder / "detections.json", {"images": ordered, "unread": unread})
    return DetectionRun(folder, counts, failures, overflow)


def _write_detections(folder: Path, name: Path, image: NDArray[np.uint8], found: Detections, *, draw: bool) -> None:
    """Writes the label file of an image, and the image with boxes."""
    labels = folder / "labels" / f"{name.stem}.txt"
    labels.parent.mkdir(exist_ok=True)
    height, width = image.shape[:2]
    lines = yolo_lines(found, (height, width))
    labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if draw:
        write_image(folder / "images" / name, draw_detections(image, found))


def validate(
    detector: Detector,
    source: Source,
    *,
    options: Options = EVALUATION,
    folder: Path | None = None,
    progress: ProgressBar[Any] = no_progress,
) -> ValidationRun:
    """COCO AP of a detector on labeled images.

    With a folder it writes metrics.json, detections.json (COCO results), precision_recall.png and confusion.png.

    Raises:
        DataError: images or labels cannot be used, or their classes do not fit the detector's.
    """
    whole = _with_classes(complete(source), detector.names)
    truth = whole.ground_truth()
    objects = objects_by_image(truth, whole.category_ids)
    folder = None if folder is None else new_folder(folder)  # before the work, should it not be writable
    rows: list[dict[str, Any]] = []
    matrix = np.zeros((len(whole.names) + 1,) * 2, np.int64)
    seconds: dict[str, float] = defaultdict(float)
    overflow = 0
    began = time.perf_counter()
    images = (_image(whole, index) for index in range(len(whole)))
    for result in progress(detector.stream(images, options), len(whole)):
        if result.error is not None:
            raise result.error
        image_id = whole.image_ids[result.position]
        rows += to_coco_json(result.detections, image_id=image_id, category_ids=whole.category_ids)
        matrix += confusion_matrix(result.detections, *objects[image_id], num_classes=len(whole.names))
        overflow += result.detections.overflow
        for stage, spent in result.seconds.items():
            seconds[stage] += spent
    seconds["total"] = time.perf_counter() - began
    began = time.perf_counter()
    outcome = evaluate(truth, rows)
    seconds["evaluate"] = time.perf_counter() - began
    speed = {stage: 1000 * spent / len(whole) for stage, spent in seconds.items()}
    if folder is not None:
        settings = {**asdict(options), "size": detector.size, "images": len(whole), "overflow": overflow}
        write_json(folder / "metrics.json", metrics_json(outcome, speed=speed, settings=settings))
        write_json(folder / "detections.json", rows)
        _draw_evaluation(outcome, matrix, whole.names, folder)
    return ValidationRun(outcome, speed, overflow, folder)


def _draw_evaluation(outcome: CocoResult, matrix: NDArray[np.int64], names: Sequence[str], folder: Path) -> None:
    save_figure(precision_recall_figure(outcome), folder / "precision_recall.png")
    save_figure(confusion_figure(matrix, names), folder / "confusion.png")


def new_folder(folder: Path) -> Path:
    """A folder that was not there: the one named, or the first free of name-2, name-3 …; nothing is overwritten.

    Raises:
        DataError: it cannot be made.
    """
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{folder}: cannot be made ({reason}); name a folder that can be written to") from error


def _image(source: SourceMixin, index: int) -> Path | NDArray[np.uint8]:
    """The image's file, which is read while the network works, or the image if it has no file of its own."""
    file = source.path(index)
    return file if file.exists() else source.read(index)


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
