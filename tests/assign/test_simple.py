import jax
import numpy as np

from yolov7_jax.assign.simple import simple
from yolov7_jax.types import Candidates


def test_every_candidate_is_positive_for_its_box():
    index = np.int32([[[4, 7, 0], [4, 0, 0]], [[0, 0, 0], [9, 0, 0]]])
    valid = np.array([[[True, True, False], [True, False, False]], [[False] * 3, [True, False, False]]])
    found = jax.jit(jax.vmap(lambda some: simple(None, None, None, None, some, None)))(Candidates(index, valid))
    np.testing.assert_array_equal(found.index, [[4, 7, 0, 4, 0, 0], [0, 0, 0, 9, 0, 0]])
    np.testing.assert_array_equal(found.truth, [[0, 0, 0, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(found.positive, valid.reshape(2, 6))
