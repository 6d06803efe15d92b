"""What decodes videos, cameras and streams: OpenCV, opened with a sentence for each way in which that can fail."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.image import cv2

DEFAULT_FPS = 25.0  # of sources that do not know theirs; FFmpeg's for images without times

PLAUSIBLE_FPS = (0.01, 480.0)  # containers without a rate say 0, or the ticks of their clock: 1000, 90000
_TIMED = 32  # frames whose times give the rate of a file that does not know it
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")
EXPECTED = "expected a video file, the number of a camera, a stream such as rtsp://…, or - for standard input"


class Reader(Protocol):
    """Decodes a source frame by frame, in the thread that asks."""

    fps: float
    """Frames a second, as far as is known."""
    count: int | None
    """How many frames the source says it has."""

    def grab(self) -> bool:
        """Goes to the next frame; False if there is none, or if it is damaged."""
        ...

    def image(self) -> NDArray[np.uint8] | None:
        """The frame, uint8 [h, w, 3] RGB, upright; None if it is damaged."""
        ...

    def seconds(self) -> float | None:
        """When the frame is shown; None if the source has no times."""
        ...

    def close(self) -> None:
        """Lets go of the source."""
        ...


OpenCapture = Callable[[int | str, float], Any]
"""Opens a camera or an address, with seconds to wait for it: `cv2.VideoCapture`, or what acts like it."""


def open_capture(source: int | str, timeout: float) -> Any:
    """OpenCV's capture of a camera (a number or a device) or of what FFmpeg opens (a file, an address)."""
    if isinstance(source, int) or source.startswith("/dev/"):
        return cv2.VideoCapture(source)
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    if not has_ffmpeg or not _URL.match(source):
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
    wait = round(1000 * timeout)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)


class CaptureReader:
    """A `Reader` of OpenCV's captures.

    OpenCV turns frames by the rotation of their container, and its times are those of the container too. PyAV reads
    the same frames at the same times from the same (also damaged) files, so that it is not needed here.
    """

    def __init__(self, capture: Any) -> None:
        """Takes a capture that is open."""
        self.capture = capture
        self.bgr: NDArray[np.uint8] | None = None  # written anew by each frame: what is new has to be mapped first
        claimed = capture.get(cv2.CAP_PROP_FPS)
        self.fps = claimed if is_plausible(claimed) else DEFAULT_FPS
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if 0 < count < 1e9 and is_plausible(claimed) else None

    def grab(self) -> bool:
        """Goes to the next frame; False if there is none, or if it is damaged."""
        return bool(self.capture.grab())

    def image(self) -> NDArray[np.uint8] | None:
        """The frame, uint8 [h, w, 3] RGB, upright; None if it is damaged."""
        done, self.bgr = self.capture.retrieve(self.bgr)
        return cv2.cvtColor(self.bgr, cv2.COLOR_BGR2RGB) if done else None

    def seconds(self) -> float | None:
        """When the frame is shown; None if the source has no times."""
        seconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return seconds if math.isfinite(seconds) else None

    def close(self) -> None:
        """Lets go of the source."""
        self.capture.release()


def is_plausible(fps: float) -> bool:
    """Whether a rate can be one of frames a second (and is a number at all)."""
    return PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1]


def is_camera(source: int | str | Path) -> bool:
    """Whether a source is the number of a camera or a device."""
    return re.fullmatch(r"[0-9]+|/dev/video[0-9]+", str(source)) is not None


def is_address(source: int | str | Path) -> bool:
    """Whether a source is the address of a stream, such as rtsp://a.b/c."""
    return _URL.match(str(source)) is not None


def name_of(source: int | str | Path) -> str:
    """What a source is called in sentences: an address without its password."""
    text = str(source)
    if text.isdecimal():
        return f"camera {text}"
    return "standard input" if text == "-" else _PASSWORD.sub(r"\1:***@", text)


def open_camera(source: int | str, timeout: float, opening: OpenCapture = open_capture) -> CaptureReader:
    """A camera of this machine.

    Raises:
        DataError: it is not there, or something else uses it.
    """
    capture = opening(int(source) if str(source).isdecimal() else source, timeout)
    if not capture.isOpened():
        raise DataError(
            f"{name_of(source)}: cannot be opened; connect it, close what else uses it, or try another number "
            "(Linux lists cameras as /dev/video*)",
            kind="missing camera",
        )
    return CaptureReader(capture)


def open_address(source: str, timeout: float, opening: OpenCapture = open_capture) -> CaptureReader:
    """A stream, or a video file on a server.

    Raises:
        DataError: nothing answers there in time, or not with a video.
    """
    capture = opening(source, timeout)
    if not capture.isOpened():
        raise DataError(
            f"{name_of(source)}: no video comes from there within {timeout:g} s; check the address, the password "
            "and the network, for example in a player such as VLC",
            kind="missing stream",
        )
    return CaptureReader(capture)


def open_file(path: Path) -> CaptureReader:
    """A video file; one that does not know its rate gets that of its first frames.

    Raises:
        DataError: it is not there, is empty, is cut short before its index, or is no video that OpenCV reads.
        OSError: it may not be read.
    """
    _check_file(path)
    capture = open_capture(str(path.absolute()), 0.0)  # FFmpeg takes "12:30.mp4" for an address
    if not capture.isOpened():
        raise _unreadable(path)
    reader = CaptureReader(capture)
    if reader.count is None:
        reader.fps = _measured_fps(path) or DEFAULT_FPS
    return reader


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: is not there; {EXPECTED}", kind="missing video")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; {EXPECTED}", kind="unreadable video")
    with path.open("rb") as file:
        start = file.read(1)
    if not start:
        raise DataError(f"{path}: is empty; copy or download it again", kind="empty video")


def _unreadable(path: Path) -> DataError:
    if _lacks_index(path):
        return DataError(
            f"{path}: is cut short: the index at its end (moov) is missing, without which nothing can be decoded; "
            "copy or download it again, or repair a recording that was broken off with a tool such as untrunc",
            kind="truncated video",
        )
    return DataError(
        f"{path}: OpenCV finds no video in it that it can decode; if a player shows one, convert it: "
        f"ffmpeg -i '{path}' -c:v libx264 -pix_fmt yuv420p new.mp4",
        kind="unreadable video",
    )


def _lacks_index(path: Path) -> bool:
    """Whether a file of the MP4 family ends before its index: its boxes have their lengths before them."""
    at, size, kinds = 0, path.stat().st_size, []
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            kinds.append(head[4:8])
            if length == 1:  # it is in the next eight bytes
                length = int.from_bytes(head[8:16], "big")
            if length < 8 or kinds[0] not in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
                break
            at += length
    return kinds[:1] == [b"ftyp"] and (b"moov" not in kinds or (kinds[-1] == b"moov" and at > size))


def _measured_fps(path: Path) -> float | None:
    """From the times of the first frames, the median distance."""
    reader = CaptureReader(open_capture(str(path.absolute()), 0.0))
    times = [seconds for _ in islice(iter(reader.grab, False), _TIMED) if (seconds := reader.seconds()) is not None]
    reader.close()
    distances = [after - before for before, after in pairwise(times) if after > before]
    return 1 / statistics.median(distances) if distances else None
