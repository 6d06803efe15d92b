"""The training sample of one position of an epoch: a pure function of a random generator and the fetched images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.color import random_gains, scale_hsv
from yolov7_jax.data.geometry import random_warp
from yolov7_jax.data.image import cv2
from yolov7_jax.data.mix import mixup
from yolov7_jax.data.mosaic import centred, mosaic, render
from yolov7_jax.errors import InputError
from yolov7_jax.types import Sample

Fetch = Callable[[int], Sample]
"""The sample at a position of the epoch's order, its long side resized to the training size."""

LIMITS: dict[str, tuple[float, float]] = {
    "mosaic": (0, 1),
    "mixup": (0, 1),
    "mixup_beta": (1e-3, np.inf),
    "degrees": (0, 180),
    "translate": (0, 1),
    "scale": (0, 0.99),
    "shear": (0, 80),
    "perspective": (0, 0.1),
    "flipud": (0, 1),
    "fliplr": (0, 1),
    "hsv_h": (0, 0.4),  # see color.scale_hsv
    "hsv_s": (0, 1),
    "hsv_v": (0, 1),
}


@cache
def check_augment(config: AugmentConfig) -> None:
    """Refuses settings that mean nothing.

    Raises:
        InputError: a number is outside its range; names it.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name)
        if not least <= value <= most:
            raise InputError(f"augment.{name}: {value} is out of range; expected a number from {least} to {most}")


def augmented(
    rng: np.random.Generator,
    fetch: Fetch,
    position: int,
    *,
    count: int,
    window: int,
    size: int,
    config: AugmentConfig,
) -> Sample:
    """A training sample made around the image at `position`: uint8 [size, size, 3], boxes within it, the image's id.

    Mosaic and mixup, or the image alone; then colours; then mirror images. Partners come from the `window` positions
    before `position`, in a circle, so that an epoch's images need to be decoded about once each.

    Args:
        rng: what every decision is drawn from.
        fetch: gives samples by position; what it gives is not written to.
        position: from 0 to count - 1.
        count: positions of the epoch.
        window: how far back partners lie at most; with one image, it is its own partner.
        size: side of the result in pixels.
        config: probabilities and ranges.

    Raises:
        InputError: a number of the config is outside its range.
    """
    check_augment(config)
    back = min(window, count - 1)

    def partners(number: int) -> list[Sample]:
        steps = rng.integers(1, back, number, endpoint=True) if back > 0 else np.zeros(number, int)
        return [fetch(int(position - step) % count) for step in steps]

    if rng.random() < config.mosaic:
        sample = _mosaic(rng, [fetch(position), *partners(3)], size, config)
        if rng.random() < config.mixup:
            second = _mosaic(rng, partners(4), size, config)
            sample = mixup(sample, second, rng.beta(config.mixup_beta, config.mixup_beta))
    else:
        warp, scale = random_warp(rng, config, canvas=size, size=size)
        sample = render(centred(fetch(position), canvas=size), warp, scale, size=size)
    image, boxes = sample.image, sample.boxes_xyxy_px  # of this sample alone: they may be written to
    scale_hsv(image, random_gains(rng, config), out=image)
    for axis, chance in enumerate((config.fliplr, config.flipud)):
        if rng.random() < chance:
            cv2.flip(image, 1 - axis, dst=image)
            boxes[:, [axis, axis + 2]] = size - boxes[:, [axis + 2, axis]]
    return sample


def _mosaic(rng: np.random.Generator, samples: list[Sample], size: int, config: AugmentConfig) -> Sample:
    """Four samples around a random centre of a canvas of twice the size, in a random view of the canvas."""
    x, y = rng.integers(size // 2, size + size // 2, 2, endpoint=True)
    warp, scale = random_warp(rng, config, canvas=2 * size, size=size)
    return render(mosaic(samples, (int(x), int(y)), canvas=2 * size), warp, scale, size=size)
