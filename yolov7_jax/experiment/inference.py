"""Runs of detection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.files import write_atomically, write_json
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector, Result
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training import hosts
from yolov7_jax.types import Detections
from yolov7_jax.viz.draw import draw_detections


@dataclass(frozen=True)
class DetectionRun:
    """What `detect` did: its folder, how many objects it found in each image, and what could not be read."""

    folder: Path
    counts: dict[Path, int]
    failures: dict[Path, str]
    overflow: int


def detect(
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    *,
    options: Options | None = None,
    draw: bool = True,
    progress: ProgressBar = no_progress,
    shared: bool = False,
) -> DetectionRun:
    """Detects in image files and writes detections.json, labels/*.txt (YOLO format) and images/ with boxes.

    Images that cannot be read are skipped and listed. detections.json is written even if the run is interrupted.

    Args:
        detector: the network and its weights.
        images: their files.
        folder: where to write; a number is added to its name if it is there.
        options: of detection.
        draw: whether to write images with boxes.
        progress: shows how far it is.
        shared: all processes that have joined call it, and share the images and the folder.

    Raises:
        DataError: the folder cannot be written. InputError: an option is out of its range, or processes that share the
            work do not agree on it.
    """
    options = options or Options()
    names = _unique_names(images)
    with hosts.sharing(shared):
        hosts.check_same(lambda: {**facts(detector, options), "the list of images": digest([p.name for p in images])})
        share = hosts.own_share(len(images))
        results = detector.stream([images[position] for position in share], options)
        with hosts.new_folder(folder) as folder:
            hosts.check_shared(folder)
            rows: list[tuple[int, dict[str, Any]]] = []

            def take(result: Result) -> None:
                position = share[result.position]
                if result.error is None:
                    assert result.image is not None
                    assert result.detections is not None
                    _write_detections(folder, names[position], result.image, result.detections, draw=draw)
                rows.append((position, _json_row(images[position], result)))

            try:
                hosts.for_own_share(take, progress(results, len(share)), len(images))
            finally:
                found = _write_rows(folder, rows)
    read = {images[position]: row for position, row in found if "reason" not in row}
    failures = {images[position]: row["reason"] for position, row in found if "reason" in row}
    counts = {path: len(row["detections"]) for path, row in read.items()}
    return DetectionRun(folder, counts, failures, sum(row["overflow"] for row in read.values()))


def facts(detector: Detector, options: Options) -> dict[str, Any]:
    """What processes that share detection have to have in common, beside the images."""
    common = {key: value for key, value in asdict(options).items() if key not in ("batch_size", "workers")}
    identity = detector.identity()
    return {**common, **identity, "the network": digest(identity["the network"])}


def digest(content: Any) -> str:
    """A short text that is another one for other values of JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _write_rows(folder: Path, rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Writes detections.json of the rows of all processes, and returns them in the order of the images."""
    texts = hosts.gather(json.dumps(rows).encode())
    found = sorted(((position, row) for text in texts for position, row in json.loads(text)), key=lambda item: item[0])
    with hosts.all_or_none():
        if hosts.is_first():
            read = [row for _, row in found if "reason" not in row]
            unread = [row for _, row in found if "reason" in row]
            write_json(folder / "detections.json", {"images": read, "unread": unread})
    return found


def _write_detections(folder: Path, name: Path, image: NDArray[np.uint8], found: Detections, *, draw: bool) -> None:
    """Writes the label file of an image (class, center and size in fractions of it), and the image with boxes."""
    height, width = image.shape[:2]
    boxes = xyxy_to_cxcywh(found.boxes_xyxy_px) / [width, height, width, height]
    rows = zip(found.class_ids, boxes, strict=True)
    lines = (f"{number} " + " ".join(f"{value:.6f}" for value in box) + "\n" for number, box in rows)
    write_atomically(folder / "labels" / f"{name.stem}.txt", "".join(lines))
    if draw:
        write_image(folder / "images" / name, draw_detections(image, found))


def _json_row(path: Path, result: Result) -> dict[str, Any]:
    """What detections.json says of an image: its detections, or why it cannot be read."""
    if result.error is not None:
        return {"image": str(path), "reason": str(result.error)}
    assert result.image is not None
    assert result.detections is not None
    height, width = result.image.shape[:2]
    found = result.detections
    row = {"image": str(path), "height": height, "width": width}
    return {**row, "detections": _json_detections(found), "overflow": found.overflow}


def _json_detections(found: Detections) -> list[dict[str, Any]]:
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
