"""Bases of the built-in sources: what they share beyond `SourceMixin`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import checked_size, image_size
from yolov7_jax.image import read_image
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Labels, Sample

Value = TypeVar("Value")


class ReadSource(SourceMixin):
    """A source that reads images and labels apart; its labels depend on the image's size only if they must."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects, without those ignored, repeated, or without area."""
        image = self.read(index)
        height, width = image.shape[:2]
        labels = self.labels(index, (height, width))
        boxes_xyxy_px = labels.boxes_xyxy_px.astype(np.float32)
        return Sample(image, boxes_xyxy_px, labels.class_ids.copy(), self.image_ids[index], deepcopy(labels.polygons))

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""

    @abstractmethod
    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The objects of the image, whose height and width are `size` if they are known."""

    def labels_for(self, index: int, size: tuple[int, int]) -> Labels:
        """The labels of an image whose height and width are known already."""
        return self.labels(index, size)


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(ReadSource):
    """A source whose images are files."""

    images: tuple[Path, ...]
    image_ids: tuple[int, ...] = field()

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.images[index]

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""
        return read_image(self.images[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, read from its header."""
        return image_size(self.images[index])

    def check_image(self, index: int) -> tuple[int, int]:
        """The image's size; raises DataError where it cannot be used, as far as its header and end tell."""
        return checked_size(self.images[index])


def pick(values: Sequence[Value], indices: Sequence[int]) -> tuple[Value, ...]:
    """The values at these places, in their order."""
    return tuple(values[index] for index in indices)
