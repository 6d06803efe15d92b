"""Textures behind the objects of drawn scenes: two like colors mixed by a pattern without sharp edges, and grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2

Pattern = NDArray[np.float32]
"""How much of the second color each pixel has, 0 to 1, [size, size]."""

_MOST_CHROMA = 45  # of 255, of a channel from gray
_MOST_CHANGE = 45  # of 255, between the channels of the two colors: objects must stand out against both
_MOST_GRAIN = 6.0  # standard deviation, of 255


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
