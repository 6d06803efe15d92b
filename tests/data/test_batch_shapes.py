from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.data.letterbox import letterbox
from yolov7_jax.data.sampling import rectangles, squares


def test_squares_by_hand() -> None:
    assert squares(640, (), stride=32) == ((640, 640),)
    assert squares(640, (0.5, 1, 1.24), stride=32) == ((320, 320), (640, 640), (800, 800))
    assert squares(64, (0.1,), stride=32) == ((32, 32),)
    assert squares(640, (0.52,), stride=64) == ((320, 320),)


def test_rectangles_by_hand() -> None:
    sizes = [(480, 640)] * 5 + [(640, 480)] * 7 + [(100, 100), (427, 640)]
    shapes, places = rectangles(sizes, 640, stride=32)
    assert shapes == ((448, 640), (480, 640), (640, 640), (640, 480))
    assert places.tolist() == [1] * 5 + [3] * 7 + [2, 0]
    # Of two, the one that seven fit, not the one that six do: those are left with the square.
    shapes, places = rectangles(sizes, 640, stride=32, most=2)
    assert shapes == ((640, 640), (640, 480))
    assert places.tolist() == [0] * 5 + [1] * 7 + [0, 0]


SIZES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=8)


@given(SIZES)
def test_each_image_fits_the_smallest_shape_that_holds_it(sizes) -> None:
    shapes, places = rectangles(sizes, 128, stride=32)
    assert 1 <= len(shapes) <= 5
    assert (128, 128) in shapes
    assert all(max(shape) == 128 and min(shape) % 32 == 0 for shape in shapes)
    for shape, place in zip(sizes, places, strict=True):
        image = np.zeros((*shape, 3), np.uint8)
        _, whole = letterbox(image, 128, auto=False)
        _, tight = letterbox(image, shapes[place], auto=False)
        assert tight.content == whole.content  # not a pixel smaller than in the square
        holding = [s for s in shapes if s[0] >= whole.content[0] and s[1] >= whole.content[1]]
        assert np.prod(shapes[place]) == min(np.prod(s) for s in holding)
    for one, other in combinations(shapes, 2):  # a batch of both has a shape that is compiled for anyway
        assert (max(one[0], other[0]), max(one[1], other[1])) in shapes
