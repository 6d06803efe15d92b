import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops.decode import BOUNDED, UNBOUNDED, center_in_cell, decode, make_grid

GRID = make_grid([[(10.0, 20.0)]], [8], (16, 16))


@pytest.mark.parametrize(
    ("center_bound", "low", "quarter", "high"), [(BOUNDED, -0.5, 0.0, 1.5), (UNBOUNDED, -1, -0.25, 2)]
)
def test_centers_reach_so_far_beyond_their_cell(center_bound, low, quarter, high):
    sigma = jnp.float32([0, 0.25, 0.5, 1])
    np.testing.assert_array_equal(
        center_in_cell(sigma, center_bound=center_bound), [low, quarter, 0.5, high]
    )  # 2σ - 0.5, 3σ - 1


def test_decode_by_hand():
    raw = np.zeros((4, 6), np.float32)
    raw[3, :2] = -np.log(3)  # σ = 1/4, in the cell (1, 1)
    for options, center in (({}, (1 + 0.0) * 8), ({"center_bound": UNBOUNDED}, (1 - 0.25) * 8)):
        boxes = decode(jnp.asarray(raw), GRID, **options)
        np.testing.assert_allclose(boxes[3], [center, center, 10, 20, 0.5, 0.5], rtol=1e-6)  # float32
        np.testing.assert_allclose(boxes[0, :4], [4, 4, 10, 20], rtol=1e-6)
