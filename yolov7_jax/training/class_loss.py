"""The class loss of positives, a block of them at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.config import LossConfig
from yolov7_jax.ops.losses import binary_cross_entropy
from yolov7_jax.types import Array, Assignment, Batch

CLASS_BLOCK = 256
"""positives of an image whose classes are computed at a time"""


def class_loss(raw: Array, assignment: Assignment, batch: Batch, weight: Array, config: LossConfig) -> Array:
    """Cross-entropy of the positives' classes, mean over classes, times `weight` [B, P]; 0 with one class only.

    A slot costs C cross-entropies and most hold no positive: so positives are moved together, and computed in blocks,
    as many as the image with the most positives needs.
    """
    if raw.shape[-1] == 6:
        return jnp.zeros((), raw.dtype)
    class_ids = jnp.take_along_axis(batch.class_ids, assignment.truth, axis=1)
    slot = jax.vmap(_positives_first)(assignment.positive)
    index, class_ids = (jnp.take_along_axis(part, slot, axis=1, mode="clip") for part in (assignment.index, class_ids))
    weight = jnp.take_along_axis(weight, slot, axis=1, mode="fill", fill_value=0)
    most = assignment.positive.sum(1, dtype=jnp.int32).max()
    block_loss = partial(_class_cross_entropy, config=config)
    return _sum_of_blocks(block_loss, raw, (index, class_ids, weight), -(-most // CLASS_BLOCK))


def _positives_first(positive: Array) -> Array:
    """The slots int32 of the positives among [P], and then P, to whole blocks."""
    place = jnp.cumsum(positive, dtype=jnp.int32)
    number = jnp.arange(-(-len(positive) // CLASS_BLOCK) * CLASS_BLOCK, dtype=jnp.int32)
    return jnp.searchsorted(place, number, side="right").astype(jnp.int32)


def _class_cross_entropy(rows: Array, class_ids: Array, weight: Array, *, config: LossConfig) -> Array:
    """Sum over the raw outputs [B, Q, 5 + C] of positives."""
    logits = rows[..., 5:]
    low = config.label_smoothing / 2
    hot = jax.nn.one_hot(class_ids, logits.shape[-1], dtype=bool)
    targets = jnp.where(hot, 1 - low, low).astype(logits.dtype)
    loss = binary_cross_entropy(logits, targets, pos_weight=config.cls_pw, focal_gamma=config.fl_gamma)
    return (loss.mean(-1) * weight).sum()


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_blocks(block_loss: Callable[..., Array], raw: Array, slots: tuple[Array, ...], blocks: Array) -> Array:
    """Sum of a loss of (rows [B, Q, ...] of raw [B, N, ...], their other numbers [B, Q]) over blocks of Q slots.

    With a gradient of its own for raw: that of a loop of any length would keep what each turn computes.

    slots: index [B, P] into N, other numbers. blocks: int32 [], how many there are something in.
    """

    def add(i: Array, total: Array) -> Array:
        index, *numbers = _block(slots, i)
        return total + block_loss(rows_at(raw, index), *numbers)

    return lax.fori_loop(jnp.int32(0), blocks, add, jnp.zeros((), raw.dtype))


def _sum_of_blocks_forward(
    block_loss: Callable[..., Array], raw: Array, slots: tuple[Array, ...], blocks: Array
) -> tuple[Array, Any]:
    return _sum_of_blocks(block_loss, raw, slots, blocks), (raw, slots, blocks)


def _sum_of_blocks_backward(block_loss: Callable[..., Array], kept: Any, slope: Array) -> tuple[Array, None, None]:
    raw, slots, blocks = kept

    def add(i: Array, total: Array) -> Array:
        index, *numbers = _block(slots, i)
        slopes = slope * jax.grad(block_loss)(rows_at(raw, index), *numbers)
        return jax.vmap(lambda image, at, values: image.at[at].add(values))(total, index, slopes)

    return lax.fori_loop(jnp.int32(0), blocks, add, jnp.zeros_like(raw)), None, None


_sum_of_blocks.defvjp(_sum_of_blocks_forward, _sum_of_blocks_backward)


def _block(slots: tuple[Array, ...], i: Array) -> list[Array]:
    return [lax.dynamic_slice_in_dim(part, i * CLASS_BLOCK, CLASS_BLOCK, axis=1) for part in slots]


def rows_at(values: Array, index: Array) -> Array:
    """Of every image its rows [B, N, ...] at an index [B, P]."""
    return jax.vmap(lambda image, at: image[at])(values, index)
