"""YOLOv4 (arXiv 2004.10934) and its tiny forms (arXiv 2011.08036)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from yolov7_jax.graph.blocks import concat, conv, upsample
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import anchors

LEAKY = "LeakyReLU(0.1)"

CSP_DARKNET_53 = ((128, 2), (256, 8), (512, 8), (1024, 4))
"""Channels and repeats of the stages, from stride 4."""


def yolov4(*, num_classes: int) -> Graph:
    """YOLOv4: CSPDarknet53 with Mish, spatial pyramid pooling, path aggregation with LeakyReLU(0.1)."""
    b = Builder(activation="Mish")
    *_, c3, c4, c5 = _csp_darknet(b)
    b.activation = LEAKY

    def alternate(x: str, channels: int, count: int, tag: str) -> str:
        """1×1 to `channels` and 3×3 to twice as many, in turn, beginning and ending with a 1×1."""
        for number in range(count):
            x = conv(b, x, 2 * channels, 3, tag=tag) if number % 2 else conv(b, x, channels, tag=tag)
        return x

    def up(x: str, skip: str, channels: int, tag: str) -> str:
        above = upsample(b, conv(b, x, channels, tag=tag), tag=tag)
        return alternate(concat(b, [conv(b, skip, channels, tag=tag), above], tag=tag), channels, 5, tag)

    def on(x: str, skip: str, channels: int, tag: str) -> str:
        return alternate(concat(b, [conv(b, x, channels, 3, 2, tag=tag), skip], tag=tag), channels, 5, tag)

    x = alternate(c5, 512, 3, "p5")
    pools = [b.add("SP", x, kernel, tag="p5") for kernel in (13, 9, 5)]
    p5 = alternate(concat(b, [*pools, x], tag="p5"), 512, 3, "p5")
    p4 = up(p5, c4, 256, "p4")
    p3 = up(p4, c3, 128, "p3")
    n4 = on(p3, p4, 256, "n4")
    n5 = on(n4, p5, 512, "n5")
    outs = [conv(b, x, channels, 3, tag="out") for x, channels in ((p3, 256), (n4, 512), (n5, 1024))]
    b.add("Detect", outs, tag="detect")
    return b.build(anchors=anchors.YOLOV4, num_classes=num_classes)


def _csp_darknet(b: Builder) -> list[str]:
    """The outputs of the stages, from stride 2."""
    x = conv(b, conv(b, IMAGE, 32, 3, tag="stem"), 64, 3, 2, tag="c1")
    # the first stage keeps all channels in both branches, and has half of them inside its bottleneck
    cross, main = conv(b, x, 64, tag="c1"), conv(b, x, 64, tag="c1")
    main = conv(b, b.add("Bottleneck", main, 64, tag="c1"), 64, tag="c1")
    stages = [conv(b, concat(b, [main, cross], tag="c1"), 64, tag="c1")]
    for level, (channels, repeats) in enumerate(CSP_DARKNET_53, start=2):
        x = conv(b, stages[-1], channels, 3, 2, tag=f"c{level}")
        stages.append(b.add("BottleneckCSPC", x, channels, repeats, tag=f"c{level}"))
    return stages


def yolov4_tiny(*, num_classes: int) -> Graph:
    """YOLOv4-tiny: three blocks that route half of their channels around themselves; two levels."""
    b = Builder(activation=LEAKY)
    _, c4, c5 = _tiny_backbone(b)
    p5 = conv(b, c5, 256, tag="p5")
    large = conv(b, p5, 512, 3, tag="out")
    p4 = concat(b, [upsample(b, conv(b, p5, 128, tag="p4"), tag="p4"), c4], tag="p4")
    b.add("Detect", [conv(b, p4, 256, 3, tag="out"), large], tag="detect")
    return b.build(anchors=anchors.YOLOV3_TINY, num_classes=num_classes)


def yolov4_tiny_3l(*, num_classes: int) -> Graph:
    """YOLOv4-tiny with three levels and a head that goes top-down and bottom-up.

    Published of this network are its 8.7 M parameters, its 5.2 GFLOPs at 320 pixels and its accuracy only. The
    backbone is that of YOLOv4-tiny; the head and its anchors (those of YOLOv7-tiny) are ours. It is chosen to meet
    both numbers (8.75 M, 5.20 GFLOPs): the backbone's block on the coarsest map and at every fusion, stride-2
    convolutions from fine to coarse, tiny's 3×3 before the detect layer.
    """
    b = Builder(activation=LEAKY)
    c3, c4, c5 = _tiny_backbone(b)

    def fuse(xs: Sequence[str], channels: int, tag: str) -> str:
        return _tiny_block(b, conv(b, concat(b, xs, tag=tag), channels, tag=tag), channels, tag)[1]

    def up(x: str, skip: str, channels: int, tag: str) -> str:
        return fuse([upsample(b, conv(b, x, channels, tag=tag), tag=tag), skip], channels, tag)

    def on(x: str, skip: str, channels: int, tag: str) -> str:
        return fuse([conv(b, x, channels, 3, 2, tag=tag), skip], channels, tag)

    p5 = conv(b, concat(b, _tiny_block(b, conv(b, c5, 256, tag="p5"), 256, "p5"), tag="p5"), 256, tag="p5")
    p4 = up(p5, c4, 128, "p4")
    p3 = up(p4, c3, 64, "p3")
    n4 = on(p3, p4, 128, "n4")
    n5 = on(n4, p5, 256, "n5")
    outs = [conv(b, x, channels, 3, tag="out") for x, channels in ((p3, 128), (n4, 256), (n5, 512))]
    b.add("Detect", outs, tag="detect")
    return b.build(anchors=anchors.YOLOV3, num_classes=num_classes)


def _tiny_backbone(b: Builder) -> tuple[str, str, str]:
    """Maps of stride 8, 16 and 32; of the blocks at the finer ones, the part that the head reads."""
    x = conv(b, conv(b, IMAGE, 32, 3, 2, tag="stem"), 64, 3, 2, tag="stem")
    fine = []
    for level, channels in enumerate((64, 128, 256), start=2):
        parts = _tiny_block(b, x, channels, f"c{level}")
        fine.append(parts[1])
        x = b.add("MP", concat(b, parts, tag=f"c{level}"), tag=f"c{level}")
    return fine[1], fine[2], conv(b, x, 512, 3, tag="c5")


def _tiny_block(b: Builder, x: str, channels: int, tag: str) -> tuple[str, str]:
    """A cross-stage partial block: a convolution, and what half of its channels become, joined by a 1×1.

    Returns both, which the block's output is the concatenation of; the head reads the second alone.
    """
    first = conv(b, x, channels, 3, tag=tag)
    inner = conv(b, b.add("Chunk", first, 2, 1, tag=tag), channels // 2, 3, tag=tag)
    joined = concat(b, [conv(b, inner, channels // 2, 3, tag=tag), inner], tag=tag)
    return first, conv(b, joined, channels, tag=tag)


NETWORKS: Mapping[str, Callable[..., Graph]] = {
    "yolov4": yolov4,
    "yolov4-tiny": yolov4_tiny,
    "yolov4-tiny-3l": yolov4_tiny_3l,
}
