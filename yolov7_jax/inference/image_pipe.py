"""Moving images through a pipe: JPEG and PNG images one after another, or a video as FFmpeg reads it from there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.image import JPEG_START, PNG_START, decode_image
from yolov7_jax.inference.captures import DEFAULT_FPS, CaptureReader, Reader, name_of, open_capture

_CHUNK = 1 << 16  # bytes of a read
_LARGEST = 1 << 28  # bytes of an image; what is larger has no end
_IMAGE_START = re.compile(re.escape(JPEG_START) + b"|" + re.escape(PNG_START))
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # what is not part of compressed pixels
_JPEG_END = 0xD9
_USE = "expected JPEG or PNG images one after another (ffmpeg … -f image2pipe -c:v mjpeg -) or a video"


def is_pipe(source: int | str) -> bool:
    """Whether a source is standard input or a named pipe."""
    return not isinstance(source, int) and (source == "-" or Path(source).is_fifo())


def open_pipe(source: str, tell: Callable[[str], None], *, fps: float | None = None) -> Reader:
    """What comes through standard input ("-") or a named pipe; waits for its first bytes. fps: of images.

    Raises:
        DataError: nothing comes, or neither images nor a video.
    """
    name = name_of(source)
    try:
        descriptor = os.dup(sys.stdin.fileno()) if source == "-" else os.open(source, os.O_RDONLY)
    except (OSError, ValueError, AttributeError) as error:  # a program may have no standard input
        reason = error.strerror if isinstance(error, OSError) else "there is none"
        raise DataError(f"{name}: cannot be read ({reason}); {_USE}", kind="unreadable pipe") from error
    incoming = _Incoming(descriptor)
    if not incoming.has(len(PNG_START)) and not incoming.buffer:
        incoming.close()
        raise DataError(f"{name}: is empty; {_USE}", kind="empty pipe")
    if _IMAGE_START.match(incoming.buffer):
        return ImagePipe(incoming, name, tell, fps=fps or DEFAULT_FPS)
    return _video_of(incoming, name)


class _Incoming:
    """Bytes of a pipe, looked at before they are taken."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = bytearray()

    def more(self) -> bool:
        """Reads what is there, or waits for it; False at the end."""
        data = os.read(self.descriptor, _CHUNK) if len(self.buffer) < _LARGEST else b""
        self.buffer += data
        return bool(data)

    def has(self, size: int) -> bool:
        """Whether so many bytes come."""
        while len(self.buffer) < size:
            if not self.more():
                return False
        return True

    def find(self, pattern: re.Pattern[bytes], at: int) -> int | None:
        """Where a pattern of at most eight bytes begins, from a place on; None if it does not come."""
        while (match := pattern.search(self.buffer, at)) is None:
            at = max(at, len(self.buffer) - 8)
            if not self.more():
                return None
        return match.start()

    def take(self, size: int) -> bytes:
        """The first bytes, which are gone then."""
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def close(self) -> None:
        os.close(self.descriptor)


class ImagePipe:
    """A `Reader` of encoded images in a row; what is between them, or cannot be decoded, is left out."""

    count: int | None = None

    def __init__(self, incoming: _Incoming, name: str, tell: Callable[[str], None], *, fps: float) -> None:
        """Takes what comes in and begins with an image."""
        self.incoming, self.name, self.tell = incoming, name, tell
        self.fps = fps
        self.number = -1
        self.data = b""

    def grab(self) -> bool:
        """Takes the bytes of the next image; False if none comes, or not all of it."""
        start = self.incoming.find(_IMAGE_START, 0)
        if start is None:
            return False
        self.incoming.take(start)
        self.number += 1
        is_png = self.incoming.buffer.startswith(PNG_START)
        size = _png_size(self.incoming) if is_png else _jpeg_size(self.incoming)
        if size is None:
            self.tell(f"{self.name}: ends within image {self.number}, which is left out; all before have been read")
            return False
        self.data = self.incoming.take(size)
        return True

    def image(self) -> NDArray[np.uint8] | None:
        """The image, uint8 [h, w, 3] RGB, upright; None if it is damaged."""
        try:
            return decode_image(self.data, name=f"{self.name}, image {self.number}")
        except DataError:
            return None

    def seconds(self) -> float | None:
        """None: images have no times."""
        return None

    def close(self) -> None:
        """Lets go of the pipe."""
        self.incoming.close()


def _png_size(incoming: _Incoming) -> int | None:
    """How many bytes the PNG has that comes: chunks of a length, a kind, so many bytes and a checksum."""
    at = len(PNG_START)
    while incoming.has(at + 12):
        length, kind = int.from_bytes(incoming.buffer[at : at + 4], "big"), incoming.buffer[at + 4 : at + 8]
        at += length + 12
        if kind == b"IEND":
            return at
    return None


def _jpeg_size(incoming: _Incoming) -> int | None:
    """How many bytes the JPEG has that comes: segments of a length (a thumbnail may be in one), and pixels between."""
    at = 2
    while (marker := incoming.find(_JPEG_MARKER, at)) is not None:
        if incoming.buffer[marker + 1] == _JPEG_END:
            return marker + 2
        if not incoming.has(marker + 4):
            return None
        at = marker + 2 + int.from_bytes(incoming.buffer[marker + 2 : marker + 4], "big")
    return None


def _video_of(incoming: _Incoming, name: str) -> Reader:
    """A video in a pipe: FFmpeg reads it from a second pipe, after the bytes that were looked at."""
    exit_, entry = os.pipe()
    Thread(target=_hand_on, args=(incoming, entry), name="pipe", daemon=True).start()
    capture = open_capture(f"pipe:{exit_}", 0.0)
    if not capture.isOpened():
        os.close(exit_)
        raise DataError(f"{name}: neither images nor a video that can be decoded from a pipe; {_USE}")
    return _PipedVideo(capture, exit_)


def _hand_on(incoming: _Incoming, entry: int) -> None:
    """Writes what comes in to a pipe, until either ends."""
    try:
        while incoming.buffer or incoming.more():
            data = incoming.take(_CHUNK)
            while data:
                data = data[os.write(entry, data) :]
    except BrokenPipeError:
        pass  # nobody reads any more
    finally:
        os.close(entry)
        incoming.close()


class _PipedVideo(CaptureReader):
    """A video whose pipe is closed with it."""

    def __init__(self, capture: Any, exit_: int) -> None:
        super().__init__(capture)
        self.exit = exit_

    def close(self) -> None:
        """Lets go of the source."""
        super().close()
        os.close(self.exit)
