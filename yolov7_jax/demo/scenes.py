"""Labeled images drawn by the program: shapes and digits on textured backgrounds, for a demonstration without data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.demo.shapes import SHAPES, PlacedShape, add_shape, paint, place
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.files import write_atomically
from yolov7_jax.image import cv2, write_image
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.types import Sample

SCENE_NAMES = tuple(SHAPES)
"""Names of the classes; class ids index into them."""

MOST_OBJECTS = 5
LEAST_INSIDE = 0.8
"""Share of a shape's area that lies in the image at the least."""
LEAST_VISIBLE = 0.85
"""Share of an object's pixels in the image that later objects leave visible at the least."""
LEAST_SIZE = 64

_TILT = np.radians(12)  # little enough that no shape turns into another
_TRIES = 20  # at a place for an object, and at its color
_CONTRAST = 100  # of 255, in the channel that differs most
_SAMPLES = 12  # rows and columns of pixels, about, that contrast is measured on
_LEAST_CONTRASTING = 0.9  # share of the background around an object that has this contrast to it

_MOST_CHROMA = 45  # of 255, of a channel from gray
_MOST_CHANGE = 45  # of 255, between the channels of the two colors: objects must stand out against both
_MOST_GRAIN = 6.0  # standard deviation, of 255

Pattern = NDArray[np.float32]
"""How much of the second color each pixel has, 0 to 1, [size, size]."""


def scene(seed: int, index: int, *, size: int = 128) -> Sample:
    """The image of a number: a pure function of its arguments.

    1 to 5 objects, from 11 pixels (digits from 20) to half the image, may overlap and stick out. Boxes are tight
    around what of an object lies in the image, whether other objects hide it or not.

    Args:
        seed: 0 or more; each is another endless series of images.
        index: 0 or more; the number in the series, and the id of the sample.
        size: side of the image in pixels.

    Raises:
        InputError: the size is less than 64.
    """
    background, shapes = compose(seed, index, size=size)
    return Sample(
        image=paint(background, shapes),
        boxes_xyxy_px=np.array([shape.box_xyxy_px for shape in shapes], np.float32).reshape(-1, 4),
        class_ids=np.array([shape.class_id for shape in shapes], np.int32),
        id=index,
    )


def compose(seed: int, index: int, *, size: int) -> tuple[NDArray[np.uint8], tuple[PlacedShape, ...]]:
    """The background uint8 [size, size, 3] of a scene, and its objects in the order in which they are painted.

    Raises:
        InputError: the size is less than 64.
    """
    if size < LEAST_SIZE:
        raise InputError(f"scenes of {size} pixels are too small for their objects; use {LEAST_SIZE} or more")
    rng = np.random.default_rng((seed, index))
    background = draw_background(rng, size)
    canvas = background.copy()
    owner = np.full((size, size), MOST_OBJECTS, np.intp)  # which object each pixel shows; the background is the last
    shapes: list[PlacedShape] = []
    for class_id, side in _objects(rng, size):
        tries = (_place(rng, class_id, side, size) for _ in range(_TRIES))
        shape = next((attempt for attempt in tries if _fits(attempt, shapes, owner)), None)
        if shape is None:
            continue
        shape = shape._replace(color=_color(rng, canvas[shape.window]))
        owner[shape.window][shape.solid] = len(shapes)
        add_shape(canvas, shape)
        shapes.append(shape)
    return background, tuple(shapes)


def write_scenes(folder: Path, *, train: int = 512, val: int = 128, size: int = 128, seed: int = 0) -> Path:
    """Writes scenes as a data set in YOLO format: images/*/*.png, labels/*/*.txt and data.yaml, which is returned.

    The held-out images are the first of the series, so they are the same for any number of training images.

    Raises:
        DataError: there are images in the folder already. InputError: it cannot be written, or the size is too small.
    """
    if (folder / "images").exists():
        raise DataError(f"{folder}: has a folder images already; name another folder, or delete it")
    for split, numbers in (("val", range(val)), ("train", range(val, val + train))):
        for number in numbers:
            sample = scene(seed, number, size=size)
            write_image(folder / "images" / split / f"{number:06}.png", sample.image)
            write_atomically(folder / "labels" / split / f"{number:06}.txt", _label_text(sample))
    names = json.dumps(SCENE_NAMES)  # quoted: "3" is a name, not a number
    data = folder / "data.yaml"
    write_atomically(data, f"train: images/train\nval: images/val\nnames: {names}\n")
    return data


def _objects(rng: np.random.Generator, size: int) -> list[tuple[int, float]]:
    """Class and side of each object, the largest first; small ones are more frequent, but most can be told apart."""
    class_ids = rng.integers(len(SCENE_NAMES), size=rng.integers(1, MOST_OBJECTS + 1))
    least = np.array([shape.least_px for shape in SHAPES.values()])[class_ids]
    sides = least + (size / 2 - least) * rng.random(len(class_ids)) ** 1.5
    order = np.argsort(-sides)
    return list(zip(class_ids[order].tolist(), sides[order].tolist(), strict=True))


def _place(rng: np.random.Generator, class_id: int, side: float, size: int) -> PlacedShape:
    """An object of a given class and size, somewhere."""
    angle, center = rng.uniform(-_TILT, _TILT), rng.uniform(0, size, 2)
    return place(class_id, SHAPES[SCENE_NAMES[class_id]], side=side, angle=angle, center=center, size=size)


def _fits(shape: PlacedShape, shapes: Sequence[PlacedShape], owner: NDArray[np.intp]) -> bool:
    """Whether enough of an object is in the image, and enough of each one before it would stay visible."""
    if shape.inside < LEAST_INSIDE:
        return False
    hidden = np.bincount(owner[shape.window][shape.solid], minlength=MOST_OBJECTS + 1)
    visible = np.bincount(owner.ravel(), minlength=MOST_OBJECTS + 1) - hidden
    return all(visible[k] >= LEAST_VISIBLE * before.solid.sum() for k, before in enumerate(shapes))


def _color(rng: np.random.Generator, background: NDArray[np.uint8]) -> tuple[int, int, int]:
    """A random color that stands out against what is around and under an object; the best of some if none does."""
    rows, columns = (slice(None, None, max(side // _SAMPLES, 1)) for side in background.shape[:2])
    pixels = background[rows, columns].reshape(-1, 3).astype(np.int16)
    colors = rng.integers(0, 256, (_TRIES, 3), np.int16)
    contrast = np.abs(colors[:, :, None] - pixels.T).max(axis=1)
    share = np.minimum((contrast >= _CONTRAST).mean(axis=1), _LEAST_CONTRASTING)
    red, green, blue = colors[share.argmax()].tolist()  # the first of equals
    return red, green, blue


def _label_text(sample: Sample) -> str:
    """The lines of a label file, in fractions of the image."""
    height, width = sample.image.shape[:2]
    boxes = xyxy_to_cxcywh(sample.boxes_xyxy_px.astype(np.float64)) / [width, height, width, height]
    lines = zip(sample.class_ids.tolist(), boxes.tolist(), strict=True)
    return "".join(f"{class_id} " + " ".join(f"{value:.8f}" for value in box) + "\n" for class_id, box in lines)


def draw_background(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A random texture, uint8 [size, size, 3]."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, size)
    color = rng.uniform(25, 230) + rng.uniform(-_MOST_CHROMA, _MOST_CHROMA, 3)
    change = rng.uniform(-_MOST_CHANGE, _MOST_CHANGE, 3)
    grain = rng.standard_normal((size, size), np.float32) * np.float32(rng.uniform(0, _MOST_GRAIN))
    planes = [np.float32(first) + np.float32(more) * pattern + grain for first, more in zip(color, change, strict=True)]
    return np.clip(np.rint(cv2.merge(planes)), 0, 255).astype(np.uint8)


def gradient(rng: np.random.Generator, size: int) -> Pattern:
    """An even change in one direction."""
    ramp = _ramp(rng, size)
    return (ramp - ramp.min()) / np.ptp(ramp)


def stripes(rng: np.random.Generator, size: int) -> Pattern:
    """Waves in one direction."""
    waves = np.float32(rng.uniform(2, 12) * 2 * np.pi)
    return 0.5 + 0.5 * np.sin(waves * _ramp(rng, size))


def clouds(rng: np.random.Generator, size: int) -> Pattern:
    """Smooth noise: a few random numbers, enlarged."""
    coarse = rng.random((rng.integers(3, 24),) * 2, np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def blobs(rng: np.random.Generator, size: int) -> Pattern:
    """Soft spots; where they meet they do not add up."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    pattern = np.zeros((size, size), np.float32)
    for x, y, radius in rng.uniform((0, 0, 0.05), (1, 1, 0.25), (rng.integers(3, 12), 3)).astype(np.float32):
        across, down = np.exp(-(((at - x) / radius) ** 2)), np.exp(-(((at - y) / radius) ** 2))
        np.maximum(pattern, down[:, None] * across, out=pattern)
    return pattern


PATTERNS = (gradient, stripes, clouds, blobs)


def _ramp(rng: np.random.Generator, size: int) -> Pattern:
    """Position along a random direction, in sides of the image."""
    angle = rng.uniform(0, 2 * np.pi)
    at = (np.arange(size) + 0.5) / size
    return (np.cos(angle) * at + np.sin(angle) * at[:, None]).astype(np.float32)
