"""Runs of evaluation: COCO average precision of a detector on labeled images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import EVALUATION, Options
from yolov7_jax.datasets import with_names, with_one_class
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.evaluation.coco import evaluate
from yolov7_jax.evaluation.confusion import confusion_matrix, objects_by_image
from yolov7_jax.experiment.inference import digest, facts
from yolov7_jax.files import write_json
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.results import ImageDetections, Result, to_coco_json
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.training import hosts
from yolov7_jax.types import ClassResult, CocoResult
from yolov7_jax.viz.figures import confidence_figure, confusion_figure, precision_recall_figure, save_figure

_STAGES = "read", "device"  # of `Result.seconds`
_CURVES = "precision_over_recall", "by_confidence"  # of `CocoResult`


@dataclass(frozen=True)
class ValidationRun:
    """What `validate` found: the result, milliseconds an image by stage, and its folder if it wrote one.

    failures: why images could not be read, by their ids; they count as images without detections. confusion: of
    `confusion_matrix`, over all images.
    """

    result: CocoResult
    speed_ms: dict[str, float]
    overflow: int
    failures: dict[int, str]
    folder: Path | None
    confusion: NDArray[np.int64]


class Truth(NamedTuple):
    """Labeled images, and what is there to find in them, as COCO JSON, read once. one_class: all classes are one."""

    source: SourceMixin
    coco: dict[str, Any]
    one_class: bool = False

    def facts(self) -> dict[str, Any]:
        """What processes that share an evaluation have to have in common."""
        return {"the number of labeled images": len(self.source), "the ground truth": digest(self.coco)}


def read_truth(source: Source, names: tuple[str, ...], *, single_class: bool = False) -> Truth:
    """The ground truth of labeled images for a detector with these classes, all of which are one if that is wanted.

    Raises:
        InputError: the classes do not fit.
    """
    whole = with_one_class(source) if single_class else _with_classes(complete(source), names)
    return Truth(whole, whole.ground_truth(), single_class)


def validate(
    detector: Detector,
    source: Source | Truth,
    *,
    options: Options = EVALUATION,
    folder: Path | None = None,
    progress: ProgressBar = no_progress,
    shared: bool = False,
    single_class: bool = False,
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
        shared: all processes that have joined call it, and share the images; the first one evaluates what they find,
            and writes. The result is the same in all.
        single_class: all classes count as one, "object": those of the data, and those of the detector, whose
            non-maximum suppression then is across classes. `read_truth` is asked for it where that has been called.

    Raises:
        DataError: labels or all of the images cannot be used. InputError: their classes do not fit the detector's, or
            processes that share the work do not agree on it.
    """
    with hosts.sharing(shared):
        with hosts.all_or_none():
            if not isinstance(source, Truth):
                source = read_truth(source, detector.names, single_class=single_class)
            known = source
        options = replace(options, agnostic=True) if known.one_class else options
        hosts.check_same(lambda: {**facts(detector, options), **known.facts()})
        if folder is None:
            return _validate(detector, known, options, None, progress)
        with hosts.new_folder(folder) as new:  # before the work, should it not be writable
            return _validate(detector, known, options, new, progress)


def _validate(
    detector: Detector, known: Truth, options: Options, folder: Path | None, progress: ProgressBar
) -> ValidationRun:
    began = time.perf_counter()
    own = _detect_labeled(detector, known, options, progress)
    parts = hosts.gather(own.to_bytes())

    def outcome() -> dict[str, Any]:
        found = _Found.of_all(parts, detector.names)
        return _evaluated(found, detector, known, options, folder, time.perf_counter() - began)

    told = hosts.from_first(outcome)
    classes = tuple(ClassResult(**row) for row in told["per_class"])
    curves: dict[str, Any] = {name: np.array(told[name]) for name in _CURVES}
    result = CocoResult(**told["numbers"], per_class=classes, **curves)
    failures = {int(image_id): reason for image_id, reason in told["failures"].items()}
    confusion = np.array(told["confusion"])
    return ValidationRun(result, told["speed_ms"], told["overflow"], failures, folder, confusion)


def _evaluated(
    found: _Found, detector: Detector, known: Truth, options: Options, folder: Path | None, detecting: float
) -> dict[str, Any]:
    """What comes of detections in all images, as values of JSON; writes it where there is a folder."""
    source, began = known.source, time.perf_counter()
    failures = {source.image_ids[result.position]: str(result.error) for result in found.results if result.error}
    if failures and len(failures) == len(source):
        raise DataError(list(failures.values())[-1])
    rows = [row for result in found.results for row in _coco_rows(result, source)]
    outcome = evaluate(known.coco, rows)
    overflow = sum(result.detections.overflow for result in found.results if result.detections is not None)
    seconds = {stage: sum((result.seconds or {}).get(stage, 0.0) for result in found.results) for stage in _STAGES}
    seconds |= {"total": detecting, "evaluate": time.perf_counter() - began}
    speed_ms = {stage: 1000 * spent / len(source) for stage, spent in seconds.items()}
    classes = [row._asdict() for row in outcome.per_class]
    if folder is not None:
        settings = {**asdict(options), "size": detector.size, "images": len(source), "overflow": overflow}
        settings["unread"] = failures
        metrics = {**outcome.numbers(), "per_class": classes, "speed_ms": speed_ms, "settings": settings}
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "detections.json", rows)
        draw_evaluation(outcome, found.confusion, source.names, folder)
    told = {"numbers": outcome.numbers(), "per_class": classes, "confusion": found.confusion.tolist()}
    curves = {name: getattr(outcome, name).tolist() for name in _CURVES}
    return {**told, **curves, "speed_ms": speed_ms, "overflow": overflow, "failures": failures}


def draw_evaluation(result: CocoResult, confusion: NDArray[np.int64], names: Sequence[str], folder: Path) -> None:
    """Draws precision over recall, both and F1 over the confidence, and the confusion matrix into a folder."""
    save_figure(precision_recall_figure(result), folder / "precision_recall.png")
    save_figure(confidence_figure(result), folder / "confidence.png")
    save_figure(confusion_figure(confusion, names), folder / "confusion.png")


class _Found(NamedTuple):
    """What is found in some images, known by their places in the source, and the confusion matrix of these images."""

    results: list[Result]
    confusion: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """All of it as few arrays, for another process."""
        found = [result.detections or _nothing(()) for result in self.results]
        seconds = [[(result.seconds or {}).get(stage, 0.0) for stage in _STAGES] for result in self.results]
        content = BytesIO()
        np.savez(
            content,
            position=np.array([result.position for result in self.results], np.int64),
            count=np.array([len(one) for one in found], np.int64),
            overflow=np.array([one.overflow for one in found], np.int64),
            seconds=np.array(seconds, np.float64),
            error=np.array([str(result.error or "") for result in self.results], np.str_),
            boxes_xyxy_px=np.concatenate([_nothing(()).boxes_xyxy_px, *(one.boxes_xyxy_px for one in found)]),
            scores=np.concatenate([_nothing(()).scores, *(one.scores for one in found)]),
            class_ids=np.concatenate([_nothing(()).class_ids, *(one.class_ids for one in found)]),
            confusion=self.confusion,
        )
        return content.getvalue()

    @classmethod
    def of_all(cls, contents: Iterable[bytes], names: tuple[str, ...]) -> _Found:
        """What several processes found, in the order of the images."""
        results: list[Result] = []
        confusion = np.zeros((), np.int64)
        for content in contents:
            with np.load(BytesIO(content)) as stored:
                arrays = dict(stored)
            results += _results(arrays, names)
            confusion = confusion + arrays["confusion"]
        return cls(sorted(results, key=lambda result: result.position), confusion)


def _results(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> Iterator[Result]:
    ends = np.cumsum(arrays["count"]).tolist()
    for row, (position, start, end) in enumerate(zip(arrays["position"].tolist(), [0, *ends], ends, strict=False)):
        boxes_xyxy_px, scores, class_ids = (arrays[key][start:end] for key in ("boxes_xyxy_px", "scores", "class_ids"))
        found = ImageDetections(boxes_xyxy_px, scores, class_ids, names, int(arrays["overflow"][row]))
        reason = str(arrays["error"][row])
        seconds = dict(zip(_STAGES, arrays["seconds"][row].tolist(), strict=True))
        yield Result(position, None, found, DataError(reason) if reason else None, seconds)


def _nothing(names: tuple[str, ...]) -> ImageDetections:
    return ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), names)


def _detect_labeled(detector: Detector, known: Truth, options: Options, progress: ProgressBar) -> _Found:
    """What is found in this process's share of the images."""
    source = known.source
    objects = objects_by_image(known.coco, source.category_ids)
    share = hosts.own_share(len(source))
    found = _Found([], np.zeros((len(source.names) + 1,) * 2, np.int64))

    def take(result: Result) -> None:
        place = share[result.position]
        detections = _nothing(detector.names) if result.detections is None else result.detections
        if known.one_class:
            detections = replace(detections, class_ids=np.zeros_like(detections.class_ids))
        image_id, count = source.image_ids[place], len(source.names)
        np.add(found.confusion, confusion_matrix(detections, *objects[image_id], num_classes=count), found.confusion)
        found.results.append(result._replace(position=place, image=None, detections=detections))

    images = (partial(source.read, place) for place in share)
    hosts.for_own_share(take, progress(detector.stream(images, options), len(share)), len(source))
    return found


def _coco_rows(result: Result, source: SourceMixin) -> list[dict[str, Any]]:
    assert result.detections is not None
    image_id = source.image_ids[result.position]
    return to_coco_json(result.detections, image_id=image_id, category_ids=source.category_ids)


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
