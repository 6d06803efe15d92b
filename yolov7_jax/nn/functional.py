"""Layers without weights: pooling, joining, parting and rearranging. NHWC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.nn import cpu


@cpu.quick_as(cpu.max_pool)
def max_pool(x: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """Max pool k×k over [B, H, W, C], padded by what never wins."""
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), margins)


def space_to_depth(x: jax.Array, gain: int = 2, *, columns_first: bool = False) -> jax.Array:
    """[B, H, W, C] → [B, H/g, W/g, g²C], block after block: row by row, or column by column (ReOrg and Focus)."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // gain, gain, w // gain, gain, c)
    order = (0, 1, 3, 4, 2, 5) if columns_first else (0, 1, 3, 2, 4, 5)
    return blocks.transpose(order).reshape(b, h // gain, w // gain, gain**2 * c)


def depth_to_space(x: jax.Array, gain: int = 2) -> jax.Array:
    """[B, H, W, C] → [B, gH, gW, C/g²], the inverse of `space_to_depth` row by row."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, gain, gain, c // gain**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, gain * h, gain * w, c // gain**2)


def upsample(x: jax.Array, factor: int) -> jax.Array:
    """Nearest neighbor: [B, H, W, C] → [B, fH, fW, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def zero_pad(x: jax.Array, margins: tuple[int, int, int, int]) -> jax.Array:
    """Zeros around [B, H, W, C]: left, right, top, bottom."""
    left, right, top, bottom = margins
    return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _concat(xs: Sequence[jax.Array], **_: Any) -> jax.Array:
    return jnp.concatenate(xs, axis=-1)


def _chuncat(xs: Sequence[jax.Array], **_: Any) -> jax.Array:
    halves = [jnp.split(x, 2, axis=-1) for x in xs]
    return jnp.concatenate([half[side] for side in (0, 1) for half in halves], axis=-1)


def _foldcut(xs: Sequence[jax.Array], **_: Any) -> jax.Array:
    first, second = jnp.split(xs[0], 2, axis=-1)
    return first + second


FUNCTIONS: Mapping[str, Callable[..., jax.Array]] = {
    "MP": lambda xs, kernel: max_pool(xs[0], kernel, kernel),
    "SP": lambda xs, kernel, stride: max_pool(xs[0], kernel, stride, kernel // 2),
    "nn.MaxPool2d": lambda xs, kernel, pool_stride, padding: max_pool(
        xs[0], kernel, pool_stride or kernel, padding or 0
    ),
    "nn.ZeroPad2d": lambda xs, margins: zero_pad(xs[0], margins),
    "nn.Upsample": lambda xs, factor, **_: upsample(xs[0], factor),
    "ReOrg": lambda xs: space_to_depth(xs[0], columns_first=True),
    "Contract": lambda xs, gain: space_to_depth(xs[0], gain),
    "Expand": lambda xs, gain: depth_to_space(xs[0], gain),
    "Concat": _concat,
    "Shortcut": lambda xs, **_: xs[0] + xs[1],
    "Chuncat": _chuncat,
    "Foldcut": _foldcut,
    "Chunk": lambda xs, groups, place: jnp.split(xs[0], groups, axis=-1)[place],
}
"""Layer kinds without weights: inputs and arguments → x."""
