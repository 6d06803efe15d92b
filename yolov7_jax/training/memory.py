"""What memory a training step takes, from what the compiler planned, before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from yolov7_jax.training.state import TrainState
from yolov7_jax.types import Batch

MEGABYTE = 2**20

_TRIES = 3  # of the search for the largest batch
_FIRST_REACH = 0.9  # of the way there, that the first of them goes
_LAST_REACH = 0.97  # of the way between one that fits and one that does not


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


class ProgramMemory(NamedTuple):
    """Bytes on each device that the compiler planned for a program, padding included.

    arguments: what goes in. outputs: what comes out. aliased: outputs that take the place of arguments. temporary: all
    between. code: the program itself. peak: of arrays at once at the worst moment, without gaps between them; 0 where
    the compiler does not tell.
    """

    arguments: int
    outputs: int
    aliased: int
    temporary: int
    code: int
    peak: int

    @property
    def needed(self) -> int:
        """What a device has to have."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.code


def program_memory(compiled: jax.stages.Compiled) -> ProgramMemory | None:
    """The memory of a compiled program; None where the compiler does not tell."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return ProgramMemory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        temporary=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        peak=getattr(analysis, "peak_memory_in_bytes", 0),
    )


def largest_batch(
    measure: Callable[[int], int | None],
    first: tuple[int, int | None],
    empty: int,
    capacity: float,
    unit: int,
    most: float = math.inf,
) -> int | None:
    """The largest batch size that was found to fit, by lines through what was measured, which is nearly one.

    Args:
        measure: batch size → bytes needed, None where there is no room.
        first: a batch size that was measured, and its bytes.
        empty: about what no image at all would need.
        capacity: bytes that there are.
        unit: what batch sizes are multiples of.
        most: the largest batch size that is wanted.

    Returns:
        A size that was measured, or None if `first` does not fit.
    """
    if first[1] is None or first[1] > capacity:
        return None
    below, above = [(0, empty), (first[0], first[1])], math.inf
    too_much: int | None = None  # that `above` needs, where the compiler tells
    for reach in (_FIRST_REACH, *[1.0] * (_TRIES - 1)):
        (size, needed), (more, with_more) = below[-2:]
        if too_much is None:
            room = min(reach * (capacity - with_more) * (more - size) / max(with_more - needed, 1), (above - more) / 2)
        else:
            room = _LAST_REACH * (capacity - with_more) * (above - more) / (too_much - with_more)
        guess = int(min(more + room, most)) // unit * unit
        if guess <= more:
            break
        found = measure(guess)
        if found is None or found > capacity:
            above, too_much = guess, found
        else:
            below.append((guess, found))
    return below[-1][0]


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
