"""YOLOv7 for images of 640 pixels (arXiv 2207.02696), training forms: tiny, v7, X and the ablations made from X."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from yolov7_jax.graph.blocks import concat, conv, elan, lateral, spp_csp, transition
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import anchors
from yolov7_jax.graph.zoo.scaling import UNSCALED, Scaling

COMPOUND = Scaling(depth=1.5, width=1.25)
"""From v7-X light to v7-X."""

REP_POSITIONS: Mapping[str, tuple[int, ...]] = {
    "a": (1, 3, 5),
    "b": (2, 4, 6),
    "c": (1, 2),
    "d": (5, 6),
    "e": (1, 2, 3, 4, 5, 6),
}
"""Table 4: which of the six 3×3 convolutions in every ELAN of X (three stacks of two) are RepConv.

The paper shows the positions (a) to (e) in a drawing only (figure 6). These sets are our reading, not published: the
first of each stack, the second of each stack, the first stack, the last stack, all.
"""


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
    return b.build(anchors=anchors.YOLOV3, num_classes=num_classes)


def yolov7(
    *,
    num_classes: int,
    scaling: Scaling = UNSCALED,
    stacked: bool = False,
    rep: Collection[int] = (),
) -> Graph:
    """YOLOv7, and with a `stacked` head v7-X light, which scaled by `COMPOUND` is v7-X.

    The head of v7 has ELANs with a chain of half the width, all of it tapped, and RepConv before the detect layer.
    The stacked head has the backbone's ELANs (chain as wide as the branches, every second output tapped), and plain
    convolutions. rep: links of the chains in all ELANs that are planned RepConv.
    """
    b = Builder()
    wide, inside, depth = scaling.wide, scaling.inside, scaling.deep(4)
    second = range(2, depth + 1, 2)

    def stage(x: str, width: int, out: int, tag: str) -> str:
        width = inside(width)
        return elan(b, x, branch=width, chain=width, out=wide(out), depth=depth, taps=second, rep=rep, tag=tag)

    def fuse(x: str, width: int, tag: str) -> str:
        if stacked:
            return stage(x, width, width, tag)
        branch, chain, every = inside(width), inside(width // 2), range(1, depth + 1)
        return elan(b, x, branch=branch, chain=chain, out=wide(width), depth=depth, taps=every, rep=rep, tag=tag)

    stem = conv(
        b, conv(b, conv(b, IMAGE, wide(32), 3, tag="stem"), wide(64), 3, 2, tag="stem"), wide(64), 3, tag="stem"
    )
    c2 = stage(conv(b, stem, wide(128), 3, 2, tag="c2"), 64, 256, "c2")
    c3 = stage(transition(b, c2, wide(128), tag="c3"), 128, 512, "c3")
    c4 = stage(transition(b, c3, wide(256), tag="c4"), 256, 1024, "c4")
    c5 = stage(transition(b, c4, wide(512), tag="c5"), 256, 1024, "c5")

    p5 = b.add("SPPCSPC", c5, wide(512), tag="p5")
    p4 = fuse(lateral(b, p5, c4, wide(256), tag="p4"), 256, "p4")
    p3 = fuse(lateral(b, p4, c3, wide(128), tag="p3"), 128, "p3")
    n4 = fuse(transition(b, p3, wide(128), joined=[p4], tag="n4"), 256, "n4")
    n5 = fuse(transition(b, n4, wide(256), joined=[p5], tag="n5"), 512, "n5")

    out = "Conv" if stacked else "RepConv"
    outs = [b.add(out, x, wide(width), 3, 1, tag="out") for x, width in ((p3, 256), (n4, 512), (n5, 1024))]
    b.add("IDetect", outs, tag="detect")
    return b.build(anchors=anchors.YOLOV4, num_classes=num_classes)


_X = partial(yolov7, stacked=True, scaling=COMPOUND)

NETWORKS: Mapping[str, Callable[..., Graph]] = {
    "yolov7-tiny": partial(yolov7_tiny, activation="LeakyReLU(0.1)", head="IDetect"),
    "yolov7-tiny-silu": partial(yolov7_tiny, activation="SiLU", head="Detect"),
    "yolov7": yolov7,
    "yolov7x": _X,
    "yolov7x-light": partial(yolov7, stacked=True),
    "yolov7x-wide": partial(yolov7, stacked=True, scaling=Scaling(width=1.25, block_width=1.25)),
    "yolov7x-deep": partial(yolov7, stacked=True, scaling=Scaling(depth=2.0)),
    **{f"yolov7x-rep-{letter}": partial(_X, rep=positions) for letter, positions in REP_POSITIONS.items()},
}
