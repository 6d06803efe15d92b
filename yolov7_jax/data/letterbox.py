"""Images of any shape in the shape that a network takes, and boxes back in the pixels of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.ops.boxes import clip_boxes

GRAY = 114
"""The padding that the published weights saw in training."""


@dataclass(frozen=True)
class Letterbox:
    """Where a source image lies in its letterbox; every size is (h, w) in pixels.

    source: of the image. scale: its resizing, before rounding to whole pixels. content: of the resized image. offset:
    rows above and columns left of it. shape: of all.
    """

    source: tuple[int, int]
    scale: float
    content: tuple[int, int]
    offset: tuple[int, int]
    shape: tuple[int, int]

    @property
    def pad(self) -> tuple[float, float]:
        """Rows above and columns left of the image, before rounding to whole pixels."""
        top, left = ((whole - side * self.scale) / 2 for whole, side in zip(self.shape, self.source, strict=True))
        return top, left

    def undo(self, boxes_xyxy_px: NDArray[np.floating]) -> NDArray[np.floating]:
        """Boxes [n, 4] of the letterbox in source pixels, clipped to the source.

        Scale and padding are the unrounded ones, as the reference implementations take them: where an odd pixel of
        padding goes to one side, boxes lie half a pixel of the letterbox beside their exact place.
        """
        top, left = self.pad
        pad = np.array([left, top, left, top], boxes_xyxy_px.dtype)
        return clip_boxes((boxes_xyxy_px - pad) / np.asarray(self.scale, boxes_xyxy_px.dtype), self.source)


def fit(source: tuple[int, int], size: int | tuple[int, int], *, stride: int = 32, auto: bool) -> Letterbox:
    """Where an image of size `source` (h, w) comes to lie in a letterbox of `size`; see `letterbox`."""
    height, width = (size, size) if isinstance(size, int) else size
    scale = min(height / source[0], width / source[1])
    content_h, content_w = (max(round(side * scale), 1) for side in source)  # a hair of an image keeps a pixel
    spare_h, spare_w = height - content_h, width - content_w
    if auto:
        spare_h, spare_w = -content_h % stride, -content_w % stride
    return Letterbox(
        source,
        scale,
        (content_h, content_w),
        (spare_h // 2, spare_w // 2),  # an odd pixel goes below or to the right
        (content_h + spare_h, content_w + spare_w),
    )


def letterbox(
    image: NDArray[np.uint8],
    size: int | tuple[int, int],
    *,
    stride: int = 32,
    auto: bool,
    shrink: Literal["linear", "area"] = "linear",
) -> tuple[NDArray[np.uint8], Letterbox]:
    """The image [h, w, 3] resized as a whole to fit `size`, with gray around it, and where it lies.

    Args:
        image: uint8 RGB.
        size: height and width of the result, or the side of a square.
        stride: what the sides of the result are multiples of where `auto` is on.
        auto: pad each side only to the next multiple of the stride, so that most results are rectangles within `size`.
        shrink: how pixels are made where there are fewer of them (where there are more, always bilinear).
    """
    geometry = fit((image.shape[0], image.shape[1]), size, stride=stride, auto=auto)
    (content_h, content_w), (top, left) = geometry.content, geometry.offset
    if geometry.content != geometry.source:
        by_area = shrink == "area" and content_h * content_w < image.shape[0] * image.shape[1]
        image = cv2.resize(image, (content_w, content_h), interpolation=cv2.INTER_AREA if by_area else cv2.INTER_LINEAR)
    boxed = np.full((*geometry.shape, 3), GRAY, np.uint8)
    boxed[top : top + content_h, left : left + content_w] = image
    return boxed, geometry
