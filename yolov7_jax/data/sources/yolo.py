"""Labelled images as yolov5 and yolov7 have them: a data YAML, folders of images, a .txt of labels for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.image import read_image
from yolov7_jax.data.sources.data_yaml import class_names, read_data_yaml, split_images
from yolov7_jax.data.sources.image_files import image_size, present
from yolov7_jax.data.sources.labels import Labels, label_file, read_labels
from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import cxcywh_to_xyxy, xyxy_to_xywh
from yolov7_jax.types import Sample

_MOST_EXACT_INTEGER = 2**53  # larger ids do not survive JSON
_THREADS = 8  # they wait for the disk


def open_yolo(file: Path, split: str = "val") -> YoloSource:
    """The split of a data YAML: its images are listed, nothing of them is read yet.

    Keys: train, val, test (a folder, a .txt of image paths, or a list of these), names (a list or {number: name}), and
    where given path (the folder all is relative to) and nc (the number of classes).

    Raises:
        DataError: the data cannot be used; names the file and the key or line. InputError: the YAML cannot be read.
    """
    content = read_data_yaml(file)
    names = class_names(content, file)
    images = split_images(content, split, file)
    if not any(present(map(label_file, images))):
        raise DataError(
            f"{file}: {split} has {len(images)} images but no label file at all; expected for example "
            f"{label_file(images[0])} (the folder images reads labels, one .txt for each image)"
        )
    return YoloSource(names=names, images=tuple(images), image_ids=_image_ids(images))


@dataclass(frozen=True)
class YoloSource:
    """A `Source` over image files and their label files, read when asked for."""

    names: tuple[str, ...]
    images: tuple[Path, ...]
    image_ids: tuple[int, ...]

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Categories count from 1, as COCO's do."""
        return tuple(range(1, len(self.names) + 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects; rows that repeat and boxes without area are left out."""
        image = read_image(self.images[index])
        labels = self.labels(index)
        boxes_xyxy_px = _corners_px(labels, image.shape[:2]).astype(np.float32)
        return Sample(image, boxes_xyxy_px, labels.class_ids, self.image_ids[index])

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.images[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, read from its header."""
        return image_size(self.images[index])

    def labels(self, index: int) -> Labels:
        """What the label file of the image says, in fractions of the image."""
        return read_labels(label_file(self.images[index]), num_classes=len(self.names))

    def ground_truth(self) -> dict[str, Any]:
        """The labels of all images as a COCO dict; categories and annotations count from 1."""
        with ThreadPoolExecutor(_THREADS) as pool:
            sizes = list(pool.map(self.size, range(len(self))))
            labels = list(pool.map(self.labels, range(len(self))))
        images = [
            {"id": image_id, "file_name": path.name, "width": width, "height": height}
            for image_id, path, (height, width) in zip(self.image_ids, self.images, sizes, strict=True)
        ]
        annotations = [
            {"image_id": image_id, "category_id": int(class_id) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for image_id, size, found in zip(self.image_ids, sizes, labels, strict=True)
            for class_id, box in zip(found.class_ids, xyxy_to_xywh(_corners_px(found, size)).tolist(), strict=True)
        ]
        return {
            "images": images,
            "annotations": [{"id": number} | row for number, row in enumerate(annotations, start=1)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(self.names, start=1)],
        }


def _corners_px(labels: Labels, size: tuple[int, int]) -> NDArray[np.float64]:
    height, width = size
    return cxcywh_to_xyxy(labels.boxes_cxcywh_norm * np.array([width, height, width, height], np.float64))


def _image_ids(images: list[Path]) -> tuple[int, ...]:
    """The numbers in the names where all names are numbers and no two are equal (COCO's are), else 1, 2, 3 ..."""
    stems = [image.stem for image in images]
    if all(stem.isdecimal() for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) == len(ids) and max(ids) < _MOST_EXACT_INTEGER:
            return tuple(ids)
    return tuple(range(1, len(images) + 1))
