"""Spatial pyramid pooling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.nn.conv import Conv, Form
from yolov7_jax.nn.functional import same_max_pool


class SPP(nn.Module):
    """1×1 to half the channels, joined with its max pools of several sizes, 1×1 (YOLOv3-SPP, YOLOv5 before v6)."""

    channels: int
    kernels: tuple[int, ...]
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        half = Conv(x.shape[-1] // 2, activation=self.activation, form=self.form, name="cv1")(x, train=train)
        joined = jnp.concatenate([half, *(same_max_pool(half, kernel=kernel) for kernel in self.kernels)], axis=-1)
        return Conv(self.channels, activation=self.activation, form=self.form, name="cv2")(joined, train=train)


class SPPF(nn.Module):
    """1×1 to half the channels, three pools in a chain, all four joined, 1×1 (YOLOv5 v6.0)."""

    channels: int
    kernel: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        pools = [
            Conv(x.shape[-1] // 2, 1, activation=self.activation, form=self.form, name="cv1")(x, train=train),
        ]
        for _ in range(3):
            pools.append(same_max_pool(pools[-1], kernel=self.kernel))
        joined = jnp.concatenate(pools, axis=-1)
        return Conv(self.channels, 1, activation=self.activation, form=self.form, name="cv2")(joined, train=train)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling inside a cross-stage partial block (YOLOv7).

    The main branch is 1×1, 3×3, 1×1, its pools joined to it, 1×1, 3×3; the cross branch a 1×1; a 1×1 joins both.
    """

    channels: int
    repeats: int
    shortcut: bool
    groups: int
    expansion: float
    kernels: tuple[int, ...]
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = int(2 * self.channels * self.expansion)

        def conv(y: jax.Array, name: str, kernel: int = 1, channels: int = hidden) -> jax.Array:
            return Conv(channels, kernel, activation=self.activation, form=self.form, name=name)(y, train=train)

        main = conv(conv(conv(x, "cv1"), "cv3", 3), "cv4")
        pools = [same_max_pool(main, kernel=kernel) for kernel in self.kernels]
        main = conv(conv(jnp.concatenate([main, *pools], axis=-1), "cv5"), "cv6", 3)
        return conv(jnp.concatenate([main, conv(x, "cv2")], axis=-1), "cv7", channels=self.channels)
