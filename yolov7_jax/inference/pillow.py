"""The door to Pillow where people hold images in it, or want to look at one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageShow

from yolov7_jax.errors import InputError


def from_pillow(image: Any) -> NDArray[Any]:
    """An image of Pillow as an array [h, w, 3] RGB, upright by its EXIF orientation; its modes I and F stay gray."""
    upright = ImageOps.exif_transpose(image)
    return np.asarray(upright if upright.mode[0] in "IF" else upright.convert("RGB"))


def show(image: NDArray[np.uint8]) -> None:
    """Shows uint8 [h, w, 3] RGB: below the cell of a notebook, else in the system's viewer of images.

    Raises:
        InputError: there is no viewer, as on a server.
    """
    shown = Image.fromarray(image)
    if (shell := sys.modules.get("IPython")) is not None and hasattr(shell.get_ipython(), "kernel"):
        shell.display.display(shown)
    elif not ImageShow.show(shown, title="yolov7-jax"):
        raise InputError("no program that shows images was found; write the image with save('found.jpg')")
