"""Detect layers.

Per level a 1×1 convolution to A·(5 + C) channels, read as (anchor, [x, y, w, h, objectness, classes]).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov7_jax.nn.conv import Conv2d, Form, affine, at_least_float32
from yolov7_jax.nn.parameters import Initializer, drawn, parameter
from yolov7_jax.types import Outputs

IMPLICIT_STD = 0.02


def prior_bias(anchors: int, num_classes: int, stride: int) -> Initializer:
    """Initial bias of one level, as if 8 objects stood in a 640 px image: objectness log(8 / (640/stride)²), classes
    log(0.6 / (C − 0.99)), boxes 0.
    """

    def init(_: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        row = [0.0] * 4 + [log(8 / (640 / stride) ** 2)] + [log(0.6 / (num_classes - 0.99))] * num_classes
        return jnp.array(row * anchors, dtype).reshape(shape)

    return init


class Implicit(nn.Module):
    """Implicit knowledge (YOLOR): one learned number a channel, around `mean`."""

    mean: float

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        """The vector [channels]."""

        def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            return self.mean + IMPLICIT_STD * drawn(jax.random.normal, key, shape, dtype)

        return parameter(self, "implicit", init, (channels,))


class _Levels(nn.Module):
    """The members of a list, named by their place, as PyTorch names a ModuleList."""

    make: Callable[[int, str], nn.Module]

    @nn.compact
    def __call__(self, level: int, *args: object) -> jax.Array:
        return self.make(level, str(level))(*args)


class Detect(nn.Module):
    """The head: raw outputs [B, N, 5 + C], N ordered level, row, column, anchor.

    `implicit` adds implicit knowledge to the lead levels: ImplicitM ∘ convolution ∘ ImplicitA (YOLOR, YOLOv7).
    `auxiliary` reads as many feature maps again, for the auxiliary head (YOLOv7, section 4.2).
    """

    anchors: int
    num_classes: int
    strides: tuple[int, ...]
    implicit: bool = False
    auxiliary: bool = False
    form: Form = Form()

    @nn.compact
    def __call__(self, xs: Sequence[jax.Array]) -> Outputs:
        """One feature map [B, H, W, c] a level, first those of the lead head."""
        channels = self.anchors * (5 + self.num_classes)
        added = _Levels(lambda _, name: Implicit(0.0, name=name), name="ia") if self.implicit else None
        factors = _Levels(lambda _, name: Implicit(1.0, name=name), name="im") if self.implicit else None

        def conv(level: int, name: str) -> Conv2d:
            bias = prior_bias(self.anchors, self.num_classes, self.strides[level])
            return Conv2d(channels, use_bias=True, bias_init=bias, form=self.form, name=name)

        convs = _Levels(conv, name="m")
        levels = len(self.strides)
        lead = []
        for level, x in enumerate(xs[:levels]):
            y = convs(level, x if added is None else affine(x, shift=added(level, x.shape[-1])))
            lead.append(y if factors is None else affine(y, factors(level, channels)))
        if not self.auxiliary:
            return Outputs(self._rows(lead))
        plain = _Levels(conv, name="m2")
        return Outputs(self._rows(lead), self._rows([plain(level, x) for level, x in enumerate(xs[levels:])]))

    def _rows(self, maps: Sequence[jax.Array]) -> jax.Array:
        rows = jnp.concatenate([y.reshape(y.shape[0], -1, 5 + self.num_classes) for y in maps], axis=1)
        return rows.astype(at_least_float32(rows.dtype))
