"""Heat maps drawn over their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.viz.sheet import arrange, headed, sized

Image = NDArray[np.uint8]

OPACITY = 0.5
"""Of the colors over the image."""


def draw_heat(image: Image, heat: NDArray[np.floating[Any]]) -> Image:
    """The image in gray under the colors of a heat map, from black over red to yellow: the lighter, the hotter.

    Args:
        image: uint8 [h, w, 3] RGB.
        heat: [h, w] in 0..1.
    """
    levels = np.rint(heat.clip(0, 1) * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    blended: Image = cv2.addWeighted(gray, 1 - OPACITY, colors, OPACITY, 0)
    return blended


def draw_heats(image: Image, heats: Sequence[NDArray[np.floating[Any]]], captions: Sequence[str]) -> Image:
    """Heat maps over one image beside each other, each under its caption, on a sheet uint8 [h, w, 3]."""
    drawn = (sized(draw_heat(image, heat))[0] for heat in heats)
    return arrange([headed(one, caption) for one, caption in zip(drawn, captions, strict=True)], len(heats))
