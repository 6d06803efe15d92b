"""Images on their way to the device: letterboxed, grouped by shape, and held until there is a program for them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


Batch = list[Prepared] | Result
"""Images of one shape, or what is known already of one that cannot be read."""


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


def batches(items: Iterable[Prepared | Result], size: int) -> Iterator[Batch]:
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


def stacked(batch: Sequence[Prepared], size: int) -> NDArray[np.uint8]:
    """The letterboxed images of a batch as one array [size, h, w, 3]; zeros follow in a short batch."""
    images = np.zeros((size, *batch[0].boxed.shape), np.uint8)
    for place, prepared in enumerate(batch):
        images[place] = prepared.boxed
    return images


_COMPILERS = min(max(os.cpu_count() or 1, 2), 4)  # threads; each of them keeps about one core busy
_WAITING = 16  # images, or two batches of more, that wait for programs at most


def once_compiled(
    items: Iterable[Batch], trace: Callable[[tuple[int, ...]], Callable[[], object] | None], size: int
) -> Iterator[Batch]:
    """Hands batches (of `size`) and results on in order, a batch when there is a program for the shape of its images.

    Meanwhile what follows is looked at: programs for several shapes are compiled beside each other.

    trace: called here, once for each shape [h, w, 3]; what it returns compiles, in a thread. None: there is nothing to
    wait for.
    """
    programs: dict[tuple[int, ...], Future[object] | None] = {}
    waiting: deque[Batch] = deque()

    def program(item: Batch) -> Future[object] | None:
        return None if isinstance(item, Result) else programs[item[0].boxed.shape]

    def compiled(item: Batch) -> Batch:
        if (future := program(item)) is not None:
            future.result()
        return item

    with ThreadPoolExecutor(_COMPILERS, thread_name_prefix="compile") as pool:
        for item in items:
            if not isinstance(item, Result) and (shape := item[0].boxed.shape) not in programs:
                work = trace(shape)
                programs[shape] = None if work is None else pool.submit(work)
            waiting.append(item)
            while waiting and (len(waiting) > max(_WAITING // size, 2) or _is_over(program(waiting[0]))):
                yield compiled(waiting.popleft())
        yield from map(compiled, waiting)


def _is_over(future: Future[object] | None) -> bool:
    return future is None or future.done()
