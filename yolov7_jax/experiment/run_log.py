"""What a run told, kept in its folder with the time."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from yolov7_jax.training.callbacks import LOGGER, Callback, RunInfo, described

RUN_LOG = "run.log"
"""In the folder of a run: all that it told, with the time."""


class RunLog(Callback):
    """Keeps in run.log what is told, what ends the run, and which callbacks fail.

    What cannot be written now comes with the next.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._waiting, self._began = folder / RUN_LOG, "", False
        self._handler = _Handler(self)

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`. The folder is that of a run from here on."""
        self._began = True
        LOGGER.addHandler(self._handler)
        self.log(f"begins, {run.steps} iterations" if run.step == 0 else f"resumed after {run.step} iterations")

    def log(self, text: str) -> None:
        """See `Callback`."""
        lines = text.replace("\n", "\n    ")
        self._waiting += f"{datetime.now():%Y-%m-%d %H:%M:%S}  {lines}\n"
        if self._began:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(self._waiting)
            self._waiting = ""

    def on_end(self, step: int, *, finished: bool) -> None:
        """See `Callback`."""
        self.log(f"{'finished' if finished else 'left'} after {step} iterations")
        LOGGER.removeHandler(self._handler)

    def on_fault(self, error: BaseException) -> None:
        """See `Callback`."""
        LOGGER.removeHandler(self._handler)
        self.log(f"broken off: {described(error)}")


class _Handler(logging.Handler):
    """Hands on what `Callbacks` report of one that failed."""

    def __init__(self, target: RunLog) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._target.log(record.getMessage())
