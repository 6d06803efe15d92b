"""Sources for tests of training data; worker processes import this file."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import NO_POLYGONS, Sample

NAMES = ("cat", "dog")


@dataclass(frozen=True)
class DrawnSource:
    """Images of noise with a few boxes each, made from their index; some are refused, one may kill or break.

    bad: indices that raise DataError. deadly: index at which the process ends. wrong: index at which code fails.
    with_polygons: all but the first object of an image have a polygon, the diamond in the box.
    """

    count: int = 10
    bad: tuple[int, ...] = ()
    deadly: int = -1
    wrong: int = -1
    no_jax: bool = False
    with_polygons: bool = False
    names: tuple[str, ...] = NAMES

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(range(100, 100 + self.count))

    def __len__(self) -> int:
        return self.count

    def path(self, index: int) -> Path:
        return Path(f"{index}.png")

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise DataError(f"{self.path(index)}: is empty; expected an image")
        if index == self.deadly:
            os._exit(3)
        if index == self.wrong:
            raise ZeroDivisionError("a bug")
        if self.no_jax and "jax" in sys.modules:
            raise DataError("jax is here")
        rng = np.random.default_rng(index)
        height, width = (int(side) for side in rng.integers(20, 90, 2))
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        low = rng.uniform(0, 0.5, (3, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.3, 0.5, (3, 2))], axis=1) * [width, height, width, height]
        polygons = as_polygons([[], *([diamond(box)] for box in boxes[1:])]) if self.with_polygons else NO_POLYGONS
        return Sample(image, boxes.astype(np.float32), rng.integers(0, 2, 3).astype(np.int32), 100 + index, polygons)


def diamond(box: NDArray[np.float64]) -> NDArray[np.float64]:
    x0, y0, x1, y1 = box
    return np.array([((x0 + x1) / 2, y0), (x1, (y0 + y1) / 2), ((x0 + x1) / 2, y1), (x0, (y0 + y1) / 2)])
