"""Leaving in good order: SIGTERM and the first Ctrl-C ask a run to save and stop, a second Ctrl-C breaks it off.

What looks on at a run can ask for its end too, which no evaluation is broken off for.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

ASKED = 1
"""In place of a signal, and below those: something that looks on at the run asked it to end."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """Work was given up because the run is to stop: a signal asked for it."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class StopSignals:
    """Whether somebody asked the run to stop; as a context it listens to signals, which the main thread alone can."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.reason = ""  # of what asked, but for signals
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
        if self.received not in (None, ASKED) and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def ask(self, reason: str) -> None:
        """Asks the run to end after the step at hand: it saves, and evaluates if it does at all."""
        if self.received is None:
            self.received, self.reason = ASKED, reason

    def check(self) -> None:
        """Gives up the work at hand if a signal asked the run to stop.

        Raises:
            Stopped: one did.
        """
        if self.received not in (None, ASKED):
            assert self.received is not None
            raise Stopped(self.received)
