"""Random changes of color."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import AugmentConfig
from yolov7_jax.image import cv2

STRIP_BYTES = 2**17
"""What is converted at once: fresh memory for a whole image would cost more than the arithmetic."""


def random_gains(rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64]:
    """Factors of hue, saturation and value within the config's ranges; [3]."""
    return 1 + rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)


def scale_hsv(
    image: NDArray[np.uint8], gains: NDArray[np.float64], *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """An RGB image with its hue, saturation and value times `gains`: hue goes in a circle, the others stop at the end.

    Hues are counted in 180 steps of 8 bits, so a gain of hue must stay under 255/179 for the circle to close.

    Args:
        image: uint8 [h, w, 3].
        gains: three factors; where all are 1 the image stays as it is, to the bit.
        out: where to write, which may be the image itself; by default a new array.
    """
    scaled = np.empty_like(image) if out is None else out
    if (gains == 1).all():
        scaled[...] = image
        return scaled
    rows = max(STRIP_BYTES // image[0].size, 1)
    for top in range(0, len(image), rows):
        strip = np.s_[top : top + rows]
        hsv = cv2.cvtColor(image[strip], cv2.COLOR_RGB2HSV)
        # as a matrix of channels: six times as fast as tables in OpenCV 5, as fast in OpenCV 4
        cv2.cvtColor(cv2.transform(hsv, np.diag(gains)), cv2.COLOR_HSV2RGB, dst=scaled[strip])
    return scaled
