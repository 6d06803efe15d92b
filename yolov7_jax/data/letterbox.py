"""Images of any shape in the shape that a network takes, and boxes back in the pixels of the source."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.ops.boxes import clip_boxes

Resize = Literal["linear", "area"]

SHORT_SIDES = (0.6, 0.75, 1.0)
"""Of few rectangles, in parts of the longer side: for images of 16:9, of 3:2 and 4:3, and of all others."""

GRAY = 114
"""The padding that the published weights saw in training."""


@dataclass(frozen=True)
class Letterbox:
    """Where a source image lies in its letterbox; every size is (h, w) in pixels.

    source: of the image. scale: its resizing, before rounding to whole pixels. content: of the resized image. offset:
    rows above and columns left of it. shape: of all. resize: how the image was resized; see `letterbox`.
    """

    source: tuple[int, int]
    scale: float
    content: tuple[int, int]
    offset: tuple[int, int]
    shape: tuple[int, int]
    resize: Resize = "linear"

    @property
    def factors(self) -> tuple[float, float]:
        """Of height and width in resizing: one, before rounding to whole pixels, or each side's own."""
        if self.resize == "linear":
            return self.scale, self.scale
        return self.content[0] / self.source[0], self.content[1] / self.source[1]

    @property
    def pad(self) -> tuple[float, float]:
        """Rows above and columns left of the image, before rounding to whole pixels."""
        sides = zip(self.shape, self.source, self.factors, strict=True)
        top, left = ((whole - side * factor) / 2 for whole, side, factor in sides)
        return top, left

    def undo(self, boxes_xyxy_px: NDArray[np.floating]) -> NDArray[np.floating]:
        """Boxes [n, 4] of the letterbox in source pixels, clipped to the source.

        Factors and padding are the unrounded ones, as the reference implementations take them: where an odd pixel of
        padding goes to one side, boxes lie half a pixel of the letterbox beside their exact place.
        """
        top, left = self.pad
        pad = np.array([left, top, left, top], boxes_xyxy_px.dtype)
        factors = np.array([*self.factors[::-1]] * 2, boxes_xyxy_px.dtype)
        return clip_boxes((boxes_xyxy_px - pad) / factors, self.source)

    def undo_cells(self, cells: NDArray[np.floating]) -> NDArray[np.float32]:
        """Values of cells [rows, columns] that tile the letterbox, for each pixel of the source, float32 [h, w].

        Bilinear between the centers of cells, constant beyond the outermost; by where the image's pixels lie indeed,
        after rounding.
        """
        sides = zip(cells.shape, self.shape, self.source, self.content, self.offset, strict=True)
        down, across = (_interpolation(*side) for side in sides)
        pixels: NDArray[np.float32] = (down @ cells.astype(np.float64) @ across.T).astype(np.float32)
        return pixels


def _interpolation(cells: int, whole: int, source: int, content: int, offset: int) -> NDArray[np.float64]:
    """How much each pixel of one side of the source has of each cell, [source, cells]; rows add up to 1."""
    in_letterbox = (np.arange(source) + 0.5) * (content / source) + offset
    places = in_letterbox * (cells / whole) - 0.5
    return np.stack([np.interp(places, np.arange(cells), one) for one in np.eye(cells)], axis=1)


def fit(
    source: tuple[int, int], size: int | tuple[int, int], *, stride: int = 32, auto: bool, resize: Resize = "linear"
) -> Letterbox:
    """Where an image of size `source` (h, w) comes to lie in a letterbox of `size`; see `letterbox`."""
    height, width = (size, size) if isinstance(size, int) else size
    scale = min(height / source[0], width / source[1])
    whole = round if resize == "linear" else int
    content_h, content_w = (max(whole(side * scale), 1) for side in source)  # a hair of an image keeps a pixel
    spare_h, spare_w = height - content_h, width - content_w
    if auto:
        spare_h, spare_w = -content_h % stride, -content_w % stride
    return Letterbox(
        source,
        scale,
        (content_h, content_w),
        (spare_h // 2, spare_w // 2),  # an odd pixel goes below or to the right
        (content_h + spare_h, content_w + spare_w),
        resize,
    )


def rectangle(source: tuple[int, int], size: int, stride: int) -> tuple[int, int]:
    """The smallest of five shapes (h, w) that holds an image of `source` (h, w) whose longer side becomes `size`."""
    shorter = min(source) * size / max(source)
    sides = (ceil(part * size / stride) * stride for part in SHORT_SIDES)
    short = next(side for side in sides if round(shorter) <= side)
    return (short, size) if source[0] < source[1] else (size, short)


def letterbox(
    image: NDArray[np.uint8],
    size: int | tuple[int, int],
    *,
    stride: int = 32,
    auto: bool,
    resize: Resize = "linear",
) -> tuple[NDArray[np.uint8], Letterbox]:
    """The image [h, w, 3] resized as a whole to fit `size`, with gray around it, and where it lies.

    Args:
        image: uint8 RGB.
        size: height and width of the result, or the side of a square.
        stride: what the sides of the result are multiples of where `auto` is on.
        auto: pad each side only to the next multiple of the stride, so that most results are rectangles within `size`.
        resize: "linear", as the references detect: bilinear, sides rounded to whole pixels. "area", as they evaluate:
            by area where there are fewer pixels, sides cut to whole pixels, boxes back by each side's own factor.
    """
    geometry = fit((image.shape[0], image.shape[1]), size, stride=stride, auto=auto, resize=resize)
    (content_h, content_w), (top, left) = geometry.content, geometry.offset
    if geometry.content != geometry.source:
        by_area = resize == "area" and content_h * content_w < image.shape[0] * image.shape[1]
        image = cv2.resize(image, (content_w, content_h), interpolation=cv2.INTER_AREA if by_area else cv2.INTER_LINEAR)
    boxed = np.full((*geometry.shape, 3), GRAY, np.uint8)
    boxed[top : top + content_h, left : left + content_w] = image
    return boxed, geometry
