"""Several processes that train one network, on one host or many: the door to JAX's multi-controller runtime.

Where there is one process, everything here does nothing and takes no time. Whatever is said to be done by all has to be
called by all processes, in the same order.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from yolov7_jax.errors import InputError
from yolov7_jax.files import write_atomically
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.checkpoint import wait_for_all
from yolov7_jax.training.mesh import replicated, split
from yolov7_jax.training.stop import StopSignals
from yolov7_jax.types import Batch

T = TypeVar("T")

_LOGGER = logging.getLogger("yolov7_jax")

Search = Literal["auto", "on", "off"]
"""Whether processes that are not named are looked for: where Slurm started several, always, never."""

_FAILED = 2**16  # above the numbers of signals
_PATIENCE_S = 24 * 3600  # evaluations may be long
_WAITS = count()
_SEEN_WITHIN_S = 10.0  # that a file of another host is there, on a network file system


class Address(NamedTuple):
    """Where a process stands among all: HOST:PORT of the first one, how many there are, the number of this one."""

    coordinator: str
    processes: int
    process_id: int


def connect(address: Address | None = None, search: Search = "auto") -> None:
    """Joins the processes that train together, before anything has touched a device.

    Args:
        address: where this process stands; else it is looked for.
        search: where to look; "on" asks every kind of cluster that `jax.distributed` knows.

    Raises:
        InputError: there is no cluster, or it cannot be joined.
    """
    if address is None and (search == "off" or (search == "auto" and not _several_by_slurm())):
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        if address is None:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(*address, cluster_detection_method="deactivate")
    except (ValueError, RuntimeError, IndexError) as error:  # the last: there is no port
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the processes of this run cannot be joined ({reason}); name them: --coordinator HOST:PORT --processes N "
            "--process-id I"
        ) from error


def _several_by_slurm() -> bool:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ


def place() -> tuple[int, int]:
    """The number of this process and of all."""
    return jax.process_index(), jax.process_count()


def is_first() -> bool:
    """Whether this is the process that writes, evaluates and reports."""
    return jax.process_index() == 0


def refuse_several(what: str) -> None:
    """Refuses work that is for one process.

    Raises:
        InputError: this process has joined others.
    """
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        raise InputError(f"{what} is for one process, and {jax.process_count()} are joined; start it in one")


def report(text: str, callbacks: Callback) -> None:
    """Reports what this process alone knows; where it is not the first, nothing looks on."""
    if is_first():
        callbacks.log(text)
    else:
        _LOGGER.warning("process %d: %s", jax.process_index(), text)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Ends the work on all processes where it fails on one.

    Raises:
        InputError: it failed elsewhere; names the process and says why.
    """
    problem = ""
    try:
        yield
    except BaseException as error:
        problem = str(error) or type(error).__name__
        raise
    finally:
        if jax.process_count() > 1:
            _check(gather(problem), problem)


def _check(problems: list[str], own: str) -> None:
    for number, problem in enumerate(problems):
        if problem and not own:
            raise InputError(f"process {number}: {problem}")


def gather(text: str) -> list[str]:
    """The texts of all processes, in their order. All wait for the last one, as long as it takes."""
    wait_for_all(f"yolov7_jax-{next(_WAITS)}", _PATIENCE_S)  # a device would not wait for minutes
    content = text.encode()
    sizes = multihost_utils.process_allgather(np.int32(len(content))).reshape(-1)
    room = max(1024, 1 << int(sizes.max()).bit_length())  # few shapes: each is compiled
    padded = np.zeros(room, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(-1, room)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def from_first(work: Callable[[], T]) -> T:
    """What some work gives, which the first process alone does: plain values, of JSON.

    Raises:
        InputError: it failed there.
    """
    if jax.process_count() == 1:
        return work()
    with all_or_none():
        text = json.dumps(work()) if is_first() else ""
    value: T = json.loads(gather(text)[0])
    return value


def arrays_of_first(tree: T) -> T:
    """Arrays as the first process has them: processors of another kind may have drawn others in their last bits."""
    if jax.process_count() == 1:
        return tree
    shared: T = multihost_utils.broadcast_one_to_all(tree)
    return shared


def check_shared(folder: Path) -> None:
    """Refuses a folder that the processes do not share: writing checkpoints together would never end.

    Raises:
        InputError: a process does not see what the first one writes.
    """
    if jax.process_count() == 1:
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
    write_atomically(token, "")
    return token.name


def _appears(file: Path) -> bool:
    end = time.monotonic() + _SEEN_WITHIN_S
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def check_same(facts: Mapping[str, Any]) -> None:
    """Refuses facts (values of JSON) that are not those of the first process.

    Raises:
        InputError: names the first that differs.
    """
    if jax.process_count() == 1:
        return
    first = from_first(lambda: facts)
    own = json.loads(json.dumps(facts))
    with all_or_none():
        for key in first:
            if first[key] != own[key]:
                raise InputError(
                    f"{key} is {own[key]!r}, but {first[key]!r} in the first process; give the same to all"
                )


def in_step(
    batches: Callable[[int], Generator[Batch, None, None]], mesh: Mesh, signals: StopSignals
) -> tuple[Callable[[int], Generator[Batch, None, None]], StopSignals]:
    """Batches (from a step on) that end on all processes together, and what asks all of them to stop at the same one.

    Args:
        batches: those of this process.
        mesh: of the devices of all.
        signals: what was asked of this process.
    """
    if jax.process_count() == 1:
        return batches, signals
    stop = StopSignals()
    return (lambda start: _in_step(batches(start), mesh, signals, stop)), stop


def _in_step(
    batches: Generator[Batch, None, None], mesh: Mesh, signals: StopSignals, stop: StopSignals
) -> Generator[Batch, None, None]:
    """What the processes tell each other is sent a batch ahead, so that no device waits for it."""
    tell = _teller(mesh)

    def take() -> _Held:
        try:
            batch = next(batches)
        except Exception as error:
            return _Held(None, error, tell(_FAILED))
        return _Held(batch, None, tell(signals.received or 0))

    with closing(batches):
        following = take()
        while True:
            held, following = following, take()
            told = int(jax.device_get(held.told))
            if told >= _FAILED:
                with all_or_none():
                    if held.error is not None:
                        raise held.error
            stop.received = stop.received or told or None
            assert held.batch is not None
            yield held.batch


def _teller(mesh: Mesh) -> Callable[[int], jax.Array]:
    """What sends a number to all processes, and gives the highest of theirs; nobody waits before it is read."""
    highest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def tell(number: int) -> jax.Array:
        here = np.full(jax.local_device_count(), number, np.int32)
        told: jax.Array = highest(jax.make_array_from_process_local_data(split(mesh), here))
        return told

    return tell


class _Held(NamedTuple):
    """A batch, or why there is none, and the highest of the numbers that the processes tell of it."""

    batch: Batch | None
    error: Exception | None
    told: jax.Array
