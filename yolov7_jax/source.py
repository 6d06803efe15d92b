"""The contract of labeled data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.ops.boxes import xyxy_to_xywh
from yolov7_jax.types import Fault, Labels, OnError, Sample

_THREADS = 8  # they wait for the disk


class Source(ABC):
    """Labeled images in random access: cheap to open, safe to share between threads, quick to pickle for workers.

    names: of the classes; class ids index into them. category_ids: the category of each class in `ground_truth()`.
    image_ids: the id of each image there, in the order of the source. faults: what is wrong with entries that were left
    out and belong to no image.
    """

    names: tuple[str, ...]
    image_ids: tuple[int, ...]
    faults: tuple[Fault, ...] = ()
    on_error: OnError = "stop"

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category of each class in `ground_truth()`; they count from 1, as COCO's do."""
        return tuple(range(1, len(self.names) + 1))

    @property
    def settings(self) -> tuple[Any, ...]:
        """What labels follow from beside the content of files, names and ids: plain values, the same for the same."""
        return ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects, without those ignored, repeated, or without area.

        Raises:
            DataError: the image or its labels cannot be used.
        """
        image = self.read(index)
        height, width = image.shape[:2]
        labels = self.labels(index, (height, width))
        boxes_xyxy_px = labels.boxes_xyxy_px.astype(np.float32)
        return Sample(image, boxes_xyxy_px, labels.class_ids.copy(), self.image_ids[index], deepcopy(labels.polygons))

    @abstractmethod
    def path(self, index: int) -> Path:
        """The image's file."""

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image, [h, w, 3] RGB.

        Raises:
            DataError: it is missing, empty, cut short or no image.
        """

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, without decoding it."""

    @abstractmethod
    def check_image(self, index: int) -> tuple[int, int]:
        """Looks at the image's file without decoding it; returns height and width in pixels.

        Raises:
            DataError: it is missing, empty, cut short or no image.
        """

    @abstractmethod
    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The objects of the image, those left out counted and the faults among them named.

        Args:
            index: of the image.
            size: its height and width where they are known; else they are read.

        Raises:
            DataError: the labels cannot be read at all, are for an image of another size, or, unless faults are
                skipped, one of them is wrong.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """All files that labels and images are read from."""

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> Self:
        """The same data with these images alone, in this order."""

    def ground_truth(self) -> dict[str, Any]:
        """What to evaluate against, as a COCO dict: images, annotations, categories; annotations count from 1."""
        indices = range(len(self))
        with ThreadPoolExecutor(_THREADS) as pool:
            labels = pool.map(self.labels, indices)
            return coco_dict(
                zip(self.category_ids, self.names, strict=True),
                zip(self.image_ids, map(self.path, indices), labels, strict=True),
            )


def coco_dict(categories: Iterable[tuple[int, str]], images: Iterable[tuple[int, Path, Labels]]) -> dict[str, Any]:
    """Images, annotations and categories as COCO has them, from (id, name) and (id, file, labels); ignored are crowds.

    An object's area is that of its box. Annotations count from 1. Outlines are left out.
    """
    names = list(categories)
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, path, labels in images:
        height, width = labels.size
        rows.append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        class_ids = np.concatenate([labels.class_ids, labels.ignored_class_ids])
        boxes_xywh_px = xyxy_to_xywh(np.concatenate([labels.boxes_xyxy_px, labels.ignored_boxes_xyxy_px]))
        for number, (class_id, box) in enumerate(zip(class_ids.tolist(), boxes_xywh_px.tolist(), strict=True)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": names[class_id][0],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number >= len(labels.class_ids)),
                }
            )
    return {"images": rows, "annotations": annotations, "categories": [{"id": n, "name": name} for n, name in names]}
