"""Labelled images of a COCO annotation file (JSON with images, annotations, categories)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.image import read_image
from yolov7_jax.data.sources.image_files import image_size, present
from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import xywh_to_xyxy
from yolov7_jax.types import Sample

Row = dict[str, Any]


def open_coco(file: Path, *, image_folder: Path | None = None) -> CocoSource:
    """The images of a COCO annotation file; none of them is read yet.

    Classes are the categories in order of their ids. Crowds and boxes without area are no objects of a `Sample`; they
    stay in `ground_truth()`. Without `image_folder`, the images are looked for in the file's folder, its images/,
    ../images, ../val2017 and ../images/val2017 for a file named instances_val2017.json.

    Raises:
        DataError: the file or an entry of it is wrong, or images are missing; names the file and the id.
    """
    content = _read(file)
    categories = _by_id(content["categories"], "category", "name", file)
    images = _by_id(content["images"], "image", "file_name", file)
    if not categories or not images:
        raise DataError(f"{file}: it has {len(images)} images and {len(categories)} categories; expected some of both")
    paths = _image_paths(images, file, image_folder)
    image_index, boxes, classes = _objects(content["annotations"], list(images), sorted(categories), file)
    order = np.argsort(image_index, kind="stable")
    return CocoSource(
        file=file,
        names=tuple(categories[number]["name"] for number in sorted(categories)),
        category_ids=tuple(sorted(categories)),
        image_ids=tuple(images),
        images=paths,
        sizes=tuple(_size(row, file) for row in images.values()),
        boxes_xyxy_px=xywh_to_xyxy(boxes)[order].astype(np.float32),
        class_ids=classes[order],
        starts=np.searchsorted(image_index[order], np.arange(len(images) + 1)),
    )


@dataclass(frozen=True, eq=False)
class CocoSource:
    """A `Source` over a COCO annotation file, kept as arrays so that worker processes get it quickly.

    sizes: height and width of each image, None where the file does not say. boxes_xyxy_px: float32 [n, 4] and
    class_ids: int32 [n] of all images in a row. starts: int64 [images + 1], where each image's objects begin.
    """

    file: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: tuple[int, ...]
    images: tuple[Path, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    boxes_xyxy_px: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects, crowds and boxes without area left out.

        Raises:
            DataError: the image cannot be read, or has not the size that the annotation file says.
        """
        image_id, path, size = self.image_ids[index], self.images[index], self.sizes[index]
        image = read_image(path)
        if size is not None and image.shape[:2] != size:
            raise DataError(
                f"{path}: the image is {image.shape[1]} x {image.shape[0]} pixels, but {self.file} says {size[1]} x "
                f"{size[0]} for image {image_id}; its boxes would be misplaced: use the images the file was made for"
            )
        first = index % len(self)
        objects = slice(self.starts[first], self.starts[first + 1])
        return Sample(image, self.boxes_xyxy_px[objects].copy(), self.class_ids[objects].copy(), image_id)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.images[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, as the annotation file says, else from the image's header."""
        return self.sizes[index] or image_size(self.images[index])

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's own content, areas and crowds as given; outlines are left out, boxes need none."""
        return _read(self.file)


def _read(file: Path) -> dict[str, list[Row]]:
    try:
        content = json.loads(file.read_bytes(), object_hook=_without_outline)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected a COCO annotation file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: not JSON ({error.msg}); the file may be cut off") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; expected a COCO annotation file") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{file}: no list {key!r}; expected a COCO annotation file: images, annotations, categories"
            )
    return content


def _without_outline(row: Row) -> Row:
    row.pop("segmentation", None)  # most of a large file: halves the time, saves gigabytes
    return row


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _by_id(rows: list[Any], what: str, text_key: str, file: Path) -> dict[int, Row]:
    """Rows by their ids, which are integers and differ; each has a text under `text_key`."""
    found: dict[int, Row] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not _is_integer(row.get("id")):
            raise DataError(f"{file}: {what} number {number} has no integer id; give it one")
        if not isinstance(row.get(text_key), str):
            raise DataError(f"{file}: {what} {row['id']} has no text {text_key!r}; add it")
        if row["id"] in found:
            raise DataError(f"{file}: two entries have the {what} id {row['id']}; ids must differ")
        found[row["id"]] = row
    return found


def _size(image: Row, file: Path) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if height is None and width is None:
        return None
    if not _is_integer(height) or not _is_integer(width) or height <= 0 or width <= 0:
        raise DataError(f"{file}: image {image['id']} has width {width!r}, height {height!r}; expected pixels")
    return height, width


def _image_paths(images: dict[int, Row], file: Path, image_folder: Path | None) -> tuple[Path, ...]:
    home, split = file.parent, file.stem.rpartition("_")[2]
    usual = [home, home / "images", home.parent / "images", home.parent / split, home.parent / "images" / split]
    folders = usual if image_folder is None else [image_folder]
    first = next(iter(images.values()))["file_name"]
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        looked = ", ".join(map(str, folders))
        raise DataError(f"{file}: its image {first} is not in {looked}; name the folder of the images")
    paths = tuple(folder / row["file_name"] for row in images.values())
    missing = [number for number, there in zip(images, present(paths), strict=True) if not there]
    if missing:
        name = images[missing[0]]["file_name"]
        raise DataError(
            f"{file}: {len(missing)} of its {len(images)} images are not in {folder}, the first is {name} "
            f"(image {missing[0]}); add the images or name their folder"
        )
    return paths


def _objects(
    annotations: list[Any], image_ids: list[int], category_ids: list[int], file: Path
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Image index [n], box as x, y, width, height in pixels [n, 4] and class [n] of every object that is no crowd."""
    image_index = {number: index for index, number in enumerate(image_ids)}
    class_index = {number: index for index, number in enumerate(category_ids)}
    rows = []
    for number, row in enumerate(annotations, start=1):
        try:
            image = _look_up(row, "image_id", image_index, "images")
            category = _look_up(row, "category_id", class_index, "categories")
            box = _bbox(row)
        except DataError as fault:
            name = row["id"] if isinstance(row, dict) and "id" in row else f"number {number}"
            raise DataError(f"{file}: annotation {name} {fault}") from None
        if not row.get("iscrowd") and box[2] > 0 and box[3] > 0:
            rows.append((image, category, box))
    return (
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int32),
    )


def _look_up(row: Any, key: str, index: dict[int, int], where: str) -> int:
    value = row.get(key) if isinstance(row, dict) else None
    if not _is_integer(value):
        raise DataError(f"has no integer {key!r}; add it")
    if value not in index:
        raise DataError(f"has {key} {value}, which is not in {where}; add it there or correct this")
    return index[value]


def _bbox(row: Row) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise DataError(f"has bbox {box!r}; expected four numbers x, y, width, height in pixels")
    if not all(map(math.isfinite, box)) or box[2] < 0 or box[3] < 0:
        raise DataError(f"has bbox {box!r}; expected finite numbers, and no negative width or height")
    return box
