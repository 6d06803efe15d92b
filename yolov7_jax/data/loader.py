"""Batches made ahead of their use: whichever and however many the workers are, the batch of a step is the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from multiprocessing import get_context
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.pipeline import Pipeline, TrainingRow
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.image import cv2, opencv_threads
from yolov7_jax.prefetch import prefetch, prefetch_by
from yolov7_jax.types import Batch

IDLE = -1
"""Where a worker's epoch and position stand while it makes no sample."""


class Loader:
    """The batches of a pipeline from any step on; where it stands is the number of the step and nothing else.

    Args:
        pipeline: makes the rows.
        workers: how many threads or processes make them; 0: the thread that asks for them.
        processes: the workers are processes, which need a script that can be imported; else threads.
        host: number of this host and of all hosts. Each makes its rows of every batch: the first its first part, ….
        ahead: batches that may be waiting or in the making.

    Raises:
        InputError: a batch cannot be shared evenly by the hosts, or there is a negative number of workers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        workers: int,
        processes: bool = False,
        host: tuple[int, int] = (0, 1),
        ahead: int = 2,
    ) -> None:
        if workers < 0:
            raise InputError(f"data.workers is {workers}; expected 0 or more")
        if pipeline.batch_size % host[1]:
            raise InputError(
                f"train.batch_size is {pipeline.batch_size}, which {host[1]} hosts cannot share; use a multiple"
            )
        self._pipeline = pipeline
        self._workers = workers
        self._processes = processes
        self._host = host[0]
        self._rows_here = pipeline.batch_size // host[1]
        self._ahead = ahead
        self._errors: dict[str, None] = {}

    def with_repeats(self, repeats: NDArray[np.float64]) -> Loader:
        """One of the same images that occur otherwise: [images] how often in an epoch on average."""
        pipeline = replace(self._pipeline, repeats=repeats)
        hosts = pipeline.batch_size // self._rows_here
        return Loader(
            pipeline, workers=self._workers, processes=self._processes, host=(self._host, hosts), ahead=self._ahead
        )

    @property
    def errors(self) -> tuple[str, ...]:
        """Why images of the batches so far were gray, each sentence once."""
        return tuple(self._errors)

    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of the steps `start`, `start` + 1, … without end, with this host's rows.

        Close it (`with contextlib.closing(...)`) to end its workers; what they have made ahead is dropped.

        Raises:
            DataError: an image cannot be used, or a worker died; names the files it was at work on.
        """
        with closing(self._rows(start)) as rows:
            while True:
                made = list(islice(rows, self._rows_here))
                self._errors.update((error, None) for row in made for error in row.errors)
                yield _stacked([row.sample for row in made])

    def _slots(self, start: int) -> Iterator[tuple[int, int]]:
        """Epoch and position of every row of this host."""
        for step in count(start):
            epoch, within = divmod(step, self._pipeline.steps)
            first = within * self._pipeline.batch_size + self._host * self._rows_here
            for position in range(first, first + self._rows_here):
                yield epoch, position

    def _rows(self, start: int) -> Generator[TrainingRow, None, None]:
        slots = self._slots(start)
        ahead = max(self._ahead * self._rows_here, self._workers)
        if self._workers == 0:
            yield from (self._pipeline.row(*slot) for slot in slots)
        elif self._processes:
            yield from self._rows_by_processes(slots, ahead)
        else:
            with opencv_threads(1):  # ours are enough; theirs would take turns
                yield from prefetch(lambda slot: self._pipeline.row(*slot), slots, workers=self._workers, ahead=ahead)

    def _rows_by_processes(self, slots: Iterator[tuple[int, int]], ahead: int) -> Generator[TrainingRow, None, None]:
        context = get_context("spawn")  # a fork would copy locks that other threads hold
        at_work = context.RawArray("q", [IDLE] * 2 * self._workers)
        arguments = (self._pipeline, at_work, context.Value("i", 0))
        pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=begin, initargs=arguments)
        try:
            yield from prefetch_by(pool, make_row, slots, ahead=ahead)
        except BrokenExecutor as error:
            raise DataError(self._epitaph(at_work)) from error

    def _epitaph(self, at_work: Sequence[int]) -> str:
        """What to say of workers that died, from the epochs and positions that they were at work on."""
        slots = [(at_work[at], at_work[at + 1]) for at in range(0, len(at_work), 2) if at_work[at] != IDLE]
        if not slots:
            return (
                "a worker process ended by itself, its last words are above; run from a script that begins with "
                "`if __name__ == '__main__':`, or make the workers threads (data.processes=false)"
            )
        source = self._pipeline.source
        files = " or ".join(sorted({str(source.path(self._pipeline.index(*slot))) for slot in slots}))
        return (
            f"{files}: a worker process died while it made a sample around this image; if the machine ran out of "
            "memory, use fewer workers (data.workers) or threads (data.processes=false), else leave the image out"
        )


def _stacked(rows: Sequence[Any]) -> Any:
    """Tuples of arrays as one such tuple with a first axis more; None stays."""
    if isinstance(rows[0], tuple):
        return type(rows[0])(*map(_stacked, zip(*rows, strict=True)))
    return None if rows[0] is None else np.stack(rows)


_in_process: list[Callable[[tuple[int, int]], TrainingRow]] = []  # what makes the rows in this worker process


def begin(pipeline: Pipeline, at_work: Any, begun: Any) -> None:
    """Makes a worker of this process.

    Args:
        pipeline: makes the rows.
        at_work: shared, epoch and position of what each worker makes.
        begun: shared, how many workers have begun.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one who asked ends the others
    Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # there are other workers
    with begun.get_lock():
        place = slice(2 * begun.value, 2 * begun.value + 2)
        begun.value += 1

    def row(slot: tuple[int, int]) -> TrainingRow:
        at_work[place] = slot
        try:
            return pipeline.row(*slot)
        finally:
            at_work[place] = (IDLE, IDLE)

    _in_process.append(row)


def make_row(slot: tuple[int, int]) -> TrainingRow:
    """The row of an epoch and position, in a process that has begun."""
    return _in_process[0](slot)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
