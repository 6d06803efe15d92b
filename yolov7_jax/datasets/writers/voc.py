"""Data sets in Pascal VOC layout: JPEGImages/*, Annotations/*.xml, ImageSets/Main/SPLIT.txt, classes.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.writers.content import Content, Losses, Object, clipped, count_new_ids, distinct, objects
from yolov7_jax.datasets.writers.files import ImageFiles
from yolov7_jax.errors import DataError
from yolov7_jax.types import Labels

_POLYGONS = "polygons left out, as Pascal VOC has boxes only"


def write_voc(folder: Path, content: Content, images: ImageFiles, losses: Losses) -> Path:
    """Writes a data set; returns its folder. Objects to be ignored are difficult ones.

    Pixels count from 1 and both corners lie in the box; coordinates that are not whole are written as they are.

    Raises:
        DataError: the names of classes cannot tell them apart in such files.
    """
    _check_names(content.names)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for split, items in content.splits.items():
        files: list[Path] = []
        ids: list[int] = []
        for item in items:
            file = images.put(item, folder / "JPEGImages")
            text = annotation_text(file.name, item.labels, content.names, losses)
            (folder / "Annotations" / f"{file.stem}.xml").write_text(text, encoding="utf-8")
            files.append(file)
            ids.append(item.image_id)
        if content.has_ids:
            count_new_ids(files, ids, losses)
        listing = folder / "ImageSets" / "Main" / f"{split}.txt"
        listing.write_text("".join(f"{file.stem}\n" for file in files), encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in content.names), encoding="utf-8")
    return folder


def annotation_text(file_name: str, labels: Labels, names: Sequence[str], losses: Losses) -> str:
    """The annotation of an image as XML."""
    root = Element("annotation")
    SubElement(root, "filename").text = file_name
    size = SubElement(root, "size")
    for tag, value in zip(("width", "height", "depth"), (*labels.size[::-1], 3), strict=True):
        SubElement(size, tag).text = str(value)
    found = clipped(objects(labels, losses), labels.size, losses)
    losses[_POLYGONS] += sum(len(one.polygons) > 0 for one in found)
    for name, difficult, *corners in distinct([_row(one, names) for one in found], losses):
        item = SubElement(root, "object")
        SubElement(item, "name").text = name
        SubElement(item, "difficult").text = difficult
        box = SubElement(item, "bndbox")
        for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            SubElement(box, tag).text = corner
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


def _row(one: Object, names: Sequence[str]) -> tuple[str, ...]:
    return (names[one.class_id], str(int(one.is_ignored)), *_corners(one.box_xyxy_px))


def _corners(box_xyxy_px: NDArray[np.float64]) -> list[str]:
    numbers = (box_xyxy_px + np.array([1, 1, 0, 0])).tolist()
    return [str(int(number)) if number.is_integer() else repr(number) for number in numbers]


def _check_names(names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if not name or name != name.strip() or not name.isprintable():
            raise DataError(f"class {number} is named {name!r}, which a line of classes.txt cannot hold; rename it")
        if name in names[:number]:
            raise DataError(f"two classes are named {name!r}, and Pascal VOC tells classes by their name; rename one")
