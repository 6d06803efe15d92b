import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from yolov7_jax.experiment.ablations.statistics import (
    CONFIDENCE,
    Difference,
    mean,
    paired_difference,
    spread,
    student_t,
)

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@pytest.mark.parametrize("freedom", range(1, 31))
def test_student_t_is_that_of_scipy(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf((1 + CONFIDENCE) / 2, freedom), abs=5e-4)  # 3 decimals


def test_student_t_never_narrows_too_much() -> None:
    assert student_t(1000) == student_t(30)


@given(VALUES)
def test_mean_and_spread_are_those_of_numpy(values: list[float]) -> None:
    assert mean(values) == pytest.approx(np.mean(values), rel=1e-12, abs=1e-15)
    assert spread(values) == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-12)


def test_of_too_few_values_there_is_no_mean_and_no_spread() -> None:
    assert math.isnan(mean([]))
    assert math.isnan(spread([0.5]))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=12))
def test_the_interval_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    ours = paired_difference(dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs)))
    assert ours is not None
    differences = np.array([a - b for a, b in pairs])
    if differences.std() < 1e-6:
        return  # scipy has no interval of equal values
    low, high = stats.t.interval(CONFIDENCE, len(pairs) - 1, differences.mean(), stats.sem(differences))
    # Student's t has three decimals
    assert (ours.mean - ours.margin, ours.mean + ours.margin) == pytest.approx((low, high), abs=2e-3 * ours.margin)
    assert ours.distinguishable == (abs(ours.mean) > ours.margin)


def test_a_difference_by_hand() -> None:
    # differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, standard error 0.1/√3 = 0.057735, times 4.303
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {2: 0.6, 0: 0.4, 1: 0.5})
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.margin == pytest.approx(0.24843, abs=1e-5)
    assert not found.distinguishable


def test_only_seeds_of_both_count() -> None:
    assert paired_difference({0: 0.5, 1: 0.7}, {1: 0.4, 2: 0.9}) == Difference(pytest.approx(0.3), None, 1)
    assert not Difference(0.3, None, 1).distinguishable
    assert paired_difference({0: 0.5}, {1: 0.4}) is None


def test_what_seeds_have_in_common_cancels() -> None:
    base = {0: 0.1, 1: 0.5, 2: 0.9}
    found = paired_difference({seed: value + 0.01 for seed, value in base.items()}, base)
    assert found is not None
    assert found.distinguishable
