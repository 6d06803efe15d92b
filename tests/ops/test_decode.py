import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops.decode import BOUNDED, UNBOUNDED, centre_in_cell, decode, make_grid

GRID = make_grid([[(10.0, 20.0)]], [8], (16, 16))


@pytest.mark.parametrize(("reach", "low", "quarter", "high"), [(BOUNDED, -0.5, 0.0, 1.5), (UNBOUNDED, -1, -0.25, 2)])
def test_centres_reach_so_far_beyond_their_cell(reach, low, quarter, high):
    sigma = jnp.float32([0, 0.25, 0.5, 1])
    np.testing.assert_array_equal(centre_in_cell(sigma, reach=reach), [low, quarter, 0.5, high])  # 2σ - 0.5, 3σ - 1


def test_decode_by_hand():
    raw = np.zeros((4, 6), np.float32)
    raw[3, :2] = -np.log(3)  # σ = 1/4, in the cell (1, 1)
    for options, centre in (({}, (1 + 0.0) * 8), ({"reach": UNBOUNDED}, (1 - 0.25) * 8)):
        boxes = decode(jnp.asarray(raw), GRID, **options)
        np.testing.assert_allclose(boxes[3], [centre, centre, 10, 20, 0.5, 0.5], rtol=1e-6)  # float32
        np.testing.assert_allclose(boxes[0, :4], [4, 4, 10, 20], rtol=1e-6)
