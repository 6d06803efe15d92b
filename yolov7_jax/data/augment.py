"""The training sample of one position of an epoch: a pure function of a random generator and the fetched images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import AugmentConfig, ranges
from yolov7_jax.data.geometry import random_warp, scale_and_shift
from yolov7_jax.data.letterbox import fit
from yolov7_jax.data.mosaic import FOUR, NINE, Tile, mixup, mosaic, mosaic9
from yolov7_jax.data.paste import PASTE_IMAGES, flipped_copies, paste_in
from yolov7_jax.data.render import render
from yolov7_jax.errors import InputError
from yolov7_jax.image import cv2
from yolov7_jax.types import Sample

Fetch = Callable[[int], Sample]
"""The sample at a position of the epoch's order, its long side resized to the training size."""

LIMITS = ranges(AugmentConfig)

UNCHANGED = AugmentConfig(mosaic=0.0, translate=0.0, scale=0.0, fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
"""Images as they are, in their letterbox."""


@cache
def check_augment(config: AugmentConfig) -> None:
    """Refuses settings that mean nothing.

    Raises:
        InputError: a number is outside its range; names it.
    """
    for name, (low, high) in LIMITS.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise InputError(f"augment.{name}: {value} is out of range; expected a number from {low} to {high}")


def augmented(
    rng: np.random.Generator,
    fetch: Fetch,
    position: int,
    *,
    count: int,
    mosaic_window: int,
    side: int,
    size: tuple[int, int],
    config: AugmentConfig,
    polygons: bool = False,
) -> Sample:
    """A training sample made around the image at `position`: uint8 [h, w, 3], boxes within it, the image's id.

    Mosaic, with copies of objects in it, and mixup, or the image alone in its letterbox; then colors; then objects of
    other images; then flips. Partners come from the `mosaic_window` positions before `position`, in a circle,
    so that an epoch's images need to be decoded about once each. What is drawn does not depend on `size`.

    Args:
        rng: what every decision is drawn from.
        fetch: gives samples by position; what it gives is not written to.
        position: from 0 to count - 1.
        count: positions of the epoch.
        mosaic_window: how far back partners lie at most; with one image, it is its own partner.
        side: long side of the fetched images in pixels; the canvas of a mosaic is twice as wide.
        size: height and width of the result; a mosaic is seen as large as its longer side is to `side`.
        config: probabilities and ranges.
        polygons: whether the result has what shows of the polygons, too.

    Raises:
        InputError: a number of the config is outside its range.
    """
    check_augment(config)
    partners = partial(_partners, rng, fetch, position, count, min(mosaic_window, count - 1))
    mosaic_of = partial(_mosaic, rng, partners, side=side, size=size, config=config, polygons=polygons)
    if rng.random() < config.mosaic:
        sample = mosaic_of([fetch(position)])
        if rng.random() < config.mixup:
            sample = mixup(sample, mosaic_of([]), rng.beta(config.mixup_beta, config.mixup_beta))
    else:
        sample = _alone(rng, fetch(position), size, config, polygons=polygons)
    scale_hsv(sample.image, random_gains(rng, config))
    if rng.random() < config.paste_in:
        sample = paste_in(rng, sample, partners(PASTE_IMAGES), zoom=max(size) / side, polygons=polygons)
    _flip(rng, sample, (config.fliplr, config.flipud))
    return sample


def _partners(
    rng: np.random.Generator, fetch: Fetch, position: int, count: int, window: int, number: int
) -> list[Sample]:
    """Samples of random positions up to `window` before this one, in a circle of `count`."""
    steps = rng.integers(1, window, number, endpoint=True) if window > 0 else np.zeros(number, int)
    return [fetch(int(position - step) % count) for step in steps]


def _mosaic(
    rng: np.random.Generator,
    partners: Callable[[int], list[Sample]],
    first: list[Sample],
    *,
    side: int,
    size: tuple[int, int],
    config: AugmentConfig,
    polygons: bool,
) -> Sample:
    """Four or nine samples, `first` and partners, on a canvas of twice the side, in a random view of the canvas."""
    nine = rng.random() < config.mosaic9
    samples = first + partners((NINE if nine else FOUR) - len(first))
    canvas = 2 * side
    low, high = (0, side) if nine else (side // 2, side + side // 2)
    x, y = (int(n) for n in rng.integers(low, high, 2, endpoint=True))
    tiles = (mosaic9 if nine else mosaic)(samples, (x, y), canvas=canvas)
    copies = flipped_copies(rng, tiles, config.copy_paste, canvas=canvas) if config.copy_paste else []
    warp, scale = random_warp(rng, config, canvas=(canvas, canvas), size=size, zoom=max(size) / side)
    return render(tiles, warp, scale, size=size, copies=copies, polygons=polygons)


def _alone(
    rng: np.random.Generator, sample: Sample, size: tuple[int, int], config: AugmentConfig, *, polygons: bool
) -> Sample:
    """One sample in its letterbox, in a random view of that."""
    height, width = sample.image.shape[:2]
    box = fit((height, width), size, auto=False)
    (content_h, content_w), (top, left) = box.content, box.offset
    warp, scale = random_warp(rng, config, canvas=size, size=size)
    into_box = scale_and_shift(content_w / width, content_h / height, left, top)
    tiles = [Tile(sample, 0, 0, (0, 0, width, height))]
    return render(tiles, warp @ into_box, scale * box.scale, size=size, polygons=polygons)


def _flip(rng: np.random.Generator, sample: Sample, chances: tuple[float, float]) -> None:
    """Flips image and objects of a sample, in place, left to right and upside down by chance."""
    for axis, chance in enumerate(chances):
        if rng.random() < chance:
            cv2.flip(sample.image, 1 - axis, dst=sample.image)
            boxes, side = sample.boxes_xyxy_px, sample.image.shape[1 - axis]
            boxes[:, [axis, axis + 2]] = side - boxes[:, [axis + 2, axis]]
            if len(points := sample.polygons.points_xy_px):
                points[:, axis] = side - points[:, axis]


STRIP_BYTES = 2**17
"""What is converted at once: fresh memory for a whole image would cost more than the arithmetic."""


def random_gains(rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64]:
    """Factors of hue, saturation and value within the config's ranges; [3]."""
    return 1 + rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)


def scale_hsv(image: NDArray[np.uint8], gains: NDArray[np.float64]) -> None:
    """Multiplies hue, saturation and value of an RGB image [h, w, 3], in place: hue in a circle, the others to the end.

    Hues are counted in 180 steps of 8 bits, so a gain of hue must stay under 255/179 for the circle to close. Where all
    three gains are 1 the image stays as it is, to the bit.
    """
    if (gains == 1).all():
        return
    rows = max(STRIP_BYTES // image[0].size, 1)
    for top in range(0, len(image), rows):
        strip = image[top : top + rows]
        hsv = cv2.cvtColor(strip, cv2.COLOR_RGB2HSV)
        # as a matrix of channels: six times as fast as tables in OpenCV 5, as fast in OpenCV 4
        cv2.cvtColor(cv2.transform(hsv, np.diag(gains)), cv2.COLOR_HSV2RGB, dst=strip)
