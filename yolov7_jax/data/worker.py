"""What runs in a worker process of the loader; it imports no JAX."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import ExitStack
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

from yolov7_jax.data.pipeline import Pipeline, TrainingRow
from yolov7_jax.image import opencv_threads

IDLE = -1
"""Where a worker's epoch and position stand while it makes no sample."""


class _Worker:
    """A pipeline, and the place where this worker says what it is at work on."""

    def __init__(self, pipeline: Pipeline, at_work: Any, number: int) -> None:
        self._pipeline = pipeline
        self._at_work = at_work
        self._place = slice(2 * number, 2 * number + 2)

    def row(self, slot: tuple[int, int]) -> TrainingRow:
        self._at_work[self._place] = slot
        try:
            return self._pipeline.row(*slot)
        finally:
            self._at_work[self._place] = (IDLE, IDLE)


_workers: list[_Worker] = []  # the one of this process
_settings = ExitStack()  # never left


def begin(pipeline: Pipeline, at_work: Any, begun: Any) -> None:
    """Makes a worker of this process.

    Args:
        pipeline: makes the rows.
        at_work: shared, epoch and position of what each worker makes.
        begun: shared, how many workers have begun.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one who asked ends the others
    Thread(target=_end_with_parent, daemon=True).start()
    _settings.enter_context(opencv_threads(1))  # there are other workers
    with begun.get_lock():
        number = begun.value
        begun.value += 1
    _workers.append(_Worker(pipeline, at_work, number))


def make_row(slot: tuple[int, int]) -> TrainingRow:
    """The row of an epoch and position, in a process that has begun."""
    return _workers[0].row(slot)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
