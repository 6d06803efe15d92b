"""What memory a training step takes, from what the compiler planned, before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from yolov7_jax.training.state import TrainState
from yolov7_jax.types import Batch

MEGABYTE = 2**20


class StepMemory(NamedTuple):
    """Bytes on each device. state: weights, averages, optimizer. batch: of images and boxes. scratch: all between."""

    state: int
    batch: int
    scratch: int

    def __str__(self) -> str:
        state, batch, scratch = (round(part / MEGABYTE) for part in self)
        return (
            f"memory of a step on each device: {round(sum(self) / MEGABYTE)} MB "
            f"({state} weights and optimizer, {batch} images and boxes, {scratch} intermediate results)"
        )


def step_memory(compiled: jax.stages.Compiled, state: TrainState, batch: Batch) -> StepMemory | None:
    """The memory of a compiled step (state, batch) → (state, metrics); None where the compiler does not tell.

    The state that goes in is used up, so it counts once.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return StepMemory(_bytes_on_device(state), _bytes_on_device(batch), analysis.temp_size_in_bytes)


def _bytes_on_device(arrays: Any) -> int:
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


class MeasuredStep:
    """A step of `make_step` that is compiled once for each shape of batches, and knows its memory before it runs.

    For states of one shape.
    """

    def __init__(self, step: Any) -> None:
        self._step = step
        self._compiled: dict[tuple[tuple[int, ...], ...], jax.stages.Compiled] = {}

    def is_compiled_for(self, batch: Batch) -> bool:
        """Whether it need not be compiled for batches of these shapes."""
        return _shapes(batch) in self._compiled

    def prepare(self, state: TrainState, batch: Batch) -> StepMemory | None:
        """Compiles it if that is not done; tells its memory, None where the compiler does not tell.

        The batch may be abstract: shapes with shardings.
        """
        return step_memory(self._program(state, batch), state, batch)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Mapping[str, jax.Array]]:
        """The step."""
        done: tuple[TrainState, Mapping[str, jax.Array]] = self._program(state, batch)(state, batch)
        return done

    def _program(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        shapes = _shapes(batch)
        if shapes not in self._compiled:
            self._compiled[shapes] = self._step.lower(state, batch).compile()
        return self._compiled[shapes]


def _shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(batch))
