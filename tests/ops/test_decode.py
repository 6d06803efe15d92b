import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops.decode import UNBOUNDED, center_in_cell, make_grid

GRID = make_grid([[(10.0, 20.0)]], [8], (16, 16))


@pytest.mark.parametrize(("center_bound", "low", "quarter", "high"), [(0.5, -0.5, 0.0, 1.5), (UNBOUNDED, -1, -0.25, 2)])
def test_centers_reach_so_far_beyond_their_cell(center_bound, low, quarter, high):
    sigma = jnp.float32([0, 0.25, 0.5, 1])
    expected = [low, quarter, 0.5, high]  # 2σ - 0.5, 3σ - 1
    np.testing.assert_array_equal(center_in_cell(sigma, center_bound), expected)
