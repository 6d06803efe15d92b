import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.ops.losses import binary_cross_entropy

OPTIONS = [{}, {"pos_weight": 2.5}, {"focal_gamma": 1.5}, {"pos_weight": 0.5, "focal_gamma": 0.5}, {"focal_gamma": 2}]


def scalar(x, t, pos_weight=1.0, focal_gamma=0.0):
    p, q = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))
    loss = -pos_weight * t * math.log(p) - (1 - t) * math.log(q)
    if focal_gamma:
        loss *= (t * 0.25 + (1 - t) * 0.75) * (t * q + (1 - t) * p) ** focal_gamma
    return loss


@functools.cache
def with_slope(**options):
    return jax.jit(jax.value_and_grad(lambda x, t: binary_cross_entropy(x, t, **options)))


@pytest.mark.parametrize("options", OPTIONS)
@given(x=st.floats(-15, 15), t=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])))
def test_value_and_slope_equal_the_plain_formula(options, x, t):
    with jax.enable_x64(True):
        value, slope = with_slope(**options)(np.float64(x), np.float64(t))
    # float64: the logarithm of a probability near 1 is right to an ulp of 1; a difference quotient to about 1e-9
    np.testing.assert_allclose(value, scalar(x, t, **options), rtol=1e-12, atol=1e-15)
    step = 1e-5
    numeric = (scalar(x + step, t, **options) - scalar(x - step, t, **options)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS)
def test_finite_where_the_sigmoid_saturates(options):
    x = jnp.asarray([-1e30, -1e4, -100, -90, 0, 90, 100, 1e4, 1e30], jnp.float32)
    for t in (0.0, 0.05, 1.0):
        targets = jnp.full_like(x, t)
        value, slope = jax.value_and_grad(lambda x, t=targets: binary_cross_entropy(x, t, **options).sum())(x)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_by_hand():
    logits, targets = jnp.float32([0, 0, 100, -100, 100]), jnp.float32([0, 1, 1, 1, 0])
    np.testing.assert_allclose(
        binary_cross_entropy(logits, targets, pos_weight=3.0),
        [math.log(2), 3 * math.log(2), 0, 300, 100],
        rtol=1e-6,  # float32
        atol=1e-30,
    )
    focal = binary_cross_entropy(logits, targets, focal_gamma=2.0)
    np.testing.assert_allclose(focal, [0.1875 * math.log(2), 0.0625 * math.log(2), 0, 25, 75], rtol=1e-6, atol=1e-30)
