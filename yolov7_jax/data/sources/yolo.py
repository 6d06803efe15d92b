"""Labelled images as yolov5 and yolov7 have them: a data YAML, folders of images, a .txt of labels for each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.image import read_image
from yolov7_jax.data.sources.data_yaml import class_names, read_data_yaml, split_images
from yolov7_jax.data.sources.faults import OnFault
from yolov7_jax.data.sources.ground_truth import LabelledImage, coco_dict
from yolov7_jax.data.sources.image_files import checked_size, image_ids, image_size, present
from yolov7_jax.data.sources.labels import YoloLabels, label_file, read_labels
from yolov7_jax.data.sources.objects import pick
from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import cxcywh_to_xyxy, xyxy_to_xywh
from yolov7_jax.types import Sample

_THREADS = 8  # they wait for the disk


def open_yolo(file: Path, split: str = "val", *, on_fault: OnFault = "stop") -> YoloSource:
    """The split of a data YAML: its images are listed, nothing of them is read yet.

    Keys: train, val, test (a folder, a .txt of image paths, or a list of these), names (a list or {number: name}), and
    where given path (the folder all is relative to) and nc (the number of classes).

    Raises:
        DataError: the data cannot be used; names the file and the key or line. InputError: the YAML cannot be read.
    """
    content = read_data_yaml(file)
    names = class_names(content, file)
    images = split_images(content, split, file, on_fault=on_fault)
    if not any(present(map(label_file, images))):
        raise DataError(
            f"{file}: {split} has {len(images)} images but no label file at all; expected for example "
            f"{label_file(images[0])} (the folder images reads labels, one .txt for each image)"
        )
    return YoloSource(names=names, images=tuple(images), image_ids=image_ids(images), on_fault=on_fault)


@dataclass(frozen=True)
class YoloSource:
    """A `Source` over image files and their label files, read when asked for."""

    names: tuple[str, ...]
    images: tuple[Path, ...]
    image_ids: tuple[int, ...]
    on_fault: OnFault = "stop"
    faults: ClassVar[tuple[str, ...]] = ()

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

    def check_image(self, index: int) -> None:
        """Raises DataError where the image cannot be used, as far as its header and end tell."""
        checked_size(self.images[index])

    def labels(self, index: int) -> YoloLabels:
        """What the label file of the image says, in fractions of the image."""
        return read_labels(label_file(self.images[index]), num_classes=len(self.names), on_fault=self.on_fault)

    def subset(self, indices: Sequence[int]) -> YoloSource:
        """These images alone."""
        return replace(self, images=pick(self.images, indices), image_ids=pick(self.image_ids, indices))

    def ground_truth(self) -> dict[str, Any]:
        """The labels of all images as a COCO dict; categories and annotations count from 1."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return coco_dict(self.names, pool.map(self._labelled, range(len(self))))

    def _labelled(self, index: int) -> LabelledImage:
        labels, size = self.labels(index), self.size(index)
        boxes_xywh_px = xyxy_to_xywh(_corners_px(labels, size))
        return LabelledImage(self.image_ids[index], self.images[index], size, labels.class_ids, boxes_xywh_px)


def _corners_px(labels: YoloLabels, size: tuple[int, int]) -> NDArray[np.float64]:
    height, width = size
    return cxcywh_to_xyxy(labels.boxes_cxcywh_norm * np.array([width, height, width, height], np.float64))
