"""The door to OpenCV and to images on disk: upright, 8-bit RGB, or one sentence that says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError, InstallationError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg would speak of bad videos too; read when it starts

try:
    import cv2
except ImportError as error:
    raise InstallationError(
        f"OpenCV cannot be imported ({error}); install opencv-python-headless in place of opencv-python, "
        "or the system's package of libGL (libgl1 on Debian and Ubuntu)"
    ) from error

# Of a bad file OpenCV would speak on stderr, beside the sentence that is raised here. The name moved in OpenCV 5.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_SCAN = 0xDA
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
UNREADABLE = "unreadable image"
_HEAD, _TAIL = 16_384, 1_024  # bytes that mostly hold all before the pixels, and the end of the image


@contextmanager
def opencv_threads(number: int) -> Iterator[None]:
    """OpenCV works with so many threads of its own meanwhile, in all threads of this process."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """The image in a file as uint8 [h, w, 3] RGB, upright by its EXIF orientation.

    Gray and palettes become RGB, transparency is dropped, 16 bits become 8.

    Raises:
        DataError: the file is missing, empty, cut short or no image.
    """
    return decode_image(_content(path), name=str(path))


def check_image(path: Path | str) -> None:
    """Raises what `read_image` would of a file that is missing, empty or cut short; of most files little is read.

    Raises:
        DataError: the file is missing, empty or cut short.
    """
    ends = _content(path, ends_only=True)
    check_content(_content(path) if _is_cut_short(ends) else ends, name=str(path))


def check_content(data: bytes, *, name: str) -> None:
    """Raises what `decode_image` would of the content of a file that is empty or cut short.

    Raises:
        DataError: the content is empty or cut short; `name` is what it is called.
    """
    if not data:
        raise DataError(f"{name}: is empty; expected an image", kind="empty image")
    if _is_cut_short(data):
        raise DataError(f"{name}: the end of the image is missing; copy or download it again", kind="truncated image")


def decode_image(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """The image in the content of a file, as `read_image` gives it; `name` is what errors call it.

    Raises:
        DataError: the content is empty, cut short or no image.
    """
    check_content(data, name=name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None  # too many pixels, for example
    if image is None:
        raise DataError(
            f"{name}: OpenCV cannot read it as an image; save it anew as JPEG or PNG, or leave it out",
            kind=UNREADABLE,
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode_image(image: NDArray[np.uint8], suffix: str, *, name: str = "the image") -> bytes:
    """The content of a file of uint8 [h, w, 3] RGB in the format that a suffix such as ".jpg" names.

    Raises:
        DataError: the format is unknown; `name` is what the image is called.
    """
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise DataError(f"{name}: images cannot be written as '{suffix}'; use .jpg or .png")
    return data.tobytes()


def write_image(path: Path | str, image: NDArray[np.uint8]) -> None:
    """Writes uint8 [h, w, 3] RGB in the format that the ending of the path names; makes the folder if need be.

    Raises:
        DataError: the format is unknown, or the file cannot be written.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, name=str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def _content(path: Path | str, *, ends_only: bool = False) -> bytes:
    if Path(path).is_dir():
        raise DataError(f"{path}: is a folder; expected an image", kind=UNREADABLE)
    try:
        with Path(path).open("rb") as file:
            if not ends_only or os.fstat(file.fileno()).st_size <= _HEAD + _TAIL:
                return file.read()
            head = file.read(_HEAD)
            file.seek(-_TAIL, os.SEEK_END)
            return head + file.read()
    except OSError as error:
        kind = "missing image" if isinstance(error, FileNotFoundError) else UNREADABLE
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected an image", kind=kind) from error


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG has no end: decoders may fill the rest of such an image with gray and say nothing."""
    if data.startswith(PNG_START):
        return PNG_END not in data
    return data.startswith(JPEG_START) and data.rfind(JPEG_END, _jpeg_scan(data)) < 0


def _jpeg_scan(data: bytes) -> int:
    """Where the compressed pixels of a JPEG begin: what comes before may hold a thumbnail with an end of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != JPEG_SCAN:
        is_padding = data[at + 1] == 0xFF
        at += 1 if is_padding else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at
