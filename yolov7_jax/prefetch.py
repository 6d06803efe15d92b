"""Work done ahead of its use by threads or processes, in order and within bounds."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, suppress
from threading import get_native_id
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ProgressBar = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows the progress of something of known length while handing it on."""

READER_THREADS = 8  # they wait for the disk
_AHEAD = 8  # results for each of them
_NICENESS = 10  # what `nice` adds


def no_progress(items: Iterable[Any], total: int) -> Iterable[Any]:  # noqa: ARG001
    """Shows nothing."""
    return items


def of_each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int = READER_THREADS,
    progress: ProgressBar = no_progress,
) -> Iterator[Result]:
    """`function` of each item, in order, by threads that are a little ahead; for files that are read."""
    with closing(prefetch(function, items, workers=workers, ahead=_AHEAD * workers)) as results:
        yield from progress(results, len(items))


def give_way() -> None:
    """From here on the thread that calls it works where cores are free, as far as the system can do so (Linux).

    For what is done beside a network: on a CPU each operation of that waits for the last of its threads, so one core
    taken for a moment holds up all of them.
    """
    if sys.platform == "linux":  # where threads have priorities of their own
        thread = get_native_id()
        with suppress(OSError):  # a sandbox may not know of priorities
            os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), _NICENESS))


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int, beside: bool = False
) -> Generator[Result, None, None]:
    """`function` of each item, in order, computed by threads before it is asked for.

    Items may be endless: they are drawn, in the caller's thread, when there is room for one more. What `function` or
    the drawing of an item raises comes when that item's turn comes, and ends the iteration. When the caller stops
    early (`close`, or the end of its loop and of the iterator), what has not begun is dropped, and what has is waited
    for.

    Args:
        function: called by several threads at once.
        items: what to call it with.
        workers: how many threads, at least 1.
        ahead: how many results may be waiting or in the making, at least 1; more than `workers` keeps all busy.
        beside: the threads give way to others, see `give_way`.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch", initializer=give_way if beside else None)
    return prefetch_by(pool, function, items, ahead=ahead)


def prefetch_by(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Generator[Result, None, None]:
    """`prefetch` by workers of another kind, which end with the iteration."""
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    return _prefetched(pool, function, iter(items), ahead)


def _prefetched(
    pool: Executor, function: Callable[[Item], Result], items: Iterator[Item], ahead: int
) -> Generator[Result, None, None]:
    pending: deque[Future[Result]] = deque()
    exhausted = False
    try:
        while True:
            while not exhausted and len(pending) < ahead:
                try:
                    pending.append(pool.submit(function, next(items)))
                except StopIteration:
                    exhausted = True
                except Exception as error:  # it belongs to this item, not to an earlier one that is asked for now
                    pending.append(_failed(error))
                    exhausted = True
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
