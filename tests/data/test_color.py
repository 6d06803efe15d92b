import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.augment import random_gains, scale_hsv

PLAIN = np.ones(3)


def by_formula(image, gains):
    """The same in floating point, without OpenCV and without steps of 8 bits."""
    out = np.empty(image.shape)
    for at in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[at] / 255))
        changed = (hue * gains[0] % 1, min(saturation * gains[1], 1), min(value * gains[2], 1))
        out[at] = np.multiply(colorsys.hsv_to_rgb(*changed), 255)
    return out


def scaled(image, gains):
    changed = image.copy()
    scale_hsv(changed, gains)
    return changed


@pytest.mark.parametrize("gains", [(1, 1.7, 1), (1, 0.3, 1), (1, 1, 1.4), (1, 1, 0.6), (1.015, 1.2, 0.8), (1.4, 1, 1)])
def test_against_the_formula(gains):
    image = np.random.default_rng(0).integers(0, 256, (60, 61, 3)).astype(np.uint8)
    hues = np.array([colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in image.reshape(-1, 3)]).reshape(60, 61)
    # From 359° on a hue may be rounded to that of 0°, which no gain changes: there the formula has a jump.
    smooth = hues < 359 / 360
    error = np.abs(scaled(image, np.array(gains)) - by_formula(image, gains))[smooth]
    # Hue has steps of 2°: rounded before (1°, times its gain) and after (1°); 60° are the whole range of a channel.
    # Saturation is rounded before (times its gain) and after, value and the result after: half a level each.
    hue_levels = 255 * (1 * gains[0] + 1) / 60
    assert error.max() <= hue_levels + 0.5 * gains[1] * gains[2] + 3 * 0.5 + 0.5
    assert error.mean() < 2  # and far less as a rule


@given(st.integers(0, 255), st.floats(0.6, 1.4), st.floats(0.3, 1.7))
def test_grays_change_by_value_alone(level, value_gain, saturation_gain):
    image = np.full((2, 5, 3), level, np.uint8)
    changed = scaled(image, np.array([1.0, saturation_gain, value_gain]))
    # half a level by rounding; OpenCV takes factors in steps of 1/1024, an eighth of a level at most
    assert np.abs(changed - min(level * value_gain, 255)).max() <= 0.5 + 255 / 2048


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_primaries_pale_to_the_hand_value(channel):
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., channel] = 200
    expected = [100, 100, 100]
    expected[channel] = 200
    assert np.abs(scaled(image, np.array([1, 0.5, 1])).astype(int) - expected).max() <= 1  # 255 · 0.5 is rounded


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 31, 33, 64, 65, 130])
def test_hue_goes_in_a_circle_at_any_width(width):
    # blue-violet of 270°: times 1.4 is 378°, so 18°: orange, (255, 76.5, 0); the same in vectors and in what is left
    image = np.tile(np.array([128, 0, 255], np.uint8), (3, width, 1))
    assert np.abs(scaled(image, np.array([1.4, 1, 1])) - [255, 76.5, 0]).max() <= 255 * 2.4 / 60 + 1


def test_large_images_are_done_to_the_last_row():
    image = np.random.default_rng(0).integers(0, 256, (5, 50_000, 3)).astype(np.uint8)  # a row is over a strip
    gains = np.array([1.01, 1.3, 0.7])
    whole = scaled(image, gains)
    assert np.array_equal(whole, np.concatenate([scaled(image[row : row + 1], gains) for row in range(5)]))
    tall = np.random.default_rng(0).integers(0, 256, (3001, 20, 3)).astype(np.uint8)
    assert np.array_equal(scaled(tall, gains)[-1:], scaled(tall[-1:], gains))


def test_gains_of_one_change_nothing():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    assert np.array_equal(scaled(image, PLAIN), image)


def test_gains_fill_their_ranges():
    rng = np.random.default_rng(0)
    gains = np.array([random_gains(rng, AugmentConfig(hsv_h=0.015, hsv_s=0.7, hsv_v=0.4)) for _ in range(1000)])
    assert np.allclose(gains.min(axis=0), [0.985, 0.3, 0.6], atol=0.01)
    assert np.allclose(gains.max(axis=0), [1.015, 1.7, 1.4], atol=0.01)
    assert np.array_equal(random_gains(rng, AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0)), PLAIN)
