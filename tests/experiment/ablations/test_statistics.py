import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from yolov7_jax.experiment.ablations.results import CONFIDENCE, Difference, paired_difference


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=12))
def test_the_interval_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    ours = paired_difference(dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs)))
    assert ours is not None
    differences = np.array([a - b for a, b in pairs])
    if differences.std() < 1e-6:
        return  # scipy has no interval of equal values
    low, high = stats.t.interval(CONFIDENCE, len(pairs) - 1, differences.mean(), stats.sem(differences))
    assert (ours.mean - ours.margin, ours.mean + ours.margin) == pytest.approx((low, high), abs=1e-6 * ours.margin)
    assert ours.distinguishable == (abs(ours.mean) > ours.margin)


def test_a_difference_by_hand() -> None:
    # differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, standard error 0.1/√3 = 0.057735, times 4.3027
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {2: 0.6, 0: 0.4, 1: 0.5})
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.margin == pytest.approx(0.24841, abs=1e-5)
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
