"""From labelled images to the rows of training batches: each row is a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.assign.candidates import COARSE_REACH, FINE_REACH, candidates
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.augment import augmented, check_augment
from yolov7_jax.data.image import cv2
from yolov7_jax.data.letterbox import GREY, fit
from yolov7_jax.data.memo import Memo
from yolov7_jax.data.sources import OnFault, Source
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.types import Batch, Candidates, Sample

_CACHED_BEYOND_WINDOW = 64  # images of batches in the making: speed alone depends on it


class Row(NamedTuple):
    """One image of a batch. sample: the fields of a Batch without the axis B. faults: why parts of it are grey."""

    sample: Batch
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pipeline:
    """Makes the training samples of a source; it can be pickled, and used by several threads at once.

    An epoch has `steps` batches. Its order is a permutation of the images; the last batch is completed with the
    beginning of the same order. The images that mosaics draw from are kept decoded, up to `window` and some more.

    source: what to train on. augment: probabilities and ranges. size: side of the samples in pixels. anchors: [L][A]
    (width, height) in pixels. strides: [L] in pixels. anchor_t: how many times larger or smaller than an anchor a box
    may be. batch_size: images of a step over all hosts. seed: not negative. max_boxes: M; boxes beyond it are left out
    and counted. window: how far back in the order partners of a mosaic are drawn. capacity: K, by default as many as a
    box can need. reach: how near a cell is that is a candidate, in cells, see `assign.candidates`. coarse: whether an
    auxiliary head wants candidates of its own, within aux_reach. on_fault: stop at an image that cannot be
    read, or train on grey without boxes in its place.
    """

    source: Source
    augment: AugmentConfig
    size: int
    anchors: Sequence[Sequence[tuple[float, float]]]
    strides: Sequence[int]
    anchor_t: float
    batch_size: int
    seed: int
    max_boxes: int = 120
    window: int = 256
    capacity: int | None = None
    reach: float = FINE_REACH
    coarse: bool = False
    aux_reach: float = COARSE_REACH
    on_fault: OnFault = "skip"
    _images: Memo[int, Loaded] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.source):
            raise DataError("there are no images to train on; name a split that has some")
        for name, least in (("seed", 0), ("size", 1), ("batch_size", 1), ("max_boxes", 1), ("window", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more")
        check_augment(self.augment)
        load = partial(load_resized, self.source, size=self.size, on_fault=self.on_fault)
        object.__setattr__(self, "_images", Memo(load, self.window + _CACHED_BEYOND_WINDOW))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.source) // self.batch_size)

    def index(self, epoch: int, position: int) -> int:
        """Which image of the source is at a position, from 0 to steps · batch_size - 1, of an epoch's order."""
        order = epoch_order(self.seed, epoch, len(self.source))
        return int(order[position % len(order)])

    def row(self, epoch: int, position: int) -> Row:
        """The training sample made around the image at a position of an epoch.

        Raises:
            DataError: an image cannot be read, unless that is to be skipped, or the sample cannot be made; names the
                file.
        """
        faults: dict[str, None] = {}

        def fetch(place: int) -> Sample:
            loaded = self._images(self.index(epoch, place))
            if loaded.fault:
                faults[loaded.fault] = None
            return loaded.sample

        index = self.index(epoch, position)
        try:
            made = augmented(
                np.random.default_rng([self.seed, epoch, position + 1]),  # [.., 0] is the order's stream
                fetch,
                position % len(self.source),
                count=len(self.source),
                window=self.window,
                size=self.size,
                config=self.augment,
            )
            return Row(self._padded(made, index), tuple(faults))
        except InputError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.source.path(index)}: no training sample could be made around this image ({error!r}); "
                "check its labels, or leave it out"
            ) from error

    def _padded(self, made: Sample, index: int) -> Batch:
        count = min(len(made.class_ids), self.max_boxes)
        boxes_cxcywh_px = np.zeros((self.max_boxes, 4), np.float32)
        boxes_cxcywh_px[:count] = xyxy_to_cxcywh(made.boxes_xyxy_px[:count])
        class_ids = np.zeros(self.max_boxes, np.int32)
        class_ids[:count] = made.class_ids[:count]
        valid = np.arange(self.max_boxes) < count
        reaches = (self.reach, self.aux_reach) if self.coarse else (self.reach,)
        found = [self._candidates(boxes_cxcywh_px, valid, reach) for reach in reaches]
        return Batch(
            image=made.image,
            boxes_cxcywh_px=boxes_cxcywh_px,
            class_ids=class_ids,
            valid=valid,
            fine=found[0][0],
            coarse=found[1][0] if self.coarse else None,
            overflow=np.array([len(made.class_ids) - count, sum(beyond for _, beyond in found)], np.int32),
            index=np.int32(index),
        )

    def _candidates(
        self, boxes_cxcywh_px: NDArray[np.float32], valid: NDArray[np.bool_], reach: float
    ) -> tuple[Candidates, int]:
        return candidates(
            boxes_cxcywh_px,
            valid,
            anchors=self.anchors,
            strides=self.strides,
            image_size=(self.size, self.size),
            anchor_t=self.anchor_t,
            reach=reach,
            capacity=self.capacity,
        )


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` images in an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    order.setflags(write=False)
    return order


class Loaded(NamedTuple):
    """An image of the source at training size; fault: why it is grey, or nothing."""

    sample: Sample
    fault: str = ""


def load_resized(source: Source, index: int, *, size: int, on_fault: OnFault) -> Loaded:
    """An image of the source with its long side resized to `size`, its boxes with it; arrays are not to be written to.

    Raises:
        DataError: the image or its labels cannot be used, unless grey without boxes is to take its place.
    """
    try:
        sample, fault = source[index], ""
    except DataError as error:
        if on_fault == "stop":
            raise
        grey = np.full((size, size, 3), GREY, np.uint8)
        sample = Sample(grey, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), source.image_ids[index])
        fault = str(error)
    resized = _resized(sample, size)
    resized.image.setflags(write=False)
    resized.boxes_xyxy_px.setflags(write=False)
    return Loaded(resized, fault)


def _resized(sample: Sample, size: int) -> Sample:
    height, width = sample.image.shape[:2]
    content_h, content_w = fit((height, width), size, auto=False).content
    if (content_h, content_w) == (height, width):
        return sample
    image = cv2.resize(sample.image, (content_w, content_h), interpolation=cv2.INTER_LINEAR)
    scale = np.array([content_w / width, content_h / height] * 2, np.float32)
    return sample._replace(image=image, boxes_xyxy_px=sample.boxes_xyxy_px * scale)
