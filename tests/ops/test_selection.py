import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops import selection


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 4, 37])
def test_what_is_valid_comes_first_and_in_order(n: int, share: float) -> None:
    valid = np.random.default_rng(0).random(n) < share
    places = np.asarray(selection.valid_first(jnp.asarray(valid), 4))
    assert places.dtype == np.int32
    assert places.tolist() == [*np.flatnonzero(valid), *np.flatnonzero(~valid), *[n] * (-n % 4)]
