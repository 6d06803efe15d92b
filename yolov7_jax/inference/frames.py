"""Moving images: frames of videos, cameras, streams and standard input, decoded ahead in a thread of their own."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Condition, Event, Thread, current_thread
from types import TracebackType

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.inference.captures import (
    EXPECTED,
    PLAUSIBLE_FPS,
    OpenCapture,
    Reader,
    is_address,
    is_camera,
    is_plausible,
    name_of,
    open_address,
    open_camera,
    open_capture,
    open_file,
)
from yolov7_jax.inference.decoding import Comeback, Frame, Tell, live, recorded
from yolov7_jax.inference.image_paths import VIDEO_SUFFIXES
from yolov7_jax.inference.image_pipe import is_pipe, open_pipe
from yolov7_jax.prefetch import give_way

_KEPT_WARNINGS = 100  # a stream that is watched for months may break off often
_LAST_READ = 2.0  # seconds that closing waits for a read of a stream that hangs


class Frames:
    """Frames of a source, in order, once; made by `open_frames`.

    An iterator and a context manager: leaving the block, or `close`, ends the thread and lets go of the source, and so
    does the end of the program. `dropped` counts frames of live sources that nobody took in time. What is told to
    `report` stands in `warnings` too (the last hundred).

    name: of the source, without passwords. fps: frames a second that come (of every nth frame: the source's by n).
    count: how many come, by what the file says, or None where nothing says so. size: (h, w) of the first. live: of a
    camera or a stream. every: only each so many-th frame comes.
    """

    def __init__(
        self,
        frames: Generator[Frame, None, None],
        *,
        name: str,
        fps: float,
        count: int | None,
        live: bool,
        every: int,
        ahead: int,
        stopped: Event,
        warnings: deque[str],
    ) -> None:
        """Draws the first frame, and the others in a thread, which ends when `stopped` is set.

        Raises:
            DataError: the first frame does not come.
        """
        first = next(frames)
        self.name, self.fps, self.count, self.live, self.warnings = name, fps, count, live, warnings
        self.size = first.image.shape[:2]
        self.every = every
        self._ahead = _Ahead(first, frames, stopped, places=ahead, drop=live)
        self._end = weakref.finalize(self, self._ahead.end)  # the thread does not know this object

    @property
    def dropped(self) -> int:
        """How many frames of a live source were left out because newer ones had come."""
        return self._ahead.dropped

    def __iter__(self) -> Iterator[Frame]:
        """Itself: frames that were taken do not come again."""
        return self

    def __next__(self) -> Frame:
        """The next frame, waiting for it.

        Raises:
            DataError: a stream broke off and did not come back.
        """
        frame = self._ahead.take()
        if frame is None:
            raise StopIteration
        return frame

    def __enter__(self) -> Frames:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Ends the thread, and lets go of the source; what was decoded ahead is forgotten."""
        self._end()


class _Ahead:
    """Frames that a thread decodes before they are asked for: so many, then it waits or drops the oldest."""

    def __init__(
        self, first: Frame, frames: Generator[Frame, None, None], stopped: Event, *, places: int, drop: bool
    ) -> None:
        self.waiting = deque([first])
        self.frames, self.stopped, self.places, self.drop = frames, stopped, places, drop
        self.dropped = 0
        self.error: BaseException | None = None
        self.done = False
        self.changed = Condition()
        self.thread = Thread(target=self._run, name="frames", daemon=True)  # a read that hangs holds up no exit
        self.thread.start()

    def _run(self) -> None:
        give_way()
        try:
            with closing(self.frames):
                while self._has_room():
                    frame = next(self.frames, None)
                    if frame is None:
                        return
                    self._put(frame)
        except BaseException as error:
            self.error = error
        finally:
            with self.changed:
                self.done = True
                self.changed.notify_all()

    def _has_room(self) -> bool:
        """Waits for room where frames are not dropped; False when no more are wanted."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped.is_set() or self.drop or len(self.waiting) < self.places)
        return not self.stopped.is_set()

    def _put(self, frame: Frame) -> None:
        with self.changed:
            if len(self.waiting) >= self.places:
                self.waiting.popleft()
                self.dropped += 1
            self.waiting.append(frame)
            self.changed.notify_all()

    def take(self) -> Frame | None:
        """The oldest; None at the end, or what the thread raised, once."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.done or self.stopped.is_set())
            if self.waiting and not self.stopped.is_set():
                self.changed.notify_all()
                return self.waiting.popleft()
            error, self.error = self.error, None
        if error is not None:
            raise error
        return None

    def stop(self) -> None:
        """No more frames are wanted."""
        self.stopped.set()
        with self.changed:
            self.waiting.clear()
            self.changed.notify_all()

    def end(self) -> None:
        """Stops, and waits for the thread: one that is inside OpenCV as Python ends would abort the process."""
        self.stop()
        if current_thread() is not self.thread:
            self.thread.join(_LAST_READ)


def open_frames(
    source: int | str | Path,
    *,
    every: int = 1,
    ahead: int = 4,
    fps: float | None = None,
    reconnects: int = 5,
    pause: float = 1.0,
    timeout: float = 10.0,
    report: Tell | None = None,
    opening: OpenCapture = open_capture,
) -> Frames:
    """Frames of a moving image; the first is decoded before this returns.

    A source is a video file; a camera (its number, or /dev/video0); the address of a stream (rtsp, http, https, tcp,
    udp, …); or "-" or a named pipe, through which JPEG or PNG images come one after another, or a video.

    Files and pipes wait for who takes their frames: nothing is dropped, at most `ahead` frames are held. Live sources
    (cameras, and addresses behind which is no file) do not wait: of `ahead` frames that nobody took the oldest is
    dropped. A file that is cut short or damaged gives what can be decoded and then a sentence to `report`.

    Args:
        source: what to read.
        every: n takes each n-th frame only.
        ahead: how many decoded frames wait at most.
        fps: frames a second, in place of what the source says (or 25, where it says nothing).
        reconnects: how many times in a row a live source that breaks off is tried again; 0 takes that for its end.
        pause: seconds before the first such try, twice as many before each further one, up to 30.
        timeout: seconds to wait for the answer, and for each frame, of a stream.
        report: is told in a sentence, in the thread that decodes, what goes wrong but ends nothing.
        opening: opens cameras and streams, in place of OpenCV.

    Raises:
        DataError: the source is not there, or no frame of it can be decoded; says which and what to do. InputError: an
            argument is out of its range.
    """
    _check_range(every=every, ahead=ahead, reconnects=reconnects, fps=fps)
    name, stopped, warnings = name_of(source), Event(), deque[str](maxlen=_KEPT_WARNINGS)

    def tell(sentence: str) -> None:
        warnings.append(sentence)
        if report is not None:
            report(sentence)

    try:
        connect = _connection(source if isinstance(source, int) else str(source), timeout, opening, tell, fps)
        reader = connect()
    except OSError as error:  # a name that is too long, or that may not be read
        raise DataError(f"{name}: cannot be read ({error.strerror}); {EXPECTED}", kind="unreadable video") from error
    is_live = is_camera(source) or (is_address(source) and reader.count is None)
    if is_live:
        again = Comeback(connect, name, stopped, tries=reconnects, pause=pause, tell=tell)
        frames = live(reader, name, every=every, again=again)
    else:
        frames = recorded(reader, name, every=every, tell=tell)
    return Frames(
        frames,
        name=name,
        fps=(fps or reader.fps) / every,
        count=None if reader.count is None else -(-reader.count // every),
        live=is_live,
        every=every,
        ahead=ahead,
        stopped=stopped,
        warnings=warnings,
    )


def is_moving(source: int | str | Path) -> bool:
    """Whether a source is one for `open_frames`, and no image."""
    suffix = Path(str(source)).suffix.lower()
    if is_address(source):
        return suffix not in IMAGE_SUFFIXES
    return is_camera(source) or is_pipe(str(source)) or suffix in VIDEO_SUFFIXES


def _check_range(*, every: int, ahead: int, reconnects: int, fps: float | None) -> None:
    for name, value, least in (("every", every, 1), ("ahead", ahead, 1), ("reconnects", reconnects, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if fps is not None and not is_plausible(fps):
        raise InputError(f"fps must be frames a second, from {PLAUSIBLE_FPS[0]} to {PLAUSIBLE_FPS[1]}, got {fps}")


def _connection(
    source: int | str, timeout: float, opening: OpenCapture, tell: Tell, fps: float | None
) -> Callable[[], Reader]:
    """Opens a source, as often as it is called."""
    if is_camera(source):
        return partial(open_camera, source, timeout, opening)
    if is_address(source):
        return partial(open_address, str(source), timeout, opening)
    if is_pipe(source):
        return partial(open_pipe, str(source), tell, fps=fps)
    return partial(open_file, Path(str(source)))
