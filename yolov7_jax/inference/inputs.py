"""Whatever people hold images in: files, patterns, encoded bytes, arrays of any library, Pillow's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.errors import DataError
from yolov7_jax.image import decode_image, read_image
from yolov7_jax.inference.image_paths import find_images, refuse_address
from yolov7_jax.inference.pillow import from_pillow

ImageLike = Path | str | bytes | NDArray[Any] | Callable[[], Any] | Any
"""One image: a file; the bytes of one, or something open to read them from; an array; an image of Pillow; or a function
that gives one of these when it is needed, in a thread of its own.

Arrays are those of numpy, JAX or another library that converts to numpy's: uint8 or uint16, [h, w, 3] RGB, [h, w, 4]
whose transparency is dropped, [h, w] or [h, w, 1] gray. `Options` says when they are BGR, have their channels first, or
are floats in 0..1.
"""

_CHANNELS = (1, 3, 4)


def images_of(given: Any) -> Iterable[ImageLike]:
    """One image or many as images, each for itself; nothing is read, but the names in folders and lists.

    A string or path names an image, a folder, a pattern or a .txt list (`find_images`); an array of four dimensions is
    a batch; other iterables give their items when they are asked for.

    Raises:
        DataError: no images are where a path points.
    """
    if isinstance(given, str | Path):
        return find_images([given])
    if _is_array(given):
        return iter(as_numpy(given)) if len(given.shape) == 4 else [given]
    if isinstance(given, Iterable) and not isinstance(given, bytes | bytearray | memoryview | Mapping):
        return [given] if _is_open(given) else given
    return [given]


def as_image(given: ImageLike, options: Options) -> NDArray[np.uint8]:
    """One image as uint8 [h, w, 3] RGB.

    Raises:
        DataError: it is none, or of a kind that `options` says nothing about; says what was expected.
    """
    if isinstance(given, str | Path):
        refuse_address(given)
        return read_image(given)
    if isinstance(given, bytes | bytearray | memoryview):
        return decode_image(bytes(given), name=f"image of {len(given)} bytes")
    if _is_open(given):
        return _from_file(given)
    if hasattr(given, "getexif"):
        return _from_array(from_pillow(given), of_read_images(options))  # Pillow knows its channels
    if _is_array(given):
        return _from_array(as_numpy(given), options)
    if callable(given):
        return as_image(given(), options)
    raise DataError(
        f"an image cannot be a {type(given).__name__}; expected a file, its bytes, an array [h, w, 3] or an image of "
        "Pillow"
    )


def of_read_images(options: Options) -> Options:
    """The same for images that `as_image` gave: what it says of arrays was heeded."""
    return replace(options, bgr=False, channels_first=False, unit_range=False)


def reader(given: ImageLike, image: NDArray[np.uint8], options: Options) -> Callable[[], NDArray[np.uint8]]:
    """What gives the image again: from its file, bytes or function, so that it need not be kept; else it is kept."""
    if isinstance(given, str | Path | bytes) or (callable(given) and not _is_open(given)):
        return partial(as_image, given, options)
    return lambda: image


def path_of(given: ImageLike) -> Path | None:
    """The file that an image is in, if it is named."""
    return Path(given) if isinstance(given, str | Path) else None


def as_numpy(array: Any) -> NDArray[Any]:
    """An array of any library on the host.

    Raises:
        DataError: its library cannot hand it over, as of a tensor on a GPU.
    """
    try:
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"an image of type {type(array).__name__} does not convert to numpy ({reason}); move it to the host first"
        ) from error


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array__") and hasattr(given, "shape") and not hasattr(given, "getexif")


def _is_open(given: Any) -> bool:
    return callable(getattr(given, "read", None)) and not hasattr(given, "getexif")


def _from_file(opened: Any) -> NDArray[np.uint8]:
    name = str(getattr(opened, "name", "") or f"image from a {type(opened).__name__}")
    if hasattr(opened, "encoding"):
        raise DataError(f"{name}: is open as text; open it with mode 'rb'")
    return decode_image(bytes(opened.read()), name=name)


def _from_array(array: NDArray[Any], options: Options) -> NDArray[np.uint8]:
    """Arrays as `ImageLike` says, uint8 [h, w, 3] RGB; a view where nothing changes."""
    got = f"got {array.dtype} {list(array.shape)}"
    if not array.size or array.ndim not in (2, 3):
        raise DataError(f"an image must be an array [h, w, 3], several [B, h, w, 3], {got}")
    if array.ndim == 2:
        array = array[..., None]
    elif options.channels_first:
        array = array.transpose(1, 2, 0)
    if array.shape[2] not in _CHANNELS:
        first = "True: leave it out" if options.channels_first else "False: give True for arrays [3, h, w]"
        raise DataError(
            f"an image must have 1, 3 or 4 channels in the last axis, [h, w, 3], {got}; channels_first is {first}"
        )
    pixels = _eight_bits(array, got, options)
    pixels = pixels[..., :3] if pixels.shape[2] > 1 else np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., ::-1] if options.bgr else pixels)


def _eight_bits(array: NDArray[Any], got: str, options: Options) -> NDArray[np.uint8]:
    """The values of an image as uint8; of 16 bits the upper eight, as OpenCV reads files."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not _is_float(array):
        raise DataError(f"an image must be uint8 or uint16, {got}; values of 0 to 255 convert by .astype(numpy.uint8)")
    if not options.unit_range:
        raise DataError(
            f"an image must be uint8 [h, w, 3] RGB, {got}; give unit_range=True where its values are 0 to 1, or "
            "convert values of 0 to 255 by .round().astype(numpy.uint8)"
        )
    values = array.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise DataError(f"an image with unit_range=True must have values from 0 to 1, got {low:g} to {high:g}")
    return np.rint(values * 255).astype(np.uint8)


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or str(array.dtype) == "bfloat16"
