"""YOLOR (arXiv 2105.04206) and the networks of its shape: cross-stage partial backbone and path aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from yolov7_jax.graph.blocks import concat, conv, halve, lateral
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Anchors, Graph
from yolov7_jax.graph.zoo import anchors
from yolov7_jax.graph.zoo.scaling import UNSCALED, Scaling


class _Csp:
    """Adds cross-stage partial blocks around one kind of block.

    block: "Bottleneck" is the dark block; "RepBottleneck", "Res" and "ResX" are the others. reverse: the block has
    its 3×3 before its 1×1 (the reversed dark block).
    """

    def __init__(self, b: Builder, block: str, *, reverse: bool) -> None:
        self.b, self.block = b, block
        self.options = {"reversed": True} if reverse else {}

    def single(self, x: str, channels: int, tag: str) -> str:
        """One block, not in a cross-stage partial one."""
        return self.b.add(self.block, x, channels, tag=tag, **self.options)

    def stack(self, layout: str, x: str, channels: int, repeats: int, tag: str) -> str:
        """A cross-stage partial block of a layout A, B or C."""
        return self.b.add(f"{self.block}CSP{layout}", x, channels, repeats, tag=tag, **self.options)


def yolor(
    *,
    num_classes: int,
    stem: Literal["darknet", "reorg", "resnet"],
    widths: Sequence[int],
    repeats: Sequence[int],
    layout: Literal["A", "B", "C"],
    neck_repeats: int,
    anchors: Anchors,
    down: str = "Conv",
    block: str = "Bottleneck",
    reverse: bool = False,
    head: str = "IDetect",
    scaling: Scaling = UNSCALED,
) -> Graph:
    """A backbone of cross-stage partial stages, SPPCSPC, and a head that goes top-down and bottom-up.

    stem: brings the image to stride 4. widths, repeats: of the stages, from stride 4; the head reads
    them from stride 8 and has half of their widths. layout: of the stages' blocks (the head's is B).
    """
    b = Builder()
    csp = _Csp(b, block, reverse=reverse)
    widths = [scaling.wide(width) for width in widths]
    neck = scaling.deep(neck_repeats)

    x = _stem(b, csp, stem, widths[0], down)
    stages = []
    for level, (width, count) in enumerate(zip(widths, repeats, strict=True), start=2):
        x = halve(b, x, width, down=down, tag=f"c{level}") if level > 2 else x
        x = csp.stack(layout, x, width, scaling.deep(count), f"c{level}")
        stages.append(x)

    coarsest = len(widths) - 1
    pyramid = {coarsest: b.add("SPPCSPC", x, widths[-1] // 2, tag=f"p{coarsest + 2}")}
    for level in reversed(range(1, coarsest)):
        half, tag = widths[level] // 2, f"p{level + 2}"
        joined = lateral(b, pyramid[level + 1], stages[level], half, tag=tag)
        pyramid[level] = csp.stack("B", joined, half, neck, tag)

    x, outs = pyramid[1], [conv(b, pyramid[1], widths[1], 3, tag="out")]
    for level in range(2, coarsest + 1):
        half, tag = widths[level] // 2, f"n{level + 2}"
        joined = concat(b, [halve(b, x, half, down=down, tag=tag), pyramid[level]], tag=tag)
        x = csp.stack("B", joined, half, neck, tag)
        outs.append(conv(b, x, widths[level], 3, tag="out"))
    b.add(head, outs, tag="detect")
    return b.build(anchors=anchors, num_classes=num_classes)


def _stem(b: Builder, csp: _Csp, stem: str, width: int, down: str) -> str:
    """The image at stride 4, with `width` channels."""
    if stem == "resnet":
        return b.add("Stem", IMAGE, width, tag="stem")
    if stem == "reorg":
        x = conv(b, b.add("ReOrg", IMAGE, tag="stem"), width // 2, 3, tag="stem")
    else:
        x = conv(b, conv(b, IMAGE, width // 4, 3, tag="stem"), width // 2, 3, 2, tag="stem")
        x = csp.single(x, width // 2, "stem")
    return halve(b, x, width, down=down, tag="c2")


_P5 = partial(yolor, widths=(128, 256, 512, 1024), layout="C", neck_repeats=2, anchors=anchors.YOLOV4)
_CSP = partial(_P5, stem="darknet", repeats=(2, 8, 8, 4))
_RES = partial(_P5, stem="resnet", repeats=(3, 4, 6, 3))
_P6 = partial(yolor, stem="reorg", repeats=(3, 7, 7, 3, 3), layout="A", neck_repeats=3, anchors=anchors.P6)
_W6 = partial(_P6, widths=(128, 256, 512, 768, 1024))
_E6 = partial(_W6, scaling=Scaling(width=1.25), down="DownC")

NETWORKS: Mapping[str, Callable[..., Graph]] = {
    "yolor-csp": _CSP,
    "yolor-csp-x": partial(_CSP, scaling=Scaling(depth=1.33, width=1.25)),
    "yolor-p6": partial(_P6, widths=(128, 256, 384, 512, 640)),
    "yolor-w6": _W6,
    "yolor-e6": _E6,
    "yolor-d6": partial(_E6, repeats=(3, 15, 15, 7, 7)),
    "yolov4-csp": partial(_CSP, head="Detect"),
    "r50-csp": partial(_RES, block="Res"),
    "x50-csp": partial(_RES, block="ResX"),
    "yolor-w6-repcsp": partial(_W6, block="RepBottleneck"),
    "yolor-w6-rcsp": partial(_W6, reverse=True),
    "yolor-w6-reprcsp": partial(_W6, block="RepBottleneck", reverse=True),
    "yolor-csp-reprcsp": partial(_CSP, block="RepBottleneck", reverse=True),
}
