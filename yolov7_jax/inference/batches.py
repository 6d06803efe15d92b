"""Images on their way to the device: letterboxed, and grouped by shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.data.letterbox import Letterbox, letterbox, rectangle
from yolov7_jax.errors import DataError
from yolov7_jax.inference.inputs import ImageLike, as_image, path_of, reader
from yolov7_jax.inference.results import ImageDetections, Result


class Prepared(NamedTuple):
    """An image as it was read, and as the network takes it.

    position: in its stream. path: of its file, if it has one. image: uint8 [h, w, 3] RGB. read: gives it again. boxed:
    uint8, in its letterbox. seconds: that reading and letterboxing took.
    """

    position: int
    path: Path | None
    image: NDArray[np.uint8]
    read: Callable[[], NDArray[np.uint8]]
    boxed: NDArray[np.uint8]
    letterbox: Letterbox
    seconds: float

    def result(
        self,
        boxes_xyxy_px: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int32],
        names: tuple[str, ...],
        overflow: int,
        *,
        device: float,
    ) -> Result:
        """What was found, in pixels of the letterbox, as the result of the image; device: seconds of it there."""
        found = ImageDetections(
            self.letterbox.undo(boxes_xyxy_px),
            scores,
            class_ids,
            names,
            overflow,
            size=self.letterbox.source,
            path=self.path,
            read=self.read,
        )
        return Result(self.position, self.image, found, seconds={"read": self.seconds, "device": device})


def prepare(
    position: int, given: ImageLike, options: Options, *, shape: tuple[int, int] | None, size: int, stride: int
) -> Prepared | Result:
    """Reads and letterboxes an image; a result with the error where it cannot be read.

    shape: (h, w) that all images get, if there is one. size: else their longer side in pixels. stride: else what their
    sides are multiples of.
    """
    started = time.perf_counter()
    try:
        image = as_image(given, options)
    except DataError as error:
        return Result(position, error=error)
    rect = options.rect and shape is None
    if shape is None and rect and options.few_shapes:
        shape = rectangle((image.shape[0], image.shape[1]), size, stride)
    auto = rect and not options.few_shapes
    boxed, geometry = letterbox(image, shape or size, stride=stride, auto=auto, resize=options.resize)
    read, seconds = reader(given, image, options), time.perf_counter() - started
    return Prepared(position, path_of(given), image, read, boxed, geometry, seconds)


def batches(items: Iterable[Prepared | Result], size: int) -> Iterator[list[Prepared] | Result]:
    """Groups images of one shape; results (of images that cannot be read) pass through."""
    waiting: dict[tuple[int, ...], list[Prepared]] = {}
    for item in items:
        if isinstance(item, Result):
            yield item
            continue
        group = waiting.setdefault(item.boxed.shape, [])
        group.append(item)
        if len(group) == size:
            yield waiting.pop(item.boxed.shape)
    yield from waiting.values()
