"""Residual and cross-stage partial layers (CSPNet; C3 of YOLOv5 v6.0)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.nn.conv import Conv, Form


class Bottleneck(nn.Module):
    """1×1 → 3×3, plus the input where `shortcut` is set and the channels agree."""

    channels: int
    shortcut: bool = True
    groups: int = 1
    expansion: float = 0.5
    activation: str = "SiLU"
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = int(self.channels * self.expansion)
        y = Conv(hidden, 1, activation=self.activation, form=self.form, name="cv1")(x, train=train)
        y = Conv(self.channels, 3, groups=self.groups, activation=self.activation, form=self.form, name="cv2")(
            y, train=train
        )
        return x + y if self.shortcut and x.shape[-1] == self.channels else y


class Chain(nn.Module):
    """Layers in sequence, named by their place."""

    make: Callable[[str], nn.Module]
    length: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Each layer applied to what the one before gave."""
        for place in range(self.length):
            x = self.make(str(place))(x, train=train)
        return x


class C3(nn.Module):
    """Three 1×1 convolutions around n bottlenecks: cv3 of concat(bottlenecks(cv1 x), cv2 x)."""

    channels: int
    repeats: int = 1
    shortcut: bool = True
    groups: int = 1
    expansion: float = 0.5
    activation: str = "SiLU"
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = int(self.channels * self.expansion)

        def conv(channels: int, name: str) -> Conv:
            return Conv(channels, 1, activation=self.activation, form=self.form, name=name)

        def bottleneck(name: str) -> Bottleneck:
            return Bottleneck(hidden, self.shortcut, self.groups, 1.0, self.activation, self.form, name=name)

        main = Chain(bottleneck, self.repeats, name="m")(conv(hidden, "cv1")(x, train=train), train=train)
        cross = conv(hidden, "cv2")(x, train=train)
        return conv(self.channels, "cv3")(jnp.concatenate([main, cross], axis=-1), train=train)
