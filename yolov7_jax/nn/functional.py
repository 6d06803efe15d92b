"""Layers without weights: functions of feature maps [B, H, W, C], with the arguments of model files by name."""

from __future__ import annotations

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


def tiled_max_pool(x: jax.Array, *, kernel: int) -> jax.Array:
    """Max pool of tiles: [B, H, W, C] → [B, H/k, W/k, C]."""
    return max_pool(x, kernel, kernel)


def same_max_pool(x: jax.Array, *, kernel: int, stride: int = 1) -> jax.Array:
    """Max pool of an odd kernel, padded to keep the size at stride 1."""
    return max_pool(x, kernel, stride, kernel // 2)


def max_pool_2d(x: jax.Array, *, kernel: int, pool_stride: int | None, padding: int | None) -> jax.Array:
    """Max pool with the arguments of PyTorch's."""
    return max_pool(x, kernel, pool_stride or kernel, padding or 0)


def space_to_depth(x: jax.Array, *, gain: int = 2, columns_first: bool = False) -> jax.Array:
    """[B, H, W, C] → [B, H/g, W/g, g²C], block after block: row by row, or column by column (ReOrg and Focus)."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // gain, gain, w // gain, gain, c)
    order = (0, 1, 3, 4, 2, 5) if columns_first else (0, 1, 3, 2, 4, 5)
    return blocks.transpose(order).reshape(b, h // gain, w // gain, gain**2 * c)


def depth_to_space(x: jax.Array, *, gain: int = 2) -> jax.Array:
    """[B, H, W, C] → [B, gH, gW, C/g²], the inverse of `space_to_depth` row by row."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, gain, gain, c // gain**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, gain * h, gain * w, c // gain**2)


def upsample(x: jax.Array, *, factor: int, **_: Any) -> jax.Array:
    """Nearest neighbor: [B, H, W, C] → [B, fH, fW, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def zero_pad(x: jax.Array, *, margins: tuple[int, int, int, int]) -> jax.Array:
    """Zeros around [B, H, W, C]: left, right, top, bottom."""
    left, right, top, bottom = margins
    return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def concat(*xs: jax.Array, **_: Any) -> jax.Array:
    """Channels of all inputs, in their order."""
    return jnp.concatenate(xs, axis=-1)


def shortcut(x: jax.Array, y: jax.Array, **_: Any) -> jax.Array:
    """The sum of two."""
    return x + y


def chuncat(*xs: jax.Array, **_: Any) -> jax.Array:
    """First halves of the channels of all inputs, then the second halves."""
    halves = [jnp.split(x, 2, axis=-1) for x in xs]
    return jnp.concatenate([half[side] for side in (0, 1) for half in halves], axis=-1)


def foldcut(x: jax.Array, **_: Any) -> jax.Array:
    """The sum of both halves of the channels."""
    first, second = jnp.split(x, 2, axis=-1)
    return first + second


def chunk(x: jax.Array, *, groups: int, place: int) -> jax.Array:
    """One of some groups of channels."""
    return jnp.split(x, groups, axis=-1)[place]
