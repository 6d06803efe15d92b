"""What is known of the objects of one image before it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
Row = tuple[int, float, float, float, float]
"""An object: class, place (corner or centre), width, height, in any unit."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """The objects of one image, and how many were left out.

    class_ids: int32 [n]. duplicates: objects left out because an equal one came before. empty: objects left out because
    their box has no area. faults: what was wrong with others that were left out, a sentence each. missing: there is no
    file of labels.
    """

    class_ids: NDArray[np.int32]
    duplicates: int = 0
    empty: int = 0
    faults: tuple[str, ...] = ()
    missing: bool = False


def sift(rows: list[Row]) -> tuple[list[Row], int, int]:
    """Rows that are new and have an area; the number of those that repeat, and of those new without an area."""
    distinct = list(dict.fromkeys(rows))
    kept = [row for row in distinct if row[3] > 0 and row[4] > 0]
    return kept, len(rows) - len(distinct), len(distinct) - len(kept)


def as_arrays(rows: list[Row]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Class int32 [n] and place and size float64 [n, 4] of rows."""
    class_ids = np.array([row[0] for row in rows], np.int32)
    return class_ids, np.array([row[1:] for row in rows], np.float64).reshape(-1, 4)


def pick(values: Sequence[Value], indices: Sequence[int]) -> tuple[Value, ...]:
    """The values at these places, in their order."""
    return tuple(values[index] for index in indices)
