"""Leaving in good order: SIGTERM and the first Ctrl-C ask a run to save and stop, a second Ctrl-C breaks it off."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopped(Exception):  # noqa: N818 - it is no error
    """Work was given up because the run is to stop: a signal asked for it."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class StopSignals:
    """Whether somebody asked the run to stop; as a context it listens to signals, which the main thread alone can."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def check(self) -> None:
        """Gives up the work at hand if the run is to stop.

        Raises:
            Stopped: it is.
        """
        if self.received is not None:
            raise Stopped(self.received)
