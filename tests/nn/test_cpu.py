from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from yolov7_jax.nn import cpu as module
from yolov7_jax.nn.conv import convolve

Pair = tuple[int, int]
PAIR = st.tuples(st.integers(0, 2), st.integers(0, 2))


def plain(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@settings(max_examples=25)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.sampled_from([(1, 1), (2, 2), (2, 1), (1, 2), (3, 3)]),
    padding=st.tuples(PAIR, PAIR),
    size=st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    band=st.sampled_from([1, 6, 30, 1600]),
)
def test_gradients_are_those_of_the_plain_convolution(
    kernel: Pair,
    strides: Pair,
    padding: tuple[Pair, Pair],
    size: tuple[int, int, int],
    channels: Pair,
    band: int,
) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BAND", band)
        x, weights = jnp.asarray(rng.normal(size=(*size, channels[0]))), jnp.asarray(rng.normal(size=kernel + channels))
        expected, transpose = jax.vjp(partial(plain, strides=strides, padding=padding), x, weights)
        y, ours = jax.vjp(partial(convolve, strides=strides, padding=padding), x, weights)
        dy = jnp.asarray(rng.normal(size=y.shape))
        # float64 sums of at most 243 products of numbers near 1, in another order.
        for a, b in zip((y, *ours(dy)), (expected, *transpose(dy)), strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() < 1e-12


@pytest.mark.parametrize(("kernel", "strides"), [(1, (1, 1)), (3, (2, 2))])
def test_other_devices_compute_the_gradients_of_xla(kernel: int, strides: Pair) -> None:
    padding = ((kernel // 2, kernel // 2),) * 2
    x, weights = jnp.ones((2, 8, 8, 3)), jnp.ones((kernel, kernel, 3, 5))

    def loss(x: jax.Array, weights: jax.Array) -> jax.Array:
        return convolve(x, weights, strides, padding).sum()

    traced: Any = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, weights)
    for platform, ours in (("cuda", False), ("tpu", False), ("cpu", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("optimization_barrier" in text) == ours


def test_kernel_gradients_of_bfloat16_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BAND", 8)
    rng = np.random.default_rng(0)
    x, weights = rng.uniform(0, 1, (4, 64, 64, 2)), rng.normal(size=(3, 3, 2, 2))

    def gradient(dtype: Any) -> Any:
        def loss(weights: jax.Array) -> jax.Array:
            return convolve(jnp.asarray(x, dtype), weights, (2, 2), ((1, 1), (1, 1))).astype(jnp.float32).sum()

        return jax.jit(jax.grad(loss))(jnp.asarray(weights, dtype))

    narrow = gradient(jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16
    # x and the result are rounded by 2⁻⁹ each; 512 bands summed in bfloat16 would lose a tenth.
    assert np.allclose(narrow.astype(jnp.float32), gradient(jnp.float32), rtol=2**-8)
