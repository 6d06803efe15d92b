"""How quick a step can be at most, and how well it scales over chips: published figures and arithmetic, no more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from yolov7_jax.training.hlo import Collective

HOP_S = 1e-6
"""Seconds from a chip to the next, whatever the size (How to Scale Your Model, part 3)."""

BACKWARD = 2 / 3
"""Share of a step that its backward pass takes, behind which gradients can travel: it has twice the convolutions."""

RING_PASSES: Mapping[str, int] = {
    "all-reduce": 2,  # a reduce-scatter, then an all-gather
    "all-gather": 1,
    "reduce-scatter": 1,
    "all-to-all": 1,
    "collective-permute": 1,
}
"""How often an array goes around a ring of chips, less one part of as many."""

CHIP_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Chip:
    """What is published of a chip. Figures are those of one chip, in bytes and seconds.

    kinds: what JAX calls its devices. axes: of the torus that chips form. ring: an axis has a link from its last chip
    to its first where its length is a multiple of this. link: bytes/s of a link between neighbors, one way.

    Sources: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e (bfloat16 FLOP/s, memory and its bandwidth); How to Scale Your
    Model, jax-ml.github.io/scaling-book/tpus (links, rings).
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: float
    memory_bandwidth: float
    link: float
    axes: int
    ring: int


CHIPS: tuple[Chip, ...] = (
    Chip("v4", ("TPU v4",), 275e12, 32 * 2**30, 1.2e12, 4.5e10, axes=3, ring=4),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * 2**30, 819e9, 4.5e10, axes=2, ring=16),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, 95 * 2**30, 2765e9, 9e10, axes=3, ring=4),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * 2**30, 1638e9, 9e10, axes=2, ring=16),
)


class Roofline(NamedTuple):
    """The least seconds of a step on a chip: of its operations at peak, and of its bytes at full bandwidth."""

    compute_s: float
    memory_s: float

    @property
    def step_s(self) -> float:
        """With both at once."""
        return max(self)


class Scaling(NamedTuple):
    """What so many chips make of as many times the images, each with its own share.

    communication_s: seconds of all transfers of a step. worst: throughput as a fraction of `chips` times that of one,
    where the chips compute nothing meanwhile. best: where bytes travel during the backward pass, and only the latency
    of each transfer, and what takes longer than that pass, is waited for.
    """

    chips: int
    sides: tuple[int, ...]
    communication_s: float
    worst: float
    best: float


def chip_of(device_kind: str) -> Chip | None:
    """The chip of JAX's name for a device; None where nothing is known of it."""
    return next((chip for chip in CHIPS if device_kind in chip.kinds), None)


def roofline(chip: Chip, *, flops: float, bytes_moved: float) -> Roofline:
    """Of the operations and bytes of one chip."""
    return Roofline(flops / chip.flops, bytes_moved / chip.memory_bandwidth)


def slice_sides(chips: int, axes: int) -> tuple[int, ...]:
    """The sides of a slice of so many chips, a power of two: as nearly a square or cube as can be."""
    doublings, more = divmod(chips.bit_length() - 1, axes)
    return tuple(2 ** (doublings + (axis >= axes - more)) for axis in range(axes))


def transfer_s(chip: Chip, sides: tuple[int, ...], kind: str, size: float) -> tuple[float, float]:
    """Seconds of latency and of bandwidth that a collective takes over a slice.

    Rings along all axes share the bytes; an axis that is no ring has half the links. A pass over n chips takes
    (n - 1) / n of the bytes over all links of a chip, and a hop for each chip to the farthest one.

    size: bytes of the whole array.
    """
    long = [side for side in sides if side > 1]
    if not long:
        return 0.0, 0.0
    rings = [side % chip.ring == 0 for side in long]
    bandwidth = sum(chip.link * (2 if ring else 1) for ring in rings)
    hops = sum(side // 2 if ring else side - 1 for side, ring in zip(long, rings, strict=True))
    chips = math.prod(long)
    passes = RING_PASSES[kind]
    return passes * hops * HOP_S, passes * size * (chips - 1) / chips / bandwidth


def scaling(chip: Chip, step_s: float, transfers: Iterable[Collective], chips: int) -> Scaling:
    """How a step of `step_s` seconds scales whose devices send each other `transfers`, one after another.

    Those of loops whose length depends on data count once.
    """
    sides = slice_sides(chips, chip.axes)
    latency = bandwidth = 0.0
    for transfer in transfers:
        waits, travels = transfer_s(chip, sides, transfer.kind, transfer.bytes)
        times = 1 if transfer.trips is None else transfer.trips
        latency, bandwidth = latency + times * waits, bandwidth + times * travels
    hidden = min(bandwidth, BACKWARD * step_s)
    spent = latency + bandwidth
    return Scaling(chips, sides, spent, step_s / (step_s + spent), step_s / (step_s + spent - hidden))
