"""YOLOv7 for images of 1280 pixels (arXiv 2207.02696), training forms: W6, E6, D6, E6E, with auxiliary heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from yolov7_jax.graph.blocks import concat, conv, elan, extended, halve, lateral
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import anchors
from yolov7_jax.graph.zoo.scaling import UNSCALED, Scaling

LEAD_WIDTHS = (256, 512, 768, 1024)
"""Channels that the lead head reads in W6, from stride 8 to 64."""


def yolov7_p6(
    *,
    num_classes: int,
    scaling: Scaling = UNSCALED,
    down: str = "Conv",
    blocks: int = 1,
    aux: Literal["none", "sum", "partial"] = "partial",
    aux_width: float = 1.0,
) -> Graph:
    """YOLOv7-W6 and what is scaled from it.

    down: how stages halve the size, see `blocks.halve`. blocks: ELANs side by side (E-ELAN where more than 1).
    aux: where the auxiliary head reads the top-down pyramid (section 4.2, table 8): "sum" of the blocks, "partial"
    (the last block before the sum: the same where blocks is 1), or "none" without one. aux_width: its channels,
    as a multiple of the lead head's.
    """
    b = Builder()
    wide, depth = scaling.wide, scaling.deep(4)
    second, every = range(2, depth + 1, 2), range(1, depth + 1)

    def stage(x: str, width: int, tag: str) -> str:
        x = halve(b, x, wide(width), down=down, tag=tag)
        half = scaling.inside(width // 2)
        block = partial(elan, b, branch=half, chain=half, out=wide(width), depth=depth, taps=second, tag=tag)
        return extended(b, x, block, blocks, tag=tag)[0]

    def fuse(x: str, width: int, tag: str) -> tuple[str, str]:
        branch, chain = scaling.inside(width), scaling.inside(width // 2)
        block = partial(elan, b, branch=branch, chain=chain, out=wide(width), depth=depth, taps=every, tag=tag)
        return extended(b, x, block, blocks, tag=tag)

    def up(x: str, skip: str, width: int, tag: str) -> tuple[str, str]:
        return fuse(lateral(b, x, skip, wide(width), tag=tag), width, tag)

    def on(x: str, skip: str, width: int, tag: str) -> str:
        return fuse(concat(b, [halve(b, x, wide(width), down=down, tag=tag), skip], tag=tag), width, tag)[0]

    c1 = conv(b, b.add("ReOrg", IMAGE, tag="stem"), wide(64), 3, tag="stem")
    c3 = stage(stage(c1, 128, "c2"), 256, "c3")
    c4 = stage(c3, 512, "c4")
    c5 = stage(c4, 768, "c5")
    c6 = stage(c5, 1024, "c6")

    p6 = b.add("SPPCSPC", c6, wide(512), tag="p6")
    p5, last5 = up(p6, c5, 384, "p5")
    p4, last4 = up(p5, c4, 256, "p4")
    p3, last3 = up(p4, c3, 128, "p3")
    n4 = on(p3, p4, 256, "n4")
    n5 = on(n4, p5, 384, "n5")
    n6 = on(n5, p6, 512, "n6")

    taps = {"none": (), "sum": (p3, p4, p5, p6), "partial": (last3, last4, last5, p6)}[aux]
    lead = [conv(b, x, wide(width), 3, tag="out") for x, width in zip((p3, n4, n5, n6), LEAD_WIDTHS, strict=True)]
    more = [conv(b, x, round(wide(w) * aux_width), 3, tag="aux") for x, w in zip(taps, LEAD_WIDTHS, strict=False)]
    b.add("IAuxDetect" if more else "IDetect", [*lead, *more], tag="detect")
    return b.build(anchors=anchors.P6, num_classes=num_classes)


_E6 = partial(yolov7_p6, scaling=Scaling(depth=1.5, width=1.25), down="DownC")
_E6E = partial(_E6, blocks=2)

NETWORKS: Mapping[str, Callable[..., Graph]] = {
    "yolov7-w6": partial(yolov7_p6, aux_width=1.25),
    "yolov7-e6": _E6,
    "yolov7-d6": partial(yolov7_p6, scaling=Scaling(depth=2.0, width=1.5), down="DownC"),
    "yolov7-e6e": _E6E,
    "yolov7-e6-no-aux": partial(_E6, aux="none"),
    "yolov7-e6e-no-aux": partial(_E6E, aux="none"),
    "yolov7-e6e-aux-sum": partial(_E6E, aux="sum"),
}
