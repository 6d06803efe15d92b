"""Transforms as users write them; worker processes import this file."""

import numpy as np

from yolov7_jax.ops.polygons import select
from yolov7_jax.registry import register_transform
from yolov7_jax.types import Sample


@register_transform("test_shift")
def shift(rng: np.random.Generator, sample: Sample, *, most: int = 6) -> Sample:
    """Moves image and objects to the right by a random number of pixels; black comes in."""
    by = int(rng.integers(1, most, endpoint=True))
    image = np.zeros_like(sample.image)
    image[:, by:] = sample.image[:, :-by]
    return sample._replace(
        image=image,
        boxes_xyxy_px=sample.boxes_xyxy_px + np.array([by, 0, by, 0], np.float32),
        polygons=sample.polygons._replace(points_xy_px=sample.polygons.points_xy_px + np.array([by, 0], np.float32)),
    )


def thinned(rng: np.random.Generator, sample: Sample) -> Sample:
    """Leaves out objects by chance."""
    keep = rng.random(len(sample.class_ids)) < 0.5
    return sample._replace(
        boxes_xyxy_px=sample.boxes_xyxy_px[keep],
        class_ids=sample.class_ids[keep],
        polygons=select(sample.polygons, keep),
    )


def broken(rng: np.random.Generator, sample: Sample) -> Sample:
    """Has a bug."""
    return deeper(sample)


def deeper(sample: Sample) -> Sample:
    raise ZeroDivisionError("a bug of the user")
