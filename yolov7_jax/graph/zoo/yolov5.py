"""YOLOv5: one architecture, scaled in depth and width; v6.0 and its forms before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from yolov7_jax.graph.blocks import concat, upsample
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Anchors, Graph, Value
from yolov7_jax.graph.zoo import anchors
from yolov7_jax.graph.zoo.scaling import Scaling

MULTIPLES: Mapping[str, Scaling] = {
    "n": Scaling(0.33, 0.25),
    "s": Scaling(0.33, 0.50),
    "m": Scaling(0.67, 0.75),
    "l": Scaling(1.00, 1.00),
    "x": Scaling(1.33, 1.25),
}
"""Depth and width multiples of each size."""

P5 = ((128, 3), (256, 6), (512, 9), (1024, 3))
P6 = (*P5[:3], (768, 3), (1024, 3))
P7 = (*P6, (1280, 3))
OLD_P5 = ((128, 3), (256, 9), (512, 9), (1024, 3))
"""Channels and repeats of the backbone's stages, from stride 4."""

JOINED_ACTIVATION = "LeakyReLU(0.1)"
"""Of BottleneckCSP's joined parts, whatever its convolutions have."""


class _Layers:
    """Adds the layers of YOLOv5, scaled. conv, block: their kinds."""

    def __init__(self, b: Builder, scaling: Scaling, *, conv: str, block: str) -> None:
        self.b, self.wide, self.deep = b, scaling.wide, scaling.deep
        self.kind, self.block = conv, block

    def conv(self, x: str, channels: int, *window: int, tag: str) -> str:
        """A convolution: 1×1, or window = (kernel, stride)."""
        return self.b.add(self.kind, x, self.wide(channels), *window, tag=tag)

    def csp(self, x: str, channels: int, repeats: int = 3, shortcut: bool = False, *, tag: str, block: str = "") -> str:
        """A cross-stage partial block, of its own kind where block is given."""
        kind = block or self.block
        joined: dict[str, Value] = {"csp_activation": JOINED_ACTIVATION} if kind == "BottleneckCSP" else {}
        return self.b.add(kind, x, self.wide(channels), self.deep(repeats), shortcut, tag=tag, **joined)

    def joined_up(self, coarse: str, fine: str, tag: str) -> str:
        """The coarse map upsampled and joined to the fine one."""
        return concat(self.b, [upsample(self.b, coarse, tag=tag), fine], tag=tag)


def _backbone(layers: _Layers, stages: Sequence[tuple[int, int]], *, old: bool, last_block: str) -> list[str]:
    """The outputs of the stages, from stride 4; the last has gone through spatial pyramid pooling.

    old: as before v6.0, space to depth in the stem, and the pooling before the last block, which has no shortcut.
    """
    b, wide = layers.b, layers.wide
    x = b.add("Focus", IMAGE, wide(64), 3, tag="stem") if old else b.add("Conv", IMAGE, wide(64), 6, 2, 2, tag="stem")
    outs: list[str] = []
    for level, (channels, repeats) in enumerate(stages, start=2):
        tag, last = f"c{level}", len(outs) == len(stages) - 1
        x = layers.conv(x, channels, 3, 2, tag=tag)
        if last and old:
            x = b.add("SPP", x, wide(channels), (5, 9, 13), tag=tag)
        x = layers.csp(x, channels, repeats, not (last and old), tag=tag, block=last_block if last else "")
        if last and not old:
            x = b.add("SPPF", x, wide(channels), 5, tag=tag)
        outs.append(x)
    return outs


def _path_aggregation(
    layers: _Layers, read: Mapping[int, str], widths: Mapping[int, int], *, detected: int, finest: int, again: bool
) -> list[str]:
    """Top-down, then bottom-up, for as many levels as are detected; read, widths: by level.

    finest: repeats of the last block on the way down. again: levels between the ends are joined once more on the way
    up, as in BiFPN.
    """
    first, *up, coarsest = sorted(read)
    x, reduced = read[coarsest], {}
    for level in (*reversed(up), first):
        tag = f"p{level}"
        reduced[level + 1] = layers.conv(x, widths[level], tag=tag)
        x = layers.joined_up(reduced[level + 1], read[level], tag)
        x = layers.csp(x, widths[level], finest if level == first else 3, tag=tag)
    outs = [x]
    for level in (*up, coarsest)[: detected - 1]:
        tag = f"n{level}"
        skips = [reduced[level], *([read[level]] if again and level in up else [])]
        x = concat(layers.b, [layers.conv(x, widths[level - 1], 3, 2, tag=tag), *skips], tag=tag)
        x = layers.csp(x, widths[level], tag=tag)
        outs.append(x)
    return outs


def _top_down(layers: _Layers, read: Mapping[int, str], widths: Mapping[int, int]) -> list[str]:
    """The feature pyramid alone (FPN)."""
    *fine, coarsest = sorted(read)
    outs = [layers.csp(read[coarsest], widths[coarsest], tag=f"p{coarsest}")]
    for level in reversed(fine):
        tag = f"p{level}"
        x = layers.conv(layers.joined_up(outs[0], read[level], tag), widths[level], tag=tag)
        outs.insert(0, layers.csp(x, widths[level], tag=tag))
    return outs


def yolov5(
    scaling: Scaling,
    *,
    num_classes: int,
    stages: Sequence[tuple[int, int]] = P5,
    first: int = 3,
    detected: int = 3,
    neck: Literal["panet", "bifpn", "fpn"] = "panet",
    finest: int = 3,
    old: bool = False,
    conv: str = "Conv",
    block: str = "C3",
    last_block: str = "",
    activation: str = "SiLU",
    anchors: Anchors | int = anchors.YOLOV3,
) -> Graph:
    """YOLOv5: CSP bottlenecks, spatial pyramid pooling, a pyramid over the levels from `first` (stride 2^first).

    detected: how many of them the detect layer reads. finest: repeats of the pyramid's finest block. old: stem and
    pooling of the releases before v6.0. conv, block, last_block: kinds of convolutions, of blocks, and of the
    backbone's last one.
    """
    b = Builder(activation=activation)
    layers = _Layers(b, scaling, conv=conv, block=block)
    outputs = _backbone(layers, stages, old=old, last_block=last_block)
    read = {level: x for level, x in enumerate(outputs, start=2) if level >= first}
    widths = {level: channels for level, (channels, _) in enumerate(stages, start=2)}
    if neck == "fpn":
        outs = _top_down(layers, read, widths)
    else:
        outs = _path_aggregation(layers, read, widths, detected=detected, finest=finest, again=neck == "bifpn")
    b.add("Detect", outs, tag="detect")
    return b.build(anchors=anchors, num_classes=num_classes)


_L, _S = MULTIPLES["l"], MULTIPLES["s"]
_V5 = partial(yolov5, stages=OLD_P5, old=True)
_V3 = partial(_V5, block="BottleneckCSP", activation="Hardswish")

NETWORKS: Mapping[str, Callable[..., Graph]] = {
    **{f"yolov5{size}": partial(yolov5, scaling) for size, scaling in MULTIPLES.items()},
    **{
        f"yolov5{size}6": partial(yolov5, scaling, stages=P6, detected=4, anchors=anchors.P6)
        for size, scaling in MULTIPLES.items()
    },
    "yolov5-p2": partial(yolov5, _L, first=2, detected=4, finest=1, anchors=3),
    "yolov5-p34": partial(yolov5, _S, detected=2, anchors=3),
    "yolov5-p6": partial(yolov5, _L, stages=P6, detected=4, anchors=3),
    "yolov5-p7": partial(yolov5, _L, stages=P7, detected=5, anchors=3),
    "yolov5-fpn": partial(yolov5, _L, neck="fpn"),
    "yolov5-panet": partial(yolov5, _L),
    "yolov5-bifpn": partial(yolov5, _L, neck="bifpn"),
    "yolov5s-LeakyReLU": partial(yolov5, _S, activation="LeakyReLU(0.1)"),
    "yolov5s-ghost": partial(yolov5, _S, conv="GhostConv", block="C3Ghost"),
    "yolov5s-transformer": partial(yolov5, _S, last_block="C3TR"),
    **{
        f"yolov5{size}-{version}": partial(build, MULTIPLES[size])
        for version, build in (("v3", _V3), ("v5", _V5))
        for size in "smlx"
    },
}
