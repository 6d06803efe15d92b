"""Layers that halve the size of a feature map: Focus (YOLOv5), Stem and DownC (YOLOR, YOLOv7)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.nn.conv import Conv, Form
from yolov7_jax.nn.functional import max_pool, space_to_depth


class Focus(nn.Module):
    """Space to depth, then a convolution."""

    channels: int
    kernel: int
    stride: int
    padding: int | None
    groups: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/2, W/2, channels]."""
        conv = Conv(
            self.channels,
            self.kernel,
            self.stride,
            self.padding,
            self.groups,
            self.activation,
            self.form,
            name="conv",
        )
        return conv(space_to_depth(x, columns_first=True), train=train)


class Stem(nn.Module):
    """A 3×3 of stride 2, then 1×1 and 3×3 of stride 2 beside a max pool, joined by a 1×1."""

    channels: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/4, W/4, channels]."""
        half = self.channels // 2

        def conv(x: jax.Array, name: str, channels: int, kernel: int = 1, stride: int = 1) -> jax.Array:
            layer = Conv(channels, kernel, stride, activation=self.activation, form=self.form, name=name)
            return layer(x, train=train)

        x = conv(x, "cv1", half, 3, 2)
        strided = conv(conv(x, "cv2", half), "cv3", half, 3, 2)
        return conv(jnp.concatenate([strided, max_pool(x, 2, 2)], axis=-1), "cv4", self.channels)


class DownC(nn.Module):
    """1×1 and strided 3×3 beside max pool and 1×1, joined; `repeats` is taken for the sake of the YAML and unused."""

    channels: int
    repeats: int
    kernel: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/kernel, W/kernel, channels]."""

        def conv(x: jax.Array, name: str, channels: int, kernel: int = 1, stride: int = 1) -> jax.Array:
            layer = Conv(channels, kernel, stride, activation=self.activation, form=self.form, name=name)
            return layer(x, train=train)

        half = self.channels // 2
        strided = conv(conv(x, "cv1", x.shape[-1]), "cv2", half, 3, self.kernel)
        pooled = conv(max_pool(x, self.kernel, self.kernel), "cv3", half)
        return jnp.concatenate([strided, pooled], axis=-1)
