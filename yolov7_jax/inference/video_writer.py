"""Frames into a video file: encoded in a thread of its own, whole or not there, playable also when it is broken off."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError, InstallationError
from yolov7_jax.image import cv2
from yolov7_jax.inference.av_encoder import AvEncoder, can_encode
from yolov7_jax.inference.captures import PLAUSIBLE_FPS, is_plausible
from yolov7_jax.prefetch import give_way

_OPENCV = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "XVID"}  # tags of MPEG-4
WRITTEN_SUFFIXES = frozenset({*_OPENCV, ".webm"})
_AHEAD = 4  # frames that wait for the encoder at most


class VideoWriter:
    """Writes RGB frames, uint8 [h, w, 3], to .mp4, .m4v, .mov, .mkv, .avi or .webm, without sound.

    With PyAV (extra `video`) as H.264, .webm as VP9; without it, and in .avi, as MPEG-4 by OpenCV, which few browsers
    play, and no .webm.

    A context manager. Frames go to NAME.part.ENDING, which gets its name when the block is left or with `close`: also
    after an error or Ctrl-C, with all frames until then. The first frame gives the size; an odd width or height gets
    one more column or row, a copy of the last, and frames of another size are resized. Encoding runs in a thread of
    its own, at most four frames behind.

    count: frames written so far. sentence: what was written, after `close`.
    """

    def __init__(self, path: Path | str, *, fps: float) -> None:
        """Opens nothing yet: the first frame does.

        Raises:
            DataError: the ending names no format that can be written, or the rate is no rate of frames.
            InstallationError: .webm without PyAV.
        """
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in WRITTEN_SUFFIXES:
            raise DataError(
                f"{path}: videos cannot be written as '{suffix}'; use {', '.join(sorted(WRITTEN_SUFFIXES))}"
            )
        if not is_plausible(fps):
            raise DataError(
                f"{path}: {fps} frames a second cannot be written; expected {PLAUSIBLE_FPS[0]} to {PLAUSIBLE_FPS[1]}"
            )
        if suffix not in _OPENCV and not can_encode(suffix):
            raise InstallationError(
                f"{path}: '{suffix}' is written by PyAV; pip install 'yolov7-jax[video]', or use .mp4"
            )
        self.fps = fps
        self.count = 0
        self.sentence = ""
        self._encoding: _Encoding | None = None
        self._last: NDArray[np.uint8] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="video-writer", initializer=give_way)
        self._pending: deque[Future[None]] = deque()

    def write(self, image: NDArray[np.uint8], *, seconds: float | None = None) -> None:
        """Adds a frame, which must not be changed afterwards.

        seconds: when it is shown, for sources whose frames come at uneven times or were dropped: the frame before is
        repeated up to then, and a frame that comes earlier than the rate has room for is left out. By default frames
        follow each other at the rate.

        Raises:
            DataError: the file cannot be written.
        """
        missing = 0 if seconds is None else round(seconds * self.fps) - self.count
        if self._encoding is None:
            self._encoding = _Encoding(self.path, self.fps, image.shape[:2])
        for _ in range(missing):
            self._put(self._encoding, image if self._last is None else self._last)
        if missing >= 0:
            self._put(self._encoding, image)
            self._last = image

    def _put(self, encoding: _Encoding, image: NDArray[np.uint8]) -> None:
        if len(self._pending) >= _AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(encoding.write, image))
        self.count += 1

    def __enter__(self) -> VideoWriter:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file: after an error too, so that what was written can be played."""
        self.close()

    def close(self) -> None:
        """Waits for the encoder, and gives the file its name; without frames there is no file.

        Raises:
            DataError: not all frames arrived in it; it keeps the name of a part.
        """
        encoding, self._encoding = self._encoding, None
        self._pool.shutdown(wait=True)
        if encoding is None:
            return
        encoding.close()
        height, width = encoding.shape
        self.sentence = (
            f"{self.path}: {self.count} frames, {width} × {height} pixels, {self.fps:g} a second, "
            f"{encoding.encoder.codec}, without sound"
        )


class _Encoder(Protocol):
    """Encodes RGB frames of one even size into a file; raises OSError where it cannot."""

    codec: str

    def write(self, image: NDArray[np.uint8]) -> None: ...

    def close(self) -> None: ...


class _Encoding:
    """A file that is being written: frames are brought to its size, and it gets its name in the end."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, int]) -> None:
        self.path, self.given = path, shape
        self.part = path.with_name(f"{path.stem}.part{path.suffix}")
        self.shape = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            self.part.touch()
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
        kind: type[AvEncoder | _OpenCVEncoder] = AvEncoder if can_encode(path.suffix.lower()) else _OpenCVEncoder
        try:
            self.encoder: _Encoder = kind(self.part, fps, self.shape)
        except OSError as error:
            self.part.unlink(missing_ok=True)
            size = f"{self.shape[1]} × {self.shape[0]} pixels"
            raise DataError(f"{path}: no encoder here takes {size}; use .avi or another size") from error

    def write(self, image: NDArray[np.uint8]) -> None:
        if image.shape[:2] != self.given:
            image = cv2.resize(image, self.given[::-1], interpolation=cv2.INTER_AREA)
        bottom, right = self.shape[0] - self.given[0], self.shape[1] - self.given[1]
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        try:
            self.encoder.write(image)
        except OSError as error:
            raise self._disk_full() from error

    def close(self) -> None:
        """Gives the file its name."""
        try:
            self.encoder.close()
        except OSError as error:
            raise self._disk_full() from error
        self.part.replace(self.path)

    def _disk_full(self) -> DataError:
        return DataError(
            f"{self.path}: not all frames could be written (what could stands in {self.part.name}); see whether the "
            "disk is full, make room and start again"
        )


class _OpenCVEncoder:
    """MPEG-4 by OpenCV."""

    codec = "MPEG-4"

    def __init__(self, part: Path, fps: float, shape: tuple[int, int]) -> None:
        self.part = part
        tag = cv2.VideoWriter.fourcc(*_OPENCV[part.suffix.lower()])
        self.writer = cv2.VideoWriter(str(part.absolute()), tag, fps, shape[::-1])
        if not self.writer.isOpened():
            raise OSError("cannot be opened")
        self.count = 0

    def write(self, image: NDArray[np.uint8]) -> None:
        self.writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        """Ends the file, and looks for its last frame: OpenCV does not tell of what it could not write."""
        self.writer.release()
        capture = cv2.VideoCapture(str(self.part.absolute()))
        is_whole = capture.isOpened() and capture.set(cv2.CAP_PROP_POS_FRAMES, self.count - 1) and capture.grab()
        capture.release()
        if not is_whole:
            raise OSError(f"not all of {self.count} frames arrived")
