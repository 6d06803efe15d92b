"""From labeled images to the rows of training batches: each row is a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.assign.candidates import COARSE_NEIGHBOR_OFFSET, FINE_NEIGHBOR_OFFSET, candidates
from yolov7_jax.config import AugmentConfig
from yolov7_jax.contracts import Transform
from yolov7_jax.data.augment import augmented, check_augment
from yolov7_jax.data.letterbox import GRAY, fit
from yolov7_jax.data.sampling import EpochPlan, epoch_length, plan_epoch
from yolov7_jax.data.transforms import transformed
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.image import cv2
from yolov7_jax.memo import Memo
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.ops.polygons import scaled
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Batch, OnError, Sample

_CACHED_BEYOND_WINDOW = 64  # images of batches in the making: speed alone depends on it


class TrainingRow(NamedTuple):
    """One image of a batch. sample: the fields of a Batch without the axis B. errors: why parts of it are gray."""

    sample: Batch
    errors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pipeline:
    """Makes the training samples of a source; it can be pickled, and used by several threads at once.

    An epoch has `steps` batches; see `sampling.plan_epoch` for what is in them. The images that mosaics draw from are
    kept decoded, at the side of the largest shape: up to `mosaic_window` squares of it and some more, 1.2 MB each at
    640.

    source: what to train on. augment: probabilities and ranges. shapes: (h, w) in pixels, of which each batch has one.
    anchors: [L][A] (width, height) in pixels. strides: [L] in pixels. anchor_t: how many times larger or smaller than
    an anchor a box may be. batch_size: images of a step over all hosts. seed: not negative. max_boxes: M; boxes beyond
    it are left out and counted. mosaic_window: how far back in the order partners of a mosaic are drawn. capacity: K,
    by default as many as a box can need. neighbor_offset: how near a neighboring cell must be,
    in cells, see `assign.candidates`. coarse: whether an auxiliary head wants candidates of its own, within
    aux_neighbor_offset. on_error: stop at an image that cannot be read, or train on gray
    without boxes in its place. repeats: [images] how often each occurs in an epoch on
    average; by default once. buckets: [images] the shape that each wants; without them batches have any shape by
    chance; with them there is no mosaic, nor what goes with it. epochs: of the whole training, of which the last
    augment.close_mosaic have no mosaic either; without it there is no last one. transforms: of users, which finished
    samples go through.
    """

    source: SourceMixin
    augment: AugmentConfig
    shapes: Sequence[tuple[int, int]]
    anchors: Sequence[Sequence[tuple[float, float]]]
    strides: Sequence[int]
    anchor_t: float
    batch_size: int
    seed: int
    max_boxes: int = 120
    mosaic_window: int = 256
    capacity: int | None = None
    neighbor_offset: float = FINE_NEIGHBOR_OFFSET
    coarse: bool = False
    aux_neighbor_offset: float = COARSE_NEIGHBOR_OFFSET
    on_error: OnError = "skip"
    repeats: NDArray[np.float64] | None = None
    buckets: NDArray[np.int64] | None = None
    epochs: int | None = None
    transforms: Sequence[Transform] = ()
    _side: int = field(init=False, repr=False)
    _images: Memo[int, Loaded] = field(init=False, repr=False)
    _plans: Memo[int, EpochPlan] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.source):
            raise DataError("there are no images to train on; name a split that has some")
        for name, least in (("seed", 0), ("batch_size", 1), ("max_boxes", 1), ("mosaic_window", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more")
        check_augment(self.augment)
        side = max(self.largest_shape)
        load = partial(load_resized, self.source, side=side, on_error=self.on_error)
        images = Memo(load, 3 * side**2 * (self.mosaic_window + _CACHED_BEYOND_WINDOW), _image_bytes)
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_images", images)
        plan = partial(
            plan_epoch,
            seed=self.seed,
            repeats=self._repeats,
            batch_size=self.batch_size,
            shapes=self.shapes,
            buckets=self.buckets,
        )
        object.__setattr__(self, "_plans", Memo(plan, 4))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-epoch_length(self._repeats) // self.batch_size)

    @property
    def largest_shape(self) -> tuple[int, int]:
        """(h, w) in pixels, which no batch exceeds."""
        shapes = np.array(self.shapes) if self.buckets is None else np.array(self.shapes)[np.unique(self.buckets)]
        height, width = shapes.max(axis=0).tolist()
        return height, width

    @property
    def _repeats(self) -> NDArray[np.float64]:
        return np.ones(len(self.source)) if self.repeats is None else self.repeats

    def index(self, epoch: int, position: int) -> int:
        """Which image of the source is at a position, from 0 to steps · batch_size - 1, of an epoch's order."""
        return int(self._plans(epoch).order[position])

    def row(self, epoch: int, position: int) -> TrainingRow:
        """The training sample made around the image at a position of an epoch.

        Raises:
            DataError: an image cannot be read, unless that is to be skipped, or the sample cannot be made; names the
                file. InputError: a transform failed, or returned what cannot be trained on; names it.
        """
        plan = self._plans(epoch)
        height, width = plan.shapes[position // self.batch_size].tolist()
        errors: dict[str, None] = {}

        def fetch(place: int) -> Sample:
            loaded = self._images(int(plan.order[place]))
            if loaded.error:
                errors[loaded.error] = None
            return loaded.sample

        index = int(plan.order[position])
        rng = np.random.default_rng([self.seed, epoch, position + 1])  # [.., 0] is the plan's stream
        try:
            made = augmented(
                rng,
                fetch,
                position,
                count=len(plan.order),
                mosaic_window=self.mosaic_window,
                side=self._side,
                size=(height, width),
                config=self._augment(epoch),
                polygons=bool(self.transforms),
            )
            made = transformed(rng, made, self.transforms, num_classes=len(self.source.names))
            return TrainingRow(self._padded(made, index), tuple(errors))
        except InputError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.source.path(index)}: no training sample could be made around this image ({error!r}); "
                "check its labels, or leave it out"
            ) from error

    def _augment(self, epoch: int) -> AugmentConfig:
        last = self.epochs is not None and epoch >= self.epochs - self.augment.close_mosaic
        if last or self.buckets is not None:
            return replace(self.augment, mosaic=0.0, mixup=0.0, copy_paste=0.0)
        return self.augment

    def _padded(self, made: Sample, index: int) -> Batch:
        count = min(len(made.class_ids), self.max_boxes)
        boxes_cxcywh_px = np.zeros((self.max_boxes, 4), np.float32)  # [M, 4]
        boxes_cxcywh_px[:count] = xyxy_to_cxcywh(made.boxes_xyxy_px[:count])
        class_ids = np.zeros(self.max_boxes, np.int32)  # [M]
        class_ids[:count] = made.class_ids[:count]
        valid = np.arange(self.max_boxes) < count  # [M]
        find = partial(
            candidates,
            boxes_cxcywh_px,
            valid,
            anchors=self.anchors,
            strides=self.strides,
            image_size=(made.image.shape[0], made.image.shape[1]),
            anchor_t=self.anchor_t,
            capacity=self.capacity,
        )
        fine, beyond = find(neighbor_offset=self.neighbor_offset)
        coarse, coarse_beyond = find(neighbor_offset=self.aux_neighbor_offset) if self.coarse else (None, 0)
        return Batch(
            image=made.image,
            boxes_cxcywh_px=boxes_cxcywh_px,
            class_ids=class_ids,
            valid=valid,
            fine=fine,
            coarse=coarse,
            overflow=np.array([len(made.class_ids) - count, beyond + coarse_beyond], np.int32),
            index=np.asarray(index, np.int32),
        )


class Loaded(NamedTuple):
    """An image of the source at training size; error: why it is gray, or nothing."""

    sample: Sample
    error: str = ""


def load_resized(source: SourceMixin, index: int, *, side: int, on_error: OnError) -> Loaded:
    """An image of the source with its long side resized to `side`, its objects with it; arrays are not written to.

    Raises:
        DataError: the image or its labels cannot be used, unless gray without objects is to take its place.
    """
    try:
        sample, message = source[index], ""
    except DataError as error:
        if on_error == "stop":
            raise
        gray = np.full((side, side, 3), GRAY, np.uint8)
        sample = Sample(gray, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), source.image_ids[index])
        message = str(error)
    resized = _resized(sample, side)
    for array in (resized.image, resized.boxes_xyxy_px, resized.class_ids, *resized.polygons):
        array.setflags(write=False)
    return Loaded(resized, message)


def _resized(sample: Sample, side: int) -> Sample:
    height, width = sample.image.shape[:2]
    content_h, content_w = fit((height, width), side, auto=False).content
    if (content_h, content_w) == (height, width):
        return sample
    image = cv2.resize(sample.image, (content_w, content_h), interpolation=cv2.INTER_LINEAR)
    across, down = content_w / width, content_h / height
    return sample._replace(
        image=image,
        boxes_xyxy_px=sample.boxes_xyxy_px * np.array([across, down] * 2, np.float32),
        polygons=scaled(sample.polygons, across, down),
    )


def _image_bytes(loaded: Loaded) -> int:
    return loaded.sample.image.nbytes
