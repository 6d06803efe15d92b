"""Frames as a source gives them: files to their end in spite of damage, live sources for as long as they come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from threading import Event

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.inference.captures import Reader

Tell = Callable[[str], None]
"""Takes a sentence on what went wrong but ends nothing."""

_MOST_DAMAGED = 1000  # frames in a row, after which a file is taken to be at its end
_MOST_DAMAGED_LIVE = 30  # and a stream to have broken off
_WAITED = 1.0  # seconds after which what could not be read was not damaged, but did not come
_SHORT = 0.02  # of the length; what files say of it may be wrong by so much, or by a frame
_LONGEST_PAUSE = 30.0  # seconds between tries to take up a stream again


@dataclass(frozen=True, slots=True)
class Frame:
    """A moving image's image: uint8 [h, w, 3] RGB, upright.

    index: its number in the source, from 0; frames that were left out or dropped leave gaps. seconds: from the start,
    by the times in the file; of live sources when it came, of images without times by the rate.
    """

    image: NDArray[np.uint8]
    index: int
    seconds: float


def recorded(reader: Reader, name: str, *, every: int, tell: Tell) -> Generator[Frame, None, None]:
    """Each n-th frame of a file or a pipe; closes the reader in the end.

    Frames that cannot be decoded are left out; at the end a sentence tells of them, or that the file is cut short.

    Raises:
        DataError: no frame can be decoded.
    """
    seconds, last, good, bad = -1 / reader.fps, -1, 0, 0
    try:
        while (damaged := _to_next(reader, min((reader.count or 0) - last, _MOST_DAMAGED))) is not None:
            seconds = _later(reader, seconds, damaged + 1)
            last, bad = last + damaged + 1, bad + damaged
            if last % every:
                continue
            image = reader.image()
            if image is None:
                bad += 1
            else:
                good += 1
                yield Frame(image, last, seconds)
    finally:
        reader.close()
    if not good:
        raise DataError(
            f"{name}: no frame of it can be decoded; see that it is whole, or convert it to H.264 in .mp4",
            kind="unreadable video",
        )
    if bad:
        tell(f"{name}: left out {bad} of {last + 1} frames, which cannot be decoded; copy or download it again")
    if _is_short(reader, last + 1, seconds):
        tell(
            f"{name}: ends at frame {last} ({seconds:.2f} s), of about {reader.count} that it should have: it is cut "
            "short or damaged, so copy or download it again; all frames before have been read"
        )


def _to_next(reader: Reader, tries: int) -> int | None:
    """How many damaged frames were left out before the next one, of which OpenCV says what it says at the end: no."""
    for damaged in range(max(tries, 1)):
        started = time.monotonic()
        if reader.grab():
            return damaged
        if time.monotonic() - started > _WAITED:
            return None
    return None


def _later(reader: Reader, before: float, steps: int) -> float:
    """The time of a frame; by the rate where the source has no times, or they stand still."""
    seconds = reader.seconds()
    return seconds if seconds is not None and seconds > max(before, 0.0) else max(before + steps / reader.fps, 0.0)


def _is_short(reader: Reader, frames: int, seconds: float) -> bool:
    """Whether frames are missing at the end, by number and by time: of a rate that varies the number is a guess."""
    if reader.count is None:
        return False
    length = reader.count / reader.fps
    is_early = seconds + 1 / reader.fps < length * (1 - _SHORT) - 1 / reader.fps
    return frames < reader.count * (1 - _SHORT) - 1 and is_early


@dataclass(frozen=True)
class Comeback:
    """How a live source that broke off is taken up again: tries in a row, with pauses that double."""

    connect: Callable[[], Reader]
    name: str
    stopped: Event
    tries: int
    pause: float
    tell: Tell

    def __call__(self, index: int) -> Reader | None:
        """A reader that is at its first frame, after a frame number at which the source broke off; None at the end.

        Raises:
            DataError: it did not come back.
        """
        if not self.tries:
            self.tell(f"{self.name}: ended at frame {index}")
            return None
        for number in range(1, self.tries + 1):
            pause = min(self.pause * 2 ** (number - 1), _LONGEST_PAUSE)
            self.tell(
                f"{self.name}: broke off at frame {index}; tries again in {pause:g} s (try {number} of {self.tries})"
            )
            if self.stopped.wait(pause):
                return None
            reader = self._tried()
            if reader is not None:
                self.tell(f"{self.name}: is back")
                return reader
        raise DataError(
            f"{self.name}: broke off at frame {index} and did not come back in {self.tries} tries; see whether it "
            "still sends, or allow more of them",
            kind="stream broke off",
        )

    def _tried(self) -> Reader | None:
        try:
            reader = self.connect()
        except DataError:
            return None
        if reader.grab():
            return reader
        reader.close()
        return None


def live(
    reader: Reader, name: str, *, every: int, again: Callable[[int], Reader | None]
) -> Generator[Frame, None, None]:
    """Each n-th frame of a live source at the time it comes, over all that `again` gives when it breaks off.

    Raises:
        DataError: no frame came, or it broke off for good.
    """
    current: Reader | None = reader
    started = time.monotonic()
    try:
        for index in count():
            assert current is not None
            if _to_next(current, _MOST_DAMAGED_LIVE) is None:
                if index == 0:
                    raise DataError(f"{name}: answers but sends no frame; see whether it works in a player such as VLC")
                current.close()
                current = again(index)
                if current is None:
                    return
            image = current.image() if index % every == 0 else None
            if image is not None:
                yield Frame(image, index, time.monotonic() - started)
    finally:
        if current is not None:
            current.close()
