"""Whether rows of a table differ by more than seeds do: differences paired by seed, Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CONFIDENCE = 0.95
STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t for 1, 2 ... 30 degrees of freedom: a share `CONFIDENCE` of the distribution lies within ± this."""


class Difference(NamedTuple):
    """How a row differs from its base, over the seeds that both have.

    mean: of the differences. margin: half the width of their confidence interval, None with fewer than two seeds.
    seeds: how many.
    """

    mean: float
    margin: float | None
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether no difference at all lies outside of the interval."""
        return self.margin is not None and abs(self.mean) > self.margin


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a sample (n - 1); NaN of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def student_t(freedom: int) -> float:
    """Student's t for degrees of freedom, 1 or more; over 30 that of 30, which is a little too wide."""
    return STUDENT_T[min(freedom, len(STUDENT_T)) - 1]


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """The difference of values by seed, None where no seed is in both.

    Runs of one seed see the same pictures in the same order, so what they have in common cancels. The margin is the
    standard error of the mean difference times Student's t for one degree of freedom fewer than seeds.
    """
    shared = sorted(values.keys() & base.keys())
    if not shared:
        return None
    differences = [values[seed] - base[seed] for seed in shared]
    count = len(differences)
    margin = student_t(count - 1) * spread(differences) / math.sqrt(count) if count > 1 else None
    return Difference(mean(differences), margin, count)
