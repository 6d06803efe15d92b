"""Batches that end, and stop, at the same step on all processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from yolov7_jax.training.hosts import all_or_none, place
from yolov7_jax.training.mesh import replicated, split
from yolov7_jax.training.stop import StopSignals
from yolov7_jax.types import Batch

_FAILED = 2**16  # above the numbers of signals


def in_step(
    batches: Callable[[int], Generator[Batch, None, None]], mesh: Mesh, signals: StopSignals
) -> tuple[Callable[[int], Generator[Batch, None, None]], StopSignals]:
    """Batches (from a step on) that end on all processes together, and what asks all of them to stop at the same one.

    Args:
        batches: those of this process.
        mesh: of the devices of all.
        signals: what was asked of this process.
    """
    if place()[1] == 1:
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
