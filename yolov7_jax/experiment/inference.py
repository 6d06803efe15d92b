"""Runs of detection."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolov7_jax.config import Options
from yolov7_jax.files import write_atomically, write_json
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.results import Result, crops
from yolov7_jax.prefetch import ProgressBar, no_progress, prefetch
from yolov7_jax.training import hosts
from yolov7_jax.viz.draw import draw_detections

_WRITERS = 2  # threads that draw and write


@dataclass(frozen=True)
class DetectionRun:
    """What `detect` did: its folder, how many objects it found in each image, and what could not be read."""

    folder: Path
    counts: dict[Path, int]
    failures: dict[Path, str]
    overflow: int


@dataclass(frozen=True)
class Output:
    """What a run of detection writes beside its JSON.

    images: images, or a video, with boxes. crops: the part of the image in each box. save_confidence: scores in the
    label files.
    """

    images: bool = True
    crops: bool = False
    save_confidence: bool = False


DRAWN = Output()
"""JSON, label files, and images or a video with boxes."""


def detect(
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    *,
    options: Options | None = None,
    output: Output = DRAWN,
    progress: ProgressBar = no_progress,
    shared: bool = False,
) -> DetectionRun:
    """Detects in image files and writes detections.json, labels/*.txt (YOLO format), images/ with boxes and crops/.

    Images that cannot be read are skipped and listed. detections.json is written even if the run is interrupted.
    Drawing and writing go on in threads while the next images are detected in.

    Args:
        detector: the network and its weights.
        images: their files.
        folder: where to write; a number is added to its name if it is there.
        options: of detection.
        output: what to write.
        progress: shows how far it is.
        shared: all processes that have joined call it, and share the images and the folder.

    Raises:
        DataError: the folder cannot be written. InputError: an option is out of its range, or processes that share the
            work do not agree on it.
    """
    options = options or Options()
    names = unique_names(images)
    with hosts.sharing(shared):
        hosts.check_same(lambda: {**facts(detector, options), "the list of images": digest([p.name for p in images])})
        share = hosts.own_share(len(images))
        results = detector.stream([images[position] for position in share], options)
        with hosts.new_folder(folder) as folder:
            hosts.check_shared(folder)
            rows: list[tuple[int, dict[str, Any]]] = []

            def write(result: Result) -> tuple[int, dict[str, Any]]:
                position = share[result.position]
                if result.detections is not None:
                    write_detections(folder, names[position], result, output)
                return position, _json_row(images[position], result)

            written = prefetch(write, results, workers=_WRITERS, ahead=2 * _WRITERS, beside=True)
            try:
                hosts.for_own_share(rows.append, progress(written, len(share)), len(images))
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


def write_detections(folder: Path, name: Path, result: Result, output: Output) -> None:
    """Writes what was found in one image: its label file, crops by class, and the image with boxes."""
    found, image = result.detections, result.image
    assert found is not None
    assert image is not None
    text = found.to_yolo(confidence=output.save_confidence)
    write_atomically(folder / "labels" / f"{name.stem}.txt", text)
    if output.crops:
        for number, (label, part) in enumerate(zip(found.labels, crops(found, image), strict=True), start=1):
            write_image(folder / "crops" / file_name(label) / f"{name.stem}-{number}.jpg", part)
    if output.images:
        write_image(folder / "images" / name, draw_detections(image, found))


def file_name(label: str) -> str:
    """The name of a class as one of a folder."""
    return re.sub(r"[^\w .-]", "_", label).strip(". ") or "_"


def _json_row(path: Path, result: Result) -> dict[str, Any]:
    """What detections.json says of an image: its detections, or why it cannot be read."""
    if result.detections is None:
        return {"image": str(path), "reason": str(result.error)}
    return result.detections.to_dict()


def unique_names(paths: Sequence[Path]) -> list[Path]:
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
