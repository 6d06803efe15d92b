"""YOLOv5 v6.0: one architecture, scaled in depth and width."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from yolov7_jax.graph.blocks import concat, conv, upsample
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo.yolov7 import TINY_ANCHORS

MULTIPLES: Mapping[str, tuple[float, float]] = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}
"""Depth and width multiples of each size."""


def yolov5(size: str, *, num_classes: int) -> Graph:
    """YOLOv5 v6.0 of a size n, s, m, l or x: CSP bottlenecks (C3), SPPF, path aggregation."""
    depth, width = MULTIPLES[size]
    b = Builder()

    def wide(channels: int) -> int:
        return ceil(channels * width / 8) * 8

    def down(x: str, channels: int, tag: str) -> str:
        return conv(b, x, wide(channels), 3, 2, tag=tag)

    def c3(x: str, channels: int, repeats: int, shortcut: bool, tag: str) -> str:
        return b.add("C3", x, wide(channels), max(round(repeats * depth), 1), shortcut, tag=tag)

    def top_down(x: str, skip: str, channels: int, tag: str) -> tuple[str, str]:
        reduced = conv(b, x, wide(channels), tag=tag)
        return reduced, c3(concat(b, [upsample(b, reduced, tag=tag), skip], tag=tag), channels, 3, False, tag)

    stem = b.add("Conv", IMAGE, wide(64), 6, 2, 2, tag="stem")
    c2 = c3(down(stem, 128, "c2"), 128, 3, True, "c2")
    stage3 = c3(down(c2, 256, "c3"), 256, 6, True, "c3")
    stage4 = c3(down(stage3, 512, "c4"), 512, 9, True, "c4")
    stage5 = c3(down(stage4, 1024, "c5"), 1024, 3, True, "c5")
    spp = b.add("SPPF", stage5, wide(1024), 5, tag="p5")

    p5, fused = top_down(spp, stage4, 512, "p4")
    p4, p3 = top_down(fused, stage3, 256, "p3")
    n4 = c3(concat(b, [down(p3, 256, "n4"), p4], tag="n4"), 512, 3, False, "n4")
    n5 = c3(concat(b, [down(n4, 512, "n5"), p5], tag="n5"), 1024, 3, False, "n5")
    b.add("Detect", [p3, n4, n5], tag="detect")
    return b.build(anchors=TINY_ANCHORS, num_classes=num_classes)
