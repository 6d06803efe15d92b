"""Images on their way to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Barrier

import numpy as np
import pytest

from yolov7_jax.config import Options
from yolov7_jax.errors import DataError
from yolov7_jax.inference.batches import Batch, Prepared, once_compiled, prepare
from yolov7_jax.inference.results import Result


def batch_of(position: int, side: int) -> list[Prepared]:
    """One image of a shape of its own."""
    image = np.zeros((side, 64, 3), np.uint8)
    prepared = prepare(position, image, Options(), shape=(side, 64), size=64, stride=32)
    assert isinstance(prepared, Prepared)
    return [prepared]


def positions(items: Iterator[Batch]) -> list[int]:
    return [item.position if isinstance(item, Result) else item[0].position for item in items]


def test_programs_for_several_shapes_are_compiled_beside_each_other() -> None:
    together = Barrier(2)
    traced: list[tuple[int, ...]] = []

    def trace(shape: tuple[int, ...]) -> Callable[[], object]:
        traced.append(shape)
        return lambda: together.wait(20)  # breaks unless the other one is compiled meanwhile

    unread = Result(1, error=DataError("cannot be read"))
    items = [batch_of(0, 32), unread, batch_of(2, 64), batch_of(3, 32), batch_of(4, 64)]
    assert positions(once_compiled(items, trace, 1)) == [0, 1, 2, 3, 4]
    assert traced == [(32, 64, 3), (64, 64, 3)]


def test_a_program_that_cannot_be_compiled_ends_it_when_its_turn_comes() -> None:
    def trace(shape: tuple[int, ...]) -> Callable[[], object]:
        return lambda: 1 // (shape[0] - 64)

    handed = once_compiled([batch_of(0, 32), batch_of(1, 64), batch_of(2, 32)], trace, 1)
    assert next(handed)[0].position == 0
    with pytest.raises(ZeroDivisionError):
        next(handed)


def test_where_nothing_is_to_be_compiled_nothing_waits() -> None:
    drawn: list[int] = []

    def endless() -> Iterator[Batch]:
        while True:
            drawn.append(len(drawn))
            yield batch_of(len(drawn) - 1, 32)

    handed = once_compiled(endless(), lambda shape: None, 1)
    for place in range(3):
        assert next(handed)[0].position == place
        assert drawn == list(range(place + 1))


def test_while_a_program_is_compiled_few_images_are_looked_at() -> None:
    drawn: list[int] = []
    enough = Barrier(2)

    def endless() -> Iterator[Batch]:
        while True:
            drawn.append(len(drawn))
            if len(drawn) == 17:  # of the 16 that may wait the first is asked for: it is compiled from here on
                enough.wait(20)
            yield batch_of(len(drawn) - 1, 32)

    handed = once_compiled(endless(), lambda shape: lambda: enough.wait(20), 1)
    assert next(handed)[0].position == 0
    assert len(drawn) == 17
