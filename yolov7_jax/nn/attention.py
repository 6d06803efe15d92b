"""The transformer block of C3TR (YOLOv5 v6.0; Attention is all you need, arXiv 1706.03762, without normalization)."""

from __future__ import annotations

from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.graph.shapes import ATTENTION_HEADS as HEADS
from yolov7_jax.nn.conv import Form, affine, at_least_float32
from yolov7_jax.nn.csp import CSP, repeated
from yolov7_jax.nn.parameters import ZEROS, parameter, uniform_by_fan_in


class Linear(nn.Module):
    """x · kernel + bias, over the last axis."""

    channels: int
    use_bias: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[…, c1] → […, channels]."""
        kernel = parameter(self, "kernel", uniform_by_fan_in, (x.shape[-1], self.channels))
        y = x @ kernel.astype(self.form.dtype)
        if not self.use_bias:
            return y
        bias = parameter(self, "bias", ZEROS, (self.channels,))
        return affine(y, shift=bias)


class Projections(nn.Module):
    """Queries, keys and values, each by its third of one kernel and one bias, as PyTorch keeps them."""

    channels: int
    form: Form = Form()

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> list[jax.Array]:
        """Three times […, c1] → three times […, channels]."""
        shape = (inputs[0].shape[-1], 3 * self.channels)
        kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), shape).astype(self.form.dtype)
        bias = parameter(self, "bias", ZEROS, shape[1:])
        parts = zip(inputs, jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
        return [affine(x @ part, shift=shift) for x, part, shift in parts]


class Attention(nn.Module):
    """Scaled dot-product attention of several heads, with projections before and after."""

    channels: int
    form: Form = Form()

    @nn.compact
    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """Three times [B, T, channels] → [B, T, channels]."""
        b, tokens, c = query.shape
        projected = Projections(c, self.form, name="in_proj")(query, key, value)
        q, k, v = (x.reshape(b, tokens, HEADS, c // HEADS) for x in projected)
        weights = jnp.einsum("bihd,bjhd->bhij", q, k).astype(at_least_float32(self.form.dtype)) / sqrt(c // HEADS)
        mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(weights).astype(self.form.dtype), v)
        return Linear(c, form=self.form, name="out_proj")(mixed.reshape(b, tokens, c))


class TransformerLayer(nn.Module):
    """Attention, then two linear layers; the input is added to each."""

    channels: int
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, **_: Any) -> jax.Array:
        """[B, T, channels] → [B, T, channels]."""

        def linear(x: jax.Array, name: str) -> jax.Array:
            return Linear(self.channels, use_bias=False, form=self.form, name=name)(x)

        x = x + Attention(self.channels, self.form, name="ma")(linear(x, "q"), linear(x, "k"), linear(x, "v"))
        return x + linear(linear(x, "fc1"), "fc2")


class TransformerBlock(nn.Module):
    """Pixels as tokens, a learned linear embedding added to them, then transformer layers."""

    channels: int
    repeats: int = 1
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, channels] → [B, H, W, channels]."""
        tokens = x.reshape(x.shape[0], -1, self.channels)
        tokens = tokens + Linear(self.channels, form=self.form, name="linear")(tokens)

        def make(place: str) -> TransformerLayer:
            return TransformerLayer(self.channels, self.form, name=place)

        return repeated(make, self.repeats, name="tr")(tokens, train=train).reshape(x.shape)


def transformer(channels: int, *, repeats: int, form: Form, name: str, **_: Any) -> TransformerBlock:
    """The `inner` of C3TR, which takes no note of shortcut, groups and activation."""
    return TransformerBlock(channels, repeats, form, name=name)


def c3tr(*, form: Form, **options: Any) -> CSP:
    """C3 of a transformer block."""
    return CSP(layout="A", inner=transformer, form=form, **options)
