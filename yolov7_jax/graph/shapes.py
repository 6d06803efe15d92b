"""Shapes of feature maps, and the rules by which layers change them.

A rule takes the shapes of a layer's inputs and all its arguments by name, and gives the shape of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from yolov7_jax.errors import GraphError


class Shape(NamedTuple):
    """Of a feature map: channels, and stride, the pixels of the image that one of its cells stands for."""

    channels: int
    stride: Fraction


ATTENTION_HEADS = 4

ShapeRule = Callable[..., Shape]


def by_arguments(inputs: Sequence[Shape], *, channels: int | None = None, stride: int = 1, **_: Any) -> Shape:
    """What most layers give: `channels` where they take those, and a size divided by `stride` where they take that."""
    x = _one(inputs)
    return Shape(channels or x.channels, x.stride * stride)


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


def conv(inputs: Sequence[Shape], *, channels: int, stride: int, groups: int = 1, **_: Any) -> Shape:
    """A convolution."""
    x = _one(inputs)
    if x.channels % groups or channels % groups:
        raise GraphError(f"{groups} groups do not divide its {x.channels} input and {channels} output channels")
    return Shape(channels, x.stride * stride)


def rep_conv(inputs: Sequence[Shape], *, kernel: int, padding: int | None, **options: Any) -> Shape:
    """A RepConv."""
    if kernel != 3 or padding not in (None, 1):
        raise GraphError(f"RepConv has a 3x3 kernel with padding 1, got kernel {kernel} and padding {padding}")
    return conv(inputs, **options)


def ghost_conv(inputs: Sequence[Shape], *, channels: int, **options: Any) -> Shape:
    """A ghost convolution."""
    return conv(inputs, channels=2 * _parted(channels, 2), **options)


def ghost_bottleneck(inputs: Sequence[Shape], *, channels: int, stride: int, **_: Any) -> Shape:
    """A ghost bottleneck."""
    x = _one(inputs)
    _parted(channels, 4)
    if stride == 1 and x.channels != channels:
        raise GraphError(f"it adds its input, so {x.channels} input channels must give as many, got {channels}")
    return Shape(channels, x.stride * stride)


def focus(inputs: Sequence[Shape], **options: Any) -> Shape:
    """Space to depth, then a convolution."""
    return conv([space_to_depth(inputs)], **options)


def stem(inputs: Sequence[Shape], *, channels: int, **_: Any) -> Shape:
    """A quarter of the size."""
    return Shape(2 * _parted(channels, 2), _one(inputs).stride * 4)


def down(inputs: Sequence[Shape], *, channels: int, kernel: int, **_: Any) -> Shape:
    """Halves, each of half the channels, joined."""
    return Shape(2 * _parted(channels, 2), _one(inputs).stride * kernel)


def residual(inputs: Sequence[Shape], *, channels: int, groups: int, expansion: float, **_: Any) -> Shape:
    """A residual block."""
    hidden = _hidden(channels, expansion)
    if hidden % groups or channels % groups:
        raise GraphError(f"{groups} groups do not divide its {hidden} hidden and {channels} output channels")
    return Shape(channels, _one(inputs).stride)


def csp(inputs: Sequence[Shape], *, channels: int, groups: int = 1, expansion: float = 1.0, **_: Any) -> Shape:
    """A cross-stage partial layer."""
    if _hidden(channels, expansion) % groups:
        raise GraphError(f"{groups} groups do not divide its {_hidden(channels, expansion)} hidden channels")
    return Shape(channels, _one(inputs).stride)


def csp_of(parts: int) -> Callable[..., Shape]:
    """A cross-stage partial layer whose blocks part its hidden channels."""

    def shape(inputs: Sequence[Shape], *, channels: int, expansion: float, **options: Any) -> Shape:
        _parted(_hidden(channels, expansion), parts)
        return csp(inputs, channels=channels, expansion=expansion, **options)

    return shape


def _hidden(channels: int, expansion: float) -> int:
    if int(channels * expansion) < 1:
        raise GraphError(f"expansion {expansion} of {channels} channels leaves none")
    return int(channels * expansion)


def pyramid_pool(inputs: Sequence[Shape], *, channels: int, **_: Any) -> Shape:
    """Pools of one size, joined."""
    return Shape(channels, _one(inputs).stride)


def tiled_pool(inputs: Sequence[Shape], *, kernel: int) -> Shape:
    """A pool of tiles."""
    x = _one(inputs)
    return Shape(x.channels, x.stride * kernel)


def same_pool(inputs: Sequence[Shape], *, kernel: int, stride: int) -> Shape:
    """A pool padded to keep the size at stride 1."""
    if kernel % 2 == 0:
        raise GraphError(f"SP pads its kernel evenly on both sides, so that must be odd, got {kernel}")
    x = _one(inputs)
    return Shape(x.channels, x.stride * stride)


def max_pool(inputs: Sequence[Shape], *, kernel: int, pool_stride: int | None, padding: int | None) -> Shape:
    """Any max pool."""
    if (padding or 0) > kernel // 2:
        raise GraphError(f"its padding must be at most half of its kernel {kernel}, got {padding}")
    x = _one(inputs)
    return Shape(x.channels, x.stride * (pool_stride or kernel))


def zero_pad(inputs: Sequence[Shape], **_: Any) -> Shape:
    """Margins, which move no cell."""
    return _one(inputs)


def upsample(inputs: Sequence[Shape], *, size: None, factor: int, mode: str) -> Shape:
    """A whole factor, nearest neighbor."""
    if size is not None or mode != "nearest":
        raise GraphError(f"only upsampling by a whole factor with mode 'nearest' is known, got {(size, factor, mode)}")
    x = _one(inputs)
    return Shape(x.channels, x.stride / factor)


def space_to_depth(inputs: Sequence[Shape], *, gain: int = 2) -> Shape:
    """Blocks of pixels as channels."""
    x = _one(inputs)
    return Shape(x.channels * gain**2, x.stride * gain)


def depth_to_space(inputs: Sequence[Shape], *, gain: int) -> Shape:
    """Channels as blocks of pixels."""
    x = _one(inputs)
    return Shape(_parted(x.channels, gain**2), x.stride / gain)


def concat(inputs: Sequence[Shape], *, dimension: int) -> Shape:
    """Channels of all inputs."""
    if dimension != 1:
        raise GraphError(f"it joins channels (dimension 1), got dimension {dimension}")
    return _several(inputs)


def shortcut(inputs: Sequence[Shape], **_: Any) -> Shape:
    """The sum of two."""
    if len(inputs) != 2 or len({x.channels for x in inputs}) != 1:
        sizes = ", ".join(str(x.channels) for x in inputs)
        raise GraphError(f"it adds two inputs of the same channels, got {len(inputs)} with {sizes}")
    return Shape(inputs[0].channels, _several(inputs).stride)


def chuncat(inputs: Sequence[Shape], **_: Any) -> Shape:
    """Halves of all inputs, the first halves first."""
    for x in inputs:
        _parted(x.channels, 2)
    return _several(inputs)


def foldcut(inputs: Sequence[Shape], **_: Any) -> Shape:
    """The sum of both halves."""
    x = _one(inputs)
    return Shape(_parted(x.channels, 2), x.stride)


def chunk(inputs: Sequence[Shape], *, groups: int, place: int) -> Shape:
    """One of some groups of channels."""
    x = _one(inputs)
    if place >= groups:
        raise GraphError(f"it takes one of {groups} groups, counted from 0, got {place}")
    return Shape(_parted(x.channels, groups), x.stride)


def detect(inputs: Sequence[Shape]) -> Shape:
    """A head; nothing reads it."""
    return inputs[0]


def detect_aux(inputs: Sequence[Shape]) -> Shape:
    """A head whose second half of inputs is auxiliary."""
    half, rest = divmod(len(inputs), 2)
    lead, aux = ([x.stride for x in part] for part in (inputs[:half], inputs[half:]))
    if rest or lead != aux:
        raise GraphError(
            f"it reads the lead levels, then as many auxiliary ones of the same strides, got strides "
            f"{', '.join(str(x.stride) for x in inputs)}"
        )
    return inputs[0]
