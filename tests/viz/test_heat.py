from itertools import pairwise

import numpy as np

from yolov7_jax.viz.draw import OPACITY, draw_heat, relative_luminance
from yolov7_jax.viz.sheet import GAP, HEADING, draw_heats


def test_the_hotter_the_lighter_over_an_image_in_gray() -> None:
    image = np.full((1, 256, 3), (200, 40, 90), np.uint8)
    heat = np.linspace(0, 1, 256, dtype=np.float32)[None]
    drawn = draw_heat(image, heat)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    light = [relative_luminance(tuple(pixel)) for pixel in drawn[0].tolist()]
    assert all(later >= earlier - 0.01 for earlier, later in pairwise(light))
    assert light[-1] > light[128] > light[0]
    gray = 0.299 * 200 + 0.587 * 40 + 0.114 * 90
    assert np.abs(drawn[0, 0] - (1 - OPACITY) * gray).max() < 4  # the coldest color is all but black
    red, _, blue = (int(value) for value in drawn[0, 160])
    assert red > blue  # RGB, not BGR


def test_heat_beyond_its_range_is_drawn_as_its_ends() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    assert np.array_equal(draw_heat(image, np.array([[-3.0, 7.0]])), draw_heat(image, np.array([[0.0, 1.0]])))


def test_maps_lie_beside_each_other_under_their_captions() -> None:
    image = np.full((320, 400, 3), 100, np.uint8)
    heats = [np.zeros((320, 400), np.float32), np.ones((320, 400), np.float32)]
    sheet = draw_heats(image, heats, ["stride 8", "all"])
    assert sheet.shape == (2 * GAP + HEADING + 320, 3 * GAP + 2 * 400, 3)
    for number, heat in enumerate(heats):
        left = GAP + number * (400 + GAP)
        part = sheet[GAP + HEADING : GAP + HEADING + 320, left : left + 400]
        assert np.array_equal(part, draw_heat(image, heat))
        assert sheet[GAP : GAP + HEADING, left : left + 400].min() < 50  # letters
