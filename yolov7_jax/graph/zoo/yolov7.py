"""YOLOv7 (arXiv 2207.02696), training forms."""

from __future__ import annotations

from yolov7_jax.graph.blocks import concat, conv, elan, lateral, spp_csp, transition
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph

TINY_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


def yolov7_tiny(*, num_classes: int, activation: str, head: str) -> Graph:
    """YOLOv7-tiny: ELANs of two 3×3, plain max pools between stages, stride-2 convolutions on the way down."""
    b = Builder(activation=activation)

    def block(x: str, width: int, tag: str) -> str:
        return elan(b, x, branch=width, chain=width, out=2 * width, depth=2, taps=(1, 2), tag=tag)

    c2 = block(conv(b, conv(b, IMAGE, 32, 3, 2, tag="stem"), 64, 3, 2, tag="stem"), 32, "c2")
    c3 = block(b.add("MP", c2, tag="c3"), 64, "c3")
    c4 = block(b.add("MP", c3, tag="c4"), 128, "c4")
    c5 = block(b.add("MP", c4, tag="c5"), 256, "c5")

    p5 = spp_csp(b, c5, 256, tag="p5")
    p4 = block(lateral(b, p5, c4, 128, tag="p4"), 64, "p4")
    p3 = block(lateral(b, p4, c3, 64, tag="p3"), 32, "p3")
    n4 = block(concat(b, [conv(b, p3, 128, 3, 2, tag="n4"), p4], tag="n4"), 64, "n4")
    n5 = block(concat(b, [conv(b, n4, 256, 3, 2, tag="n5"), p5], tag="n5"), 128, "n5")

    outs = [conv(b, x, width, 3, tag="out") for x, width in ((p3, 128), (n4, 256), (n5, 512))]
    b.add(head, outs, tag="detect")
    return b.build(anchors=TINY_ANCHORS, num_classes=num_classes)


def yolov7(*, num_classes: int) -> Graph:
    """YOLOv7: ELANs of four 3×3, SPPCSPC, planned re-parameterized convolutions before the head."""
    b = Builder()

    def stage(x: str, width: int, out: int, tag: str) -> str:
        return elan(b, x, branch=width, chain=width, out=out, tag=tag)

    def fuse(x: str, width: int, tag: str) -> str:
        return elan(b, x, branch=width, chain=width // 2, out=width, taps=(1, 2, 3, 4), tag=tag)

    stem = conv(b, conv(b, conv(b, IMAGE, 32, 3, tag="stem"), 64, 3, 2, tag="stem"), 64, 3, tag="stem")
    c2 = stage(conv(b, stem, 128, 3, 2, tag="c2"), 64, 256, "c2")
    c3 = stage(transition(b, c2, 128, tag="c3"), 128, 512, "c3")
    c4 = stage(transition(b, c3, 256, tag="c4"), 256, 1024, "c4")
    c5 = stage(transition(b, c4, 512, tag="c5"), 256, 1024, "c5")

    p5 = b.add("SPPCSPC", c5, 512, tag="p5")
    p4 = fuse(lateral(b, p5, c4, 256, tag="p4"), 256, "p4")
    p3 = fuse(lateral(b, p4, c3, 128, tag="p3"), 128, "p3")
    n4 = fuse(transition(b, p3, 128, joined=[p4], tag="n4"), 256, "n4")
    n5 = fuse(transition(b, n4, 256, joined=[p5], tag="n5"), 512, "n5")

    outs = [b.add("RepConv", x, width, 3, 1, tag="out") for x, width in ((p3, 256), (n4, 512), (n5, 1024))]
    b.add("IDetect", outs, tag="detect")
    return b.build(anchors=ANCHORS, num_classes=num_classes)
