"""YOLOv3 (arXiv 1804.02767): Darknet-53, and its tiny form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from yolov7_jax.graph.blocks import concat, conv, upsample
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import anchors

DARKNET_53 = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Channels and repeats of the stages, from stride 2."""


def yolov3(*, num_classes: int, pooled: bool = False) -> Graph:
    """YOLOv3, and with spatial pyramid pooling (`pooled`) YOLOv3-SPP."""
    b = Builder()

    def up(x: str, skip: str, channels: int, tag: str) -> str:
        joined = concat(b, [upsample(b, conv(b, x, channels, tag=tag), tag=tag), skip], tag=tag)
        return b.add("Bottleneck", joined, 2 * channels, False, tag=tag)

    x = conv(b, IMAGE, 32, 3, tag="stem")
    stages = []
    for level, (channels, repeats) in enumerate(DARKNET_53, start=1):
        x = conv(b, x, channels, 3, 2, tag=f"c{level}")
        x = b.add("Bottleneck", x, channels, repeat=repeats, tag=f"c{level}")
        stages.append(x)
    *_, c3, c4, c5 = stages

    x = b.add("Bottleneck", c5, 1024, False, tag="p5")
    x = b.add("SPP", x, 512, tag="p5") if pooled else conv(b, x, 512, tag="p5")
    p5 = conv(b, conv(b, x, 1024, 3, tag="p5"), 512, tag="p5")
    large = conv(b, p5, 1024, 3, tag="out")
    p4 = conv(b, b.add("Bottleneck", up(p5, c4, 256, "p4"), 512, False, tag="p4"), 256, tag="p4")
    medium = conv(b, p4, 512, 3, tag="out")
    small = b.add("Bottleneck", up(p4, c3, 128, "p3"), 256, False, repeat=2, tag="p3")
    b.add("Detect", [small, medium, large], tag="detect")
    return b.build(anchors=anchors.YOLOV3, num_classes=num_classes)


def yolov3_tiny(*, num_classes: int) -> Graph:
    """YOLOv3-tiny: a chain of 3×3 convolutions and max pools; two levels."""
    b = Builder()
    x = conv(b, IMAGE, 16, 3, tag="c0")
    for level, channels in enumerate((32, 64, 128, 256, 512), start=1):
        c4 = x  # what stands before the last pool, at stride 16
        x = conv(b, b.add("nn.MaxPool2d", x, 2, 2, 0, tag=f"c{level}"), channels, 3, tag=f"c{level}")
    # a pool of stride 1 keeps the size when the map is padded by one row and column
    x = b.add("nn.MaxPool2d", b.add("nn.ZeroPad2d", x, (0, 1, 0, 1), tag="p5"), 2, 1, 0, tag="p5")
    p5 = conv(b, conv(b, x, 1024, 3, tag="p5"), 256, tag="p5")
    large = conv(b, p5, 512, 3, tag="out")
    p4 = concat(b, [upsample(b, conv(b, p5, 128, tag="p4"), tag="p4"), c4], tag="p4")
    b.add("Detect", [conv(b, p4, 256, 3, tag="out"), large], tag="detect")
    return b.build(anchors=anchors.YOLOV3_TINY, num_classes=num_classes)


NETWORKS: Mapping[str, Callable[..., Graph]] = {
    "yolov3": yolov3,
    "yolov3-spp": partial(yolov3, pooled=True),
    "yolov3-tiny": yolov3_tiny,
}
