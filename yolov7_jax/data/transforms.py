"""Transforms of users, on finished training samples: named, called, and what they return made fit for training."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from yolov7_jax.contracts import Transform
from yolov7_jax.data.pieces import Piece, shown
from yolov7_jax.errors import InputError
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import select
from yolov7_jax.registry import TRANSFORMS, look_up, own_traceback
from yolov7_jax.types import Sample

SETTING = "augment.transforms"

MOST_BESIDE_PX = 1.0
"""How far the polygons of an object may reach beyond its box: more says that one of them was forgotten."""


def named_transforms(texts: Sequence[str]) -> tuple[Transform, ...]:
    """The transforms that augment.transforms names, with their arguments bound.

    Raises:
        InputError: nobody registered a name, or a function does not take the arguments.
    """
    found = tuple(look_up(TRANSFORMS, text, where=SETTING) for text in texts)
    for text, transform in zip(texts, found, strict=True):
        function, options = (transform.func, transform.keywords) if isinstance(transform, partial) else (transform, {})
        try:
            inspect.signature(function).bind(None, None, **options)
        except TypeError as error:
            raise InputError(
                f"{SETTING}: {text!r} cannot be called ({error}); expected a function of (rng, sample) and of the "
                "arguments that are named"
            ) from error
        except ValueError:  # it has no signature that can be read
            continue
    return found


def check_sendable(transforms: Sequence[Transform]) -> None:
    """Refuses transforms that worker processes cannot be given.

    Raises:
        InputError: names the first.
    """
    for transform in transforms:
        try:
            pickle.dumps(transform)
        except Exception as error:
            raise InputError(
                f"{name_of(transform)}: the transform cannot be sent to worker processes ({error}); define it at the "
                "top of a module, or make the workers threads (data.processes=false)"
            ) from error


def transformed(
    rng: np.random.Generator, sample: Sample, transforms: Sequence[Transform], *, num_classes: int
) -> Sample:
    """A finished sample after transforms, one after another; labels after each are those that training can use.

    Boxes are clipped to the image. That of an object with polygons becomes the box of what shows of them. Objects of
    which too little is left, as the pipeline judges it, are left out.

    Args:
        rng: what transforms draw from.
        sample: may be written to.
        transforms: of users.
        num_classes: C; class ids are under it.

    Raises:
        InputError: a transform failed, in which case the sentence ends in its traceback, or returned no such sample.
    """
    for transform in transforms:
        try:
            made = transform(rng, sample)
        except Exception as error:
            raise InputError(
                f"{name_of(transform)}: the transform failed; correct it\n{own_traceback(error, __file__)}"
            ) from error
        if wrong := _wrong(made, sample, num_classes):
            raise InputError(f"{name_of(transform)}: the transform returned {wrong}")
        sample = _usable(made._replace(id=sample.id), name_of(transform))
    return sample


def name_of(transform: Transform) -> str:
    """What to call a transform in sentences."""
    inner: Any = transform.func if isinstance(transform, partial) else transform
    return getattr(inner, "__name__", type(inner).__name__)


def _wrong(made: Any, given: Sample, num_classes: int) -> str:
    """What is wrong with what a transform returned, and what was expected; empty if nothing is."""
    if not isinstance(made, Sample):
        return f"{type(made).__name__}; expected a Sample"
    image, boxes, class_ids = (np.asarray(made[at]) for at in range(3))
    if image.dtype != np.uint8 or image.shape != given.image.shape:
        return f"an image {image.dtype} {list(image.shape)}; expected uint8 {list(given.image.shape)}, as it was given"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
        return f"boxes_xyxy_px {boxes.dtype} {list(boxes.shape)}; expected numbers [n, 4]"
    if class_ids.shape != (len(boxes),) or class_ids.dtype.kind not in "iu":
        return f"class_ids {class_ids.dtype} {list(class_ids.shape)}; expected integers [{len(boxes)}], one a box"
    if not np.isfinite(boxes).all():
        return "boxes that are not finite; expected pixels"
    if (boxes[:, 2:] < boxes[:, :2]).any():
        return "boxes whose second corner is left of the first or above it; expected x1, y1, x2, y2"
    if len(class_ids) and not 0 <= class_ids.min() <= class_ids.max() < num_classes:
        return f"class_ids from {class_ids.min()} to {class_ids.max()}; expected 0 to {num_classes - 1}"
    points, corners, owner = map(np.asarray, made.polygons)
    if len(owner) != len(corners) or points.shape != (corners.sum(), 2) or not np.isfinite(points).all():
        return "polygons whose points, corners and owner do not fit together, or are not finite; see Polygons"
    if len(owner) and not (owner[0] >= 0 and (np.diff(owner) >= 0).all() and owner[-1] < len(boxes)):
        return (
            f"polygons of other objects than its {len(boxes)}; choose those of the objects that stay "
            "(polygons.select), or return none (NO_POLYGONS)"
        )
    return ""


def _usable(sample: Sample, name: str) -> Sample:
    """A sample with the labels that training can use.

    Raises:
        InputError: polygons are not where their boxes are.
    """
    height, width = sample.image.shape[:2]
    given = clip_boxes(np.asarray(sample.boxes_xyxy_px, np.float64), (height, width))
    sample = sample._replace(image=np.ascontiguousarray(sample.image), boxes_xyxy_px=given)
    boxes, class_ids, keep = shown([Piece(sample, (0, 0, width, height), np.eye(3), 1.0)], (height, width))
    beside = np.where(keep[:, None], (given - boxes) * (1, 1, -1, -1), 0)
    if (beside > MOST_BESIDE_PX).any():
        raise InputError(
            f"{name}: the transform returned polygons that reach {beside.max():.1f} pixels beyond the boxes of their "
            "objects; move both, or return no polygons (NO_POLYGONS)"
        )
    polygons = select(sample.polygons, keep)
    return Sample(sample.image, boxes[keep].astype(np.float32), class_ids[keep], sample.id, polygons)
