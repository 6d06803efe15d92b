"""Scaling of networks as numbers."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple


class Scaling(NamedTuple):
    """Compound scaling (YOLOv7, section 3.2).

    depth: multiplies the repeats in computational blocks: the chains of ELANs, the bottlenecks of cross-stage partial
    blocks. width: multiplies the channels between them: stem, outputs of blocks, laterals, spatial pyramid pooling,
    outputs of the head. block_width: multiplies the channels inside of ELANs. Deepening a concatenation-based block
    widens its output, which is why the paper scales depth and width together, and leaves block_width alone.
    """

    depth: float = 1.0
    width: float = 1.0
    block_width: float = 1.0

    def deep(self, repeats: int) -> int:
        """The number of repeats, at least 1."""
        return max(round(repeats * self.depth), 1)

    def wide(self, channels: int) -> int:
        """Channels between blocks, rounded up to a multiple of 8."""
        return _multiple_of_8(channels * self.width)

    def inside(self, channels: int) -> int:
        """Channels inside of an ELAN, rounded up to a multiple of 8."""
        return _multiple_of_8(channels * self.block_width)


UNSCALED = Scaling()


def _multiple_of_8(channels: float) -> int:
    return ceil(channels / 8) * 8
