"""Heat maps of what detections in images rest on, drawn into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov7_jax.config import Options
from yolov7_jax.errors import DataError
from yolov7_jax.experiment.inference import unique_names
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.explain import Explanation, Method, explain, layers_of_levels, objectness_maps
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training import hosts
from yolov7_jax.viz.draw import draw_detections, draw_heat
from yolov7_jax.viz.sheet import Image, draw_heats

MOST_MAPS = 10
"""Detections of an image that are explained where nothing else is asked for."""


@dataclass(frozen=True)
class ExplanationRun:
    """What `explain_images` did.

    folder: where it wrote. files: of each image. nothing_found: images without detections, of which there is the
    objectness alone. failures: what could not be read, and why.
    """

    folder: Path
    files: dict[Path, list[Path]]
    nothing_found: list[Path]
    failures: dict[Path, str]


def explain_images(
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    *,
    layer: str | None = None,
    method: Method = "gradcam",
    limit: int = MOST_MAPS,
    options: Options | None = None,
    progress: ProgressBar = no_progress,
    shared: bool = False,
) -> ExplanationRun:
    """Draws what the detections of image files rest on, in a folder for each: detection-1.png …, objectness.png.

    detection-1.png is the heat map of the best detection under its box; "eigencam" has eigencam.png in their place,
    one of the image under all boxes. objectness.png has a part for each level of the head, and one of them all. Images
    that cannot be read are skipped and listed.

    Args:
        detector: of weights.
        images: their files.
        folder: where to write; a number is added to its name if it is there.
        layer: see `explain`.
        method: "gradcam" or "eigencam".
        limit: explain the best so many detections of each image.
        options: of detection.
        progress: shows how far it is.
        shared: all processes that have joined call it, and share the images and the folder.

    Raises:
        DataError: the folder cannot be written. GraphError: no such layer. InputError: the detector has no network
            inside, or an option is out of its range.
    """
    layers_of_levels(detector, layer)  # or refuses
    names, asked = unique_names(images), {"layer": layer, "method": method, "limit": limit}
    rows: list[tuple[int, dict[str, Any]]] = []
    with hosts.sharing(shared), hosts.new_folder(folder) as folder:

        def take(position: int) -> None:
            into = folder / names[position].stem
            rows.append((position, _explain_file(detector, images[position], into, options or Options(), asked)))

        share = hosts.own_share(len(images))
        hosts.for_own_share(take, progress(share, len(share)), len(images))
        found = sorted(row for text in hosts.gather(json.dumps(rows).encode()) for row in json.loads(text))
    by_path = {images[position]: row for position, row in found}
    return ExplanationRun(
        folder,
        {path: [Path(file) for file in row["files"]] for path, row in by_path.items() if "files" in row},
        [path for path, row in by_path.items() if row.get("found") == 0],
        {path: row["reason"] for path, row in by_path.items() if "reason" in row},
    )


def _explain_file(
    detector: Detector, path: Path, folder: Path, options: Options, asked: dict[str, Any]
) -> dict[str, Any]:
    """Writes the drawings of an image; returns, as values of JSON, their files and how much was found, or the reason
    why it cannot be read.
    """
    try:
        image = read_image(path)
    except DataError as error:
        return {"reason": str(error)}
    explanation = explain(detector, image, **asked, **vars(options))
    drawings = {**dict(_drawn(explanation)), "objectness": _objectness(detector, image, options)}
    files = [folder / f"{name}.png" for name in drawings]
    for file, drawing in zip(files, drawings.values(), strict=True):
        write_image(file, drawing)
    return {"files": [str(file) for file in files], "found": len(explanation.detections)}


def _drawn(explanation: Explanation) -> Iterator[tuple[str, Image]]:
    """Drawings of an explanation by the names of their files."""
    for number, heat in enumerate(explanation):
        of_image = explanation.method == "eigencam"
        found = explanation.detections if of_image else explanation.of(number)
        name = explanation.method if of_image else f"detection-{number + 1}"
        yield name, draw_detections(draw_heat(explanation.image, heat), found)


def _objectness(detector: Detector, image: Image, options: Options) -> Image:
    maps = objectness_maps(detector, image, **vars(options))
    captions = [*(f"objectness, stride {stride}" for stride in maps.strides), "objectness, all levels"]
    return draw_heats(image, [*maps.levels, maps.combined], captions)
