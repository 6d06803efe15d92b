"""What several processes that work together tell each other, on one host or many: the door to JAX's collectives.

Where there is one process, everything here does nothing and takes no time. Whatever is said to be done by all has to be
called by all processes, in the same order: each tells the others by one `gather` of bytes.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from yolov7_jax import files
from yolov7_jax.errors import GoneError, InputError
from yolov7_jax.training.callbacks import Callback, described
from yolov7_jax.training.checkpoint import wait_for_all
from yolov7_jax.training.stop import Stopped

T = TypeVar("T")

_LOGGER = logging.getLogger("yolov7_jax")

_PATIENCE_S = 24 * 3600  # evaluations may be long
_WAITS = count()
_SEEN_WITHIN_S = 10.0  # that a file of another host is there, on a network file system
_LEAST, _MOST = 2**10, 2**22  # bytes that a process sends at once
_LEFT = re.compile("[Cc]onnection (reset|closed)")
_ROUND = 64  # items of a share, after which processes hear of each other

_SHARES: ContextVar[bool] = ContextVar("shares", default=True)


def place() -> tuple[int, int]:
    """The number of this process and of all."""
    return (jax.process_index(), jax.process_count()) if _SHARES.get() else (0, 1)


def is_first() -> bool:
    """Whether this is the process that writes and reports."""
    return place()[0] == 0


@contextmanager
def sharing(shared: bool) -> Iterator[None]:
    """Work that all processes share, or else that this one does as if there were no other."""
    token = _SHARES.set(shared and _SHARES.get())
    try:
        yield
    finally:
        _SHARES.reset(token)


def report(text: str, callbacks: Callback) -> None:
    """Reports what this process alone knows; where it is not the first, nothing looks on."""
    if is_first():
        callbacks.log(text)
    else:
        _LOGGER.warning("process %d: %s", place()[0], text)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Ends the work on all processes where it fails, or is to stop, on one.

    Raises:
        InputError: it failed elsewhere; names the process and says why. Stopped: a signal asked one of them.
        GoneError: another was broken off.
    """
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        if place()[1] > 1:
            _end_together(failed)


def _end_together(own: BaseException | None) -> None:
    """Raises what others tell, unless this process has worse to raise itself."""
    signal = own.signal if isinstance(own, Stopped) else 0
    reason = described(own) if isinstance(own, Exception) else ""
    broken_off = type(own).__name__ if own is not None and not isinstance(own, Exception) else ""
    told = [json.loads(text) for text in gather(json.dumps([broken_off, signal, reason]).encode())]
    all_broken_off, all_signals, all_reasons = zip(*told, strict=True)
    if broken_off:
        return
    for number, name in enumerate(all_broken_off):
        if name:
            raise GoneError(f"process {number} was broken off: {name}")
    if any(all_signals):
        raise Stopped(max(all_signals))
    for number, text in enumerate(all_reasons):
        if text and own is None:
            raise InputError(f"process {number}: {text}")


@contextmanager
def or_gone() -> Iterator[None]:
    """Says in a sentence what JAX says of a computation in common that another process has left.

    Raises:
        GoneError: it has ended.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if place()[1] == 1 or not _LEFT.search(str(error)):
            raise
        raise GoneError.told_by(error) from error


def gather(content: bytes) -> list[bytes]:
    """What all processes give, in their order. All wait for the last one, as long as it takes.

    Raises:
        GoneError: another process has ended.
    """
    if place()[1] == 1:
        return [content]
    with or_gone():
        return _gather(content)


def _gather(content: bytes) -> list[bytes]:
    wait_for_all(f"yolov7_jax-{next(_WAITS)}", _PATIENCE_S)  # a device would not wait for minutes
    sizes = multihost_utils.process_allgather(np.int32(len(content))).reshape(-1)
    largest = int(sizes.max())
    room = min(max(_LEAST, 1 << largest.bit_length()), _MOST)  # few shapes: each is compiled
    parts = [bytearray() for _ in sizes]
    for start in range(0, largest, room):
        padded = np.zeros(room, np.uint8)
        sent = np.frombuffer(content, np.uint8)[start : start + room]
        padded[: len(sent)] = sent
        for part, row in zip(parts, multihost_utils.process_allgather(padded).reshape(-1, room), strict=True):
            part += row.tobytes()
    return [bytes(part[:size]) for part, size in zip(parts, sizes, strict=True)]


def from_first(work: Callable[[], T]) -> T:
    """What some work gives, which the first process alone does: plain values, of JSON.

    Raises:
        InputError: it failed there.
    """
    if place()[1] == 1:
        return work()
    with all_or_none():
        text = json.dumps(work()) if is_first() else ""
    value: T = json.loads(gather(text.encode())[0])
    return value


def own_share(total: int) -> range:
    """Which of so many items are this process's: they are dealt out one by one."""
    number, processes = place()
    return range(number, total, processes)


def for_own_share(work: Callable[[T], None], items: Iterable[T], total: int) -> None:
    """Work on each item of `own_share(total)`; all processes give up within a round of items once one has to.

    Raises:
        InputError: it failed elsewhere. Stopped: a signal asked one of them.
    """
    processes = place()[1]
    rounds = 1 if processes == 1 else max(1, -(-total // (processes * _ROUND)))
    items = iter(items)
    for left in reversed(range(rounds)):
        with all_or_none():
            for item in islice(items, _ROUND if left else None):
                work(item)


def arrays_of_first(tree: T) -> T:
    """Arrays as the first process has them: processors of another kind may have drawn others in their last bits."""
    if place()[1] == 1:
        return tree
    shared: T = multihost_utils.broadcast_one_to_all(tree)
    return shared


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder, which the first process makes; where the work within it fails, it does not stay empty.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(from_first(lambda: str(files.new_folder(folder.absolute() if place()[1] > 1 else folder))))
    try:
        yield folder
    except BaseException:
        if is_first():
            with suppress(OSError):
                folder.rmdir()  # if it is empty
        raise


def check_shared(folder: Path) -> None:
    """Refuses a folder that the processes do not share: writing checkpoints together would never end.

    Raises:
        InputError: a process does not see what the first one writes.
    """
    if place()[1] == 1:
        return
    token = folder / from_first(lambda: _write_token(folder))
    try:
        with all_or_none():
            if not _appears(token):
                raise InputError(
                    f"{folder}: {socket.gethostname()} does not see what the first process writes there; name a folder "
                    "on a disk that all hosts share, the same for all"
                )
    finally:
        if is_first():
            token.unlink(missing_ok=True)


def _write_token(folder: Path) -> str:
    token = folder / f".{secrets.token_hex(8)}"
    files.write_atomically(token, "")
    return token.name


def _appears(file: Path) -> bool:
    end = time.monotonic() + _SEEN_WITHIN_S
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def check_same(known: Callable[[], Mapping[str, Any]]) -> None:
    """Refuses facts (values of JSON) that are not those of the first process.

    Raises:
        InputError: names the first that differs.
    """
    if place()[1] == 1:
        return
    facts = known()
    first = from_first(lambda: facts)
    own = json.loads(json.dumps(facts))
    with all_or_none():
        for key in first:
            if first[key] != own.get(key):
                raise InputError(
                    f"{key} is {own.get(key)!r}, but {first[key]!r} in the first process; give the same to all"
                )
