"""Arithmetic on published figures, against the same by hand."""

import math

import pytest

from yolov7_jax.training.hlo import Collective, HloArray
from yolov7_jax.training.roofline import CHIPS, Chip, chip_of, roofline, scaling, slice_sides, transfer_s

V4, V5E, V5P, V6E = CHIPS


def test_a_step_takes_as_long_as_its_operations_or_its_bytes() -> None:
    found = roofline(V5E, flops=1.97e12, bytes_moved=8.19e9)  # 10 ms of 197 TFLOP/s, and of 819 GB/s
    assert found == pytest.approx((0.01, 0.01))
    assert roofline(V5E, flops=1.97e12, bytes_moved=16.38e9).step_s == pytest.approx(0.02)


def test_what_jax_calls_the_chips() -> None:
    kinds = {"TPU v4": V4, "TPU v5 lite": V5E, "TPU v5": V5P, "TPU v6 lite": V6E, "cpu": None}
    assert {kind: chip_of(kind) for kind in kinds} == kinds


@pytest.mark.parametrize(
    ("chips", "axes", "sides"),
    [(1, 2, (1, 1)), (2, 2, (1, 2)), (8, 2, (2, 4)), (256, 2, (16, 16)), (4, 3, (1, 2, 2)), (256, 3, (4, 8, 8))],
)
def test_slices_are_as_nearly_square_as_can_be(chips: int, axes: int, sides: tuple[int, ...]) -> None:
    assert slice_sides(chips, axes) == sides
    assert math.prod(sides) == chips


@pytest.mark.parametrize(
    ("chip", "sides", "kind", "latency", "bandwidth"),
    [
        (V5E, (1, 1), "all-reduce", 0, 0),
        # 2 x 2: two links of 45 GB/s a chip, 3/4 of 9 MB there and back is 13.5 MB: 150 us; two hops there and back
        (V5E, (2, 2), "all-reduce", 4e-6, 150e-6),
        (V5E, (2, 2), "all-gather", 2e-6, 75e-6),
        # 16 x 16, rings: four links, 180 GB/s; 255/256 of 9 MB there and back; the farthest chip is 8 + 8 hops away
        (V5E, (16, 16), "all-reduce", 32e-6, 99.609375e-6),
        # a line of 4, no ring: one link; 3/4 of 9 MB there and back at 45 GB/s is 300 us; three hops
        (V5E, (1, 4), "all-reduce", 6e-6, 300e-6),
        # of v5p 4 are a ring: two links of 90 GB/s; two hops
        (V5P, (1, 1, 4), "all-reduce", 4e-6, 75e-6),
    ],
)
def test_transfers_around_rings(
    chip: Chip, sides: tuple[int, ...], kind: str, latency: float, bandwidth: float
) -> None:
    assert transfer_s(chip, sides, kind, 9e6) == pytest.approx((latency, bandwidth))


def test_efficiency_by_hand() -> None:
    """A step of 10 ms that sends 9 MB of gradients at once and 10 small sums of a loop, on 4 chips of v5e.

    Gradients: 4 us of latency, 150 us of bandwidth. Sums, 360 bytes each: 4 us, 6 ns. All in all 44 us and 150.06 us.
    """
    gradients = Collective("all-reduce", (HloArray("f32", (2250000,)),), False, 1, "")
    sums = Collective("all-reduce", (HloArray("f32", (90,)),), True, 10, "")
    found = scaling(V5E, 0.01, [gradients, sums], 4)
    assert found.sides == (2, 2)
    assert found.communication_s == pytest.approx(194.06e-6)
    assert found.worst == pytest.approx(10 / 10.19406)
    assert found.best == pytest.approx(10 / 10.044)
    assert scaling(V5E, 0.01, [gradients, sums], 1)[2:] == (0, 1, 1)


def test_what_takes_longer_than_the_backward_pass_is_waited_for() -> None:
    gradients = Collective("all-reduce", (HloArray("f32", (2250000,)),), False, None, "")
    found = scaling(V5E, 150e-6, [gradients], 4)  # its backward pass: 100 us
    assert found.best == pytest.approx(150 / (150 + 4 + 50))
