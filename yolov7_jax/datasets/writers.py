"""The writers of all formats, and the door to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.coco import annotation_file
from yolov7_jax.datasets.content import (
    Content,
    ImageFiles,
    Losses,
    Object,
    clipped,
    count_new_ids,
    distinct,
    new_folder,
    objects,
    tolerance,
)
from yolov7_jax.datasets.yolo import label_file
from yolov7_jax.errors import DataError
from yolov7_jax.files import yaml_text
from yolov7_jax.ops.boxes import xyxy_to_cxcywh, xyxy_to_xywh
from yolov7_jax.source import default_category_ids
from yolov7_jax.types import Labels

_IGNORED = "objects to be ignored left out, as YOLO labels have none"
_SEVERAL = "several polygons of an object left out, as a line of YOLO labels has one polygon or a box"
_AROUND = "boxes replaced by those around their polygons, as a line of YOLO labels has only one of the two"
_CUT = "polygons clipped to their image"


def write_yolo(folder: Path, content: Content, images: ImageFiles, losses: Losses) -> Path:
    """Writes a data set; returns its data YAML.

    An object with exactly one polygon is a line of its corners, any other a line of its box.
    """
    for split, items in content.splits.items():
        ids: dict[Path, int] = {}
        for item in items:
            file = images.put(item, folder / "images" / split)
            lines = label_lines(item.labels, losses)
            labels = label_file(file)
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            ids[file] = item.image_id
        if content.has_ids:
            count_new_ids(sorted(ids), [ids[file] for file in sorted(ids)], losses)
    places = {split: f"images/{split}" for split in content.splits}
    yaml = folder / "data.yaml"
    yaml.write_text(yaml_text({"path": ".", **places, "names": list(content.names)}), encoding="utf-8")
    return yaml


def label_lines(labels: Labels, losses: Losses) -> list[str]:
    """A line for each object: its class, and its box or polygon in fractions of the image."""
    wanted = [one for one in objects(labels, losses) if not one.is_ignored]
    losses[_IGNORED] += len(labels.ignored_class_ids)
    return distinct([_line(one, labels.size, losses) for one in clipped(wanted, labels.size, losses)], losses)


def _line(one: Object, size: tuple[int, int], losses: Losses) -> str:
    scale = np.array(size[::-1], np.float64)
    if len(one.polygons) == 1:
        points_px = one.polygons[0].astype(np.float64)
        inside_px = np.clip(points_px, 0, scale)
        around_px = np.concatenate([inside_px.min(axis=0), inside_px.max(axis=0)])
        if (around_px[2:] > around_px[:2]).all():
            losses[_CUT] += int((inside_px != points_px).any())
            losses[_AROUND] += int(np.abs(around_px - one.box_xyxy_px).max() > tolerance(size))
            return _text(one.class_id, inside_px / scale)
    losses[_SEVERAL] += len(one.polygons) > 1
    losses[_CUT] += len(one.polygons) == 1
    return _text(one.class_id, xyxy_to_cxcywh(one.box_xyxy_px / np.tile(scale, 2)))


def _text(class_id: int, fractions: NDArray[np.float64]) -> str:
    numbers: Iterable[float] = fractions.ravel().tolist()
    return " ".join([str(class_id), *map(repr, numbers)])


_IDS = "image ids counted on, as two images of a split have the same"


def write_coco(folder: Path, content: Content, images: ImageFiles, losses: Losses) -> Path:
    """Writes a data set; returns its annotation file or, if it has several splits, its folder.

    Areas are those of the polygons, else of the boxes; objects to be ignored are crowds. Images and categories keep
    their ids; annotations count from 1.
    """
    categories = [
        {"id": number, "name": name} for number, name in zip(content.category_ids, content.names, strict=True)
    ]
    (folder / "annotations").mkdir()
    for split, items in content.splits.items():
        rows: dict[int, dict[str, Any]] = {}
        annotations: list[dict[str, Any]] = []
        largest = 0
        for item in items:
            image_id = item.image_id if item.image_id not in rows else largest + 1
            losses[_IDS] += image_id != item.image_id
            largest = max(largest, image_id)
            height, width = item.labels.size
            file = images.put(item, folder / "images" / split)
            rows[image_id] = {"id": image_id, "file_name": file.name, "width": width, "height": height}
            for one in objects(item.labels, losses):
                mine = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append(mine | _annotation(one, content.category_ids))
        text = json.dumps({"images": [*rows.values()], "annotations": annotations, "categories": categories})
        annotation_file(folder, split).write_text(text, encoding="utf-8")
    return annotation_file(folder, *content.splits) if len(content.splits) == 1 else folder


def _annotation(one: Object, category_ids: tuple[int, ...]) -> dict[str, Any]:
    box = xyxy_to_xywh(one.box_xyxy_px).tolist()
    return {
        "category_id": category_ids[one.class_id],
        "bbox": box,
        "area": sum(map(_area, one.polygons)) if len(one.polygons) else box[2] * box[3],
        "iscrowd": int(one.is_ignored),
        "segmentation": [_short(polygon) for polygon in one.polygons],
    }


def _area(polygon: NDArray[np.float32]) -> float:
    """By the shoelace formula."""
    x, y = (polygon.astype(np.float64) - polygon[0]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _short(polygon: NDArray[np.float32]) -> list[float]:
    """The corners with as few digits as tell them from their neighbors in float32."""
    numbers: list[float] = polygon.ravel().astype(str).astype(np.float64).tolist()
    return numbers


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


Format = Literal["yolo", "coco", "voc"]

_WRITERS: Mapping[Format, Callable[[Path, Content, ImageFiles, Losses], Path]] = {
    "yolo": write_yolo,
    "coco": write_coco,
    "voc": write_voc,
}
_CATEGORIES = "category ids, as only COCO's files have them"
_RESERVED = frozenset({"path", "names", "nc", "images"})  # they mean something in a data YAML or in paths


class Written(NamedTuple):
    """A data set that was written. data: what to open it by. losses: what is not as it was, and how often."""

    data: Path
    losses: Mapping[str, int]

    @property
    def sentences(self) -> list[str]:
        """What is not as it was, with counts."""
        return [f"{what}: {count}" for what, count in self.losses.items()]


def write_data(folder: Path | str, content: Content, *, to: Format, link: bool = True) -> Written:
    """Writes a data set into a new folder, which is there as a whole in the end or, after an error, not at all.

    Args:
        folder: must not be there yet, or be empty.
        content: images with their labels.
        to: yolo (see `write_yolo`), coco (`write_coco`) or voc (`write_voc`).
        link: put images there as hard links where the disk can, which takes no room; else copy them.

    Raises:
        DataError: the folder is there, there is no room, an image cannot be read, or the format cannot hold a name.
    """
    folder = Path(folder)
    if to not in get_args(Format):
        raise DataError(f"data sets are not written as {to!r}; choose one of {', '.join(get_args(Format))}")
    for split in content.splits:
        if not re.fullmatch(r"[\w-][\w.-]*", split) or split in _RESERVED:
            raise DataError(f"a split cannot be named {split!r}; use letters, digits, - and _, such as train")
    losses = Losses()
    if to != "coco":
        own = default_category_ids(content.names)
        losses[_CATEGORIES] = sum(given != new for given, new in zip(content.category_ids, own, strict=True))
    with new_folder(folder) as partial:
        data = _WRITERS[to](partial, content, ImageFiles(link=link, losses=losses), losses).relative_to(partial)
    return Written(folder / data, {what: count for what, count in losses.items() if count})
