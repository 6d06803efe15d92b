"""The table of layer kinds: the arguments each takes, in the order of the yolov5/yolov7 model YAML, and what it gives.

Names and meaning follow the public model files of YOLOv5, YOLOR and YOLOv7; those have no word for
`Chunk`, the route by groups of YOLOv4-tiny, and `AuxDetect`, an auxiliary head without implicit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.spec import Value

REQUIRED = object()
"""Stands for the default of an argument that has none."""

ATTENTION_HEADS = 4


class Shape(NamedTuple):
    """Of a feature map: channels, and stride, the pixels of the image that one of its cells stands for."""

    channels: int
    stride: Fraction


class Kind(NamedTuple):
    """A layer kind.

    shape: function of the shapes of its inputs and of all arguments by name, to the shape of its output.
    positional: arguments of the YAML in their order, with their defaults; `repeats` marks a kind that holds its own
    repeats. named: arguments that are given by name only. `activation` is that of all its convolutions.
    """

    shape: Callable[..., Shape]
    positional: Mapping[str, Value] = {}
    named: Mapping[str, Value] = {}

    @property
    def arguments(self) -> dict[str, Value]:
        """All arguments with their defaults."""
        return {**self.positional, **self.named}


def _one(inputs: Sequence[Shape]) -> Shape:
    if len(inputs) != 1:
        raise GraphError(f"expected one input, got {len(inputs)}")
    return inputs[0]


def _several(inputs: Sequence[Shape]) -> Shape:
    if len({x.stride for x in inputs}) != 1:
        raise GraphError(f"its inputs have strides {', '.join(str(x.stride) for x in inputs)}; expected one stride")
    return Shape(sum(x.channels for x in inputs), inputs[0].stride)


def _parted(channels: int, parts: int) -> int:
    """A part of some channels."""
    if channels % parts:
        raise GraphError(f"it parts channels, so they must be a multiple of {parts}, got {channels}")
    return channels // parts


def _conv(inputs: Sequence[Shape], *, channels: int, stride: int, groups: int = 1, **_: Any) -> Shape:
    x = _one(inputs)
    if x.channels % groups or channels % groups:
        raise GraphError(f"{groups} groups do not divide its {x.channels} input and {channels} output channels")
    return Shape(channels, x.stride * stride)


def _rep_conv(inputs: Sequence[Shape], *, kernel: int, padding: int | None, **options: Any) -> Shape:
    if kernel != 3 or padding not in (None, 1):
        raise GraphError(f"RepConv has a 3x3 kernel with padding 1, got kernel {kernel} and padding {padding}")
    return _conv(inputs, **options)


def _ghost_conv(inputs: Sequence[Shape], *, channels: int, **options: Any) -> Shape:
    return _conv(inputs, channels=2 * _parted(channels, 2), **options)


def _ghost_bottleneck(inputs: Sequence[Shape], *, channels: int, stride: int, **_: Any) -> Shape:
    x = _one(inputs)
    _parted(channels, 4)
    if stride == 1 and x.channels != channels:
        raise GraphError(f"it adds its input, so {x.channels} input channels must give as many, got {channels}")
    return Shape(channels, x.stride * stride)


def _focus(inputs: Sequence[Shape], **options: Any) -> Shape:
    return _conv([_space_to_depth(inputs)], **options)


def _stem(inputs: Sequence[Shape], *, channels: int, **_: Any) -> Shape:
    return Shape(2 * _parted(channels, 2), _one(inputs).stride * 4)


def _down(inputs: Sequence[Shape], *, channels: int, kernel: int, **_: Any) -> Shape:
    return Shape(2 * _parted(channels, 2), _one(inputs).stride * kernel)


def _residual(inputs: Sequence[Shape], *, channels: int, groups: int, expansion: float, **_: Any) -> Shape:
    hidden = _hidden(channels, expansion)
    if hidden % groups or channels % groups:
        raise GraphError(f"{groups} groups do not divide its {hidden} hidden and {channels} output channels")
    return Shape(channels, _one(inputs).stride)


def _csp(inputs: Sequence[Shape], *, channels: int, groups: int = 1, expansion: float = 1.0, **_: Any) -> Shape:
    if _hidden(channels, expansion) % groups:
        raise GraphError(f"{groups} groups do not divide its {_hidden(channels, expansion)} hidden channels")
    return Shape(channels, _one(inputs).stride)


def _csp_of(parts: int) -> Callable[..., Shape]:
    """A cross-stage partial layer whose blocks part its hidden channels."""

    def shape(inputs: Sequence[Shape], *, channels: int, expansion: float, **options: Any) -> Shape:
        _parted(_hidden(channels, expansion), parts)
        return _csp(inputs, channels=channels, expansion=expansion, **options)

    return shape


def _hidden(channels: int, expansion: float) -> int:
    if int(channels * expansion) < 1:
        raise GraphError(f"expansion {expansion} of {channels} channels leaves none")
    return int(channels * expansion)


def _pyramid_pool(inputs: Sequence[Shape], *, channels: int, **_: Any) -> Shape:
    return Shape(channels, _one(inputs).stride)


def _tiled_pool(inputs: Sequence[Shape], *, kernel: int) -> Shape:
    x = _one(inputs)
    return Shape(x.channels, x.stride * kernel)


def _same_pool(inputs: Sequence[Shape], *, kernel: int, stride: int) -> Shape:
    if kernel % 2 == 0:
        raise GraphError(f"SP pads its kernel evenly on both sides, so that must be odd, got {kernel}")
    x = _one(inputs)
    return Shape(x.channels, x.stride * stride)


def _max_pool(inputs: Sequence[Shape], *, kernel: int, pool_stride: int | None, padding: int | None) -> Shape:
    if (padding or 0) > kernel // 2:
        raise GraphError(f"its padding must be at most half of its kernel {kernel}, got {padding}")
    x = _one(inputs)
    return Shape(x.channels, x.stride * (pool_stride or kernel))


def _zero_pad(inputs: Sequence[Shape], **_: Any) -> Shape:
    return _one(inputs)


def _upsample(inputs: Sequence[Shape], *, size: None, factor: int, mode: str) -> Shape:
    if size is not None or mode != "nearest":
        raise GraphError(f"only upsampling by a whole factor with mode 'nearest' is known, got {(size, factor, mode)}")
    x = _one(inputs)
    return Shape(x.channels, x.stride / factor)


def _space_to_depth(inputs: Sequence[Shape], *, gain: int = 2) -> Shape:
    x = _one(inputs)
    return Shape(x.channels * gain**2, x.stride * gain)


def _depth_to_space(inputs: Sequence[Shape], *, gain: int) -> Shape:
    x = _one(inputs)
    return Shape(_parted(x.channels, gain**2), x.stride / gain)


def _concat(inputs: Sequence[Shape], *, dimension: int) -> Shape:
    if dimension != 1:
        raise GraphError(f"it joins channels (dimension 1), got dimension {dimension}")
    return _several(inputs)


def _shortcut(inputs: Sequence[Shape], **_: Any) -> Shape:
    if len(inputs) != 2 or len({x.channels for x in inputs}) != 1:
        sizes = ", ".join(str(x.channels) for x in inputs)
        raise GraphError(f"it adds two inputs of the same channels, got {len(inputs)} with {sizes}")
    return Shape(inputs[0].channels, _several(inputs).stride)


def _chuncat(inputs: Sequence[Shape], **_: Any) -> Shape:
    for x in inputs:
        _parted(x.channels, 2)
    return _several(inputs)


def _foldcut(inputs: Sequence[Shape], **_: Any) -> Shape:
    x = _one(inputs)
    return Shape(_parted(x.channels, 2), x.stride)


def _chunk(inputs: Sequence[Shape], *, groups: int, place: int) -> Shape:
    x = _one(inputs)
    if place >= groups:
        raise GraphError(f"it takes one of {groups} groups, counted from 0, got {place}")
    return Shape(_parted(x.channels, groups), x.stride)


def _detect(inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _detect_aux(inputs: Sequence[Shape]) -> Shape:
    half, rest = divmod(len(inputs), 2)
    lead, aux = ([x.stride for x in part] for part in (inputs[:half], inputs[half:]))
    if rest or lead != aux:
        raise GraphError(
            f"it reads the lead levels, then as many auxiliary ones of the same strides, got strides "
            f"{', '.join(str(x.stride) for x in inputs)}"
        )
    return inputs[0]


_ACTIVATION = {"activation": "SiLU"}
_CHANNELS = {"channels": REQUIRED}
_WINDOW = {**_CHANNELS, "kernel": 1, "stride": 1}
_CONV = {**_WINDOW, "padding": None, "groups": 1, **_ACTIVATION}
_RESIDUAL = {**_CHANNELS, "shortcut": True, "groups": 1, "expansion": 0.5}
_CSP = {**_CHANNELS, "repeats": 1, "shortcut": True, "groups": 1, "expansion": 0.5}
_WIDE_GROUPS = {"groups": 32}
_REVERSED = {"reversed": False}
_IDENTITY = {"identity": True}
_DIMENSION = {"dimension": 1}
_GAIN = {"gain": 2}


def _csp_variants(block: str, *, named: Mapping[str, Value], groups: int = 1, plain_b: bool = False) -> dict[str, Kind]:
    """The layouts A, B and C of cross-stage partial layers around a block; plain_b: B has no sums by default."""
    return {
        f"{block}CSP{layout}": Kind(
            _csp,
            {**_CSP, "groups": groups, "shortcut": not (plain_b and layout == "B")},
            {**named, **_ACTIVATION},
        )
        for layout in "ABC"
    }


KINDS: Mapping[str, Kind] = {
    "Conv": Kind(_conv, _CONV),
    "DWConv": Kind(_conv, {**_WINDOW, **_ACTIVATION}),
    "RepConv": Kind(_rep_conv, {**_CONV, "kernel": 3}, _IDENTITY),
    "GhostConv": Kind(_ghost_conv, {**_WINDOW, "groups": 1, **_ACTIVATION}),
    "Focus": Kind(_focus, _CONV),
    "Stem": Kind(_stem, _CHANNELS, _ACTIVATION),
    "DownC": Kind(_down, {**_CHANNELS, "repeats": 1, "kernel": 2}, _ACTIVATION),
    "Bottleneck": Kind(_residual, _RESIDUAL, {**_REVERSED, **_ACTIVATION}),
    "Res": Kind(_residual, _RESIDUAL, _ACTIVATION),
    "ResX": Kind(_residual, {**_RESIDUAL, **_WIDE_GROUPS}, _ACTIVATION),
    "RepBottleneck": Kind(_residual, _RESIDUAL, {**_REVERSED, **_IDENTITY, **_ACTIVATION}),
    "RepRes": Kind(_residual, _RESIDUAL, {**_IDENTITY, **_ACTIVATION}),
    "RepResX": Kind(_residual, {**_RESIDUAL, **_WIDE_GROUPS}, {**_IDENTITY, **_ACTIVATION}),
    "GhostBottleneck": Kind(_ghost_bottleneck, {**_CHANNELS, "kernel": 3, "stride": 1}, _ACTIVATION),
    "BottleneckCSP": Kind(_csp, _CSP, {"csp_activation": None, **_ACTIVATION}),
    "C3": Kind(_csp, _CSP, _ACTIVATION),
    "C3TR": Kind(_csp_of(ATTENTION_HEADS), _CSP, _ACTIVATION),
    "C3Ghost": Kind(_csp_of(4), _CSP, _ACTIVATION),
    **_csp_variants("Bottleneck", named=_REVERSED, plain_b=True),
    **_csp_variants("Res", named={}),
    **_csp_variants("ResX", named={}, groups=32),
    **_csp_variants("RepBottleneck", named={**_REVERSED, **_IDENTITY}, plain_b=True),
    **_csp_variants("RepRes", named=_IDENTITY),
    **_csp_variants("RepResX", named=_IDENTITY, groups=32),
    "SPP": Kind(_pyramid_pool, {**_CHANNELS, "kernels": (5, 9, 13)}, _ACTIVATION),
    "SPPF": Kind(_pyramid_pool, {**_CHANNELS, "kernel": 5}, _ACTIVATION),
    "SPPCSPC": Kind(_csp, {**_CSP, "shortcut": False, "kernels": (5, 9, 13)}, _ACTIVATION),
    "MP": Kind(_tiled_pool, {"kernel": 2}),
    "SP": Kind(_same_pool, {"kernel": 3, "stride": 1}),
    "nn.MaxPool2d": Kind(_max_pool, {"kernel": REQUIRED, "pool_stride": None, "padding": 0}),
    "nn.ZeroPad2d": Kind(_zero_pad, {"margins": REQUIRED}),
    "nn.Upsample": Kind(_upsample, {"size": None, "factor": 2, "mode": "nearest"}),
    "ReOrg": Kind(_space_to_depth),
    "Contract": Kind(_space_to_depth, _GAIN),
    "Expand": Kind(_depth_to_space, _GAIN),
    "Concat": Kind(_concat, _DIMENSION),
    "Shortcut": Kind(_shortcut, _DIMENSION),
    "Chuncat": Kind(_chuncat, _DIMENSION),
    "Foldcut": Kind(_foldcut, _DIMENSION),
    "Chunk": Kind(_chunk, {"groups": 2, "place": 1}),
    "Detect": Kind(_detect),
    "IDetect": Kind(_detect),
    "IAuxDetect": Kind(_detect_aux),
    "AuxDetect": Kind(_detect_aux),
}

DETECT_KINDS = tuple(kind for kind in KINDS if kind.endswith("Detect"))
