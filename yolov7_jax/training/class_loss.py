"""The class loss of positives, a block of them at a time, so that none is computed for slots without any."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.config import LossConfig
from yolov7_jax.ops.by_device import on_each_device
from yolov7_jax.ops.losses import binary_cross_entropy
from yolov7_jax.ops.selection import valid_first
from yolov7_jax.types import Assignment, Batch

CLASS_BLOCK = 256
"""positives of an image whose classes are computed at a time"""


def class_loss(
    raw: jax.Array, assignment: Assignment, batch: Batch, weight: jax.Array, config: LossConfig
) -> jax.Array:
    """Cross-entropy of the positives' classes, mean over classes, times `weight` [B, P]; 0 with one class only.

    A slot costs C cross-entropies and most hold no positive: so positives are moved together, and computed in blocks,
    on each device as many as its image with the most positives needs.
    """
    if raw.shape[-1] == 6:
        return jnp.zeros((), raw.dtype)
    losses: jax.Array = on_each_device(partial(_class_losses, config=config))(raw, assignment, batch.class_ids, weight)
    return losses.sum()


def _class_losses(
    raw: jax.Array, assignment: Assignment, class_ids: jax.Array, weight: jax.Array, *, config: LossConfig
) -> jax.Array:
    """The loss [B] of images, whose boxes are of classes [B, M]."""
    class_ids = jnp.take_along_axis(class_ids, assignment.truth, axis=1)
    slot = jax.vmap(partial(valid_first, block=CLASS_BLOCK))(assignment.positive)
    index, class_ids = (jnp.take_along_axis(part, slot, axis=1, mode="clip") for part in (assignment.index, class_ids))
    weight = jnp.take_along_axis(weight, slot, axis=1, mode="fill", fill_value=0)
    most = assignment.positive.sum(1, dtype=jnp.int32).max()
    block_loss = partial(_class_cross_entropy, config=config)
    return _sum_of_blocks(block_loss, raw, (index, class_ids, weight), -(-most // CLASS_BLOCK))


def _class_cross_entropy(rows: jax.Array, class_ids: jax.Array, weight: jax.Array, *, config: LossConfig) -> jax.Array:
    """Sums [B] over the raw outputs [B, Q, 5 + C] of positives."""
    logits = rows[..., 5:]
    low = config.label_smoothing / 2
    hot = jax.nn.one_hot(class_ids, logits.shape[-1], dtype=bool)
    targets = jnp.where(hot, 1 - low, low).astype(logits.dtype)
    loss = binary_cross_entropy(logits, targets, pos_weight=config.cls_pw, focal_gamma=config.fl_gamma)
    return (loss.mean(-1) * weight).sum(1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_of_blocks(
    block_loss: Callable[..., jax.Array], raw: jax.Array, slots: tuple[jax.Array, ...], blocks: jax.Array
) -> jax.Array:
    """Sums [B] of a loss of (rows [B, Q, ...] of raw [B, N, ...], their other numbers [B, Q]) over blocks of Q slots.

    With a derivative of its own for raw: reverse mode would have a loop keep what each turn computes, and does not
    take one of any length. Gradients of rows go to their places in raw all at once, unless they are too many: TPUs
    would lay out one of the size of raw anew around the loop.

    slots: index [B, P] into N, other numbers. blocks: int32 [], how many there are something in.
    """

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        index, *numbers = _block(slots, i)
        return total + block_loss(rows_at(raw, index), *numbers)

    return lax.fori_loop(jnp.int32(0), blocks, add, jnp.zeros(len(raw), raw.dtype))


@_sum_of_blocks.defjvp
def _sum_of_blocks_derivative(
    block_loss: Callable[..., jax.Array], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    raw, slots, blocks = primals

    index = slots[0]
    by_slot = index.shape[1] <= raw.shape[1]  # else gradients of all slots would take more memory than that of raw

    def add(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, gradient = sums
        at, *numbers = _block(slots, i)
        value, slopes_of = jax.vjp(lambda rows: block_loss(rows, *numbers), rows_at(raw, at))
        (slopes,) = slopes_of(jnp.ones_like(value))
        if by_slot:
            return total + value, lax.dynamic_update_slice_in_dim(gradient, slopes, i * CLASS_BLOCK, axis=1)
        return total + value, jax.vmap(lambda image, at, rows: image.at[at].add(rows))(gradient, at, slopes)

    tangent = rows_at(tangents[0], index) if by_slot else tangents[0]
    total, gradient = lax.fori_loop(
        jnp.int32(0), blocks, add, (jnp.zeros(len(raw), raw.dtype), jnp.zeros_like(tangent))
    )
    return total, (gradient * tangent).sum((1, 2))


def _block(slots: tuple[jax.Array, ...], i: jax.Array) -> list[jax.Array]:
    return [lax.dynamic_slice_in_dim(part, i * CLASS_BLOCK, CLASS_BLOCK, axis=1) for part in slots]


def rows_at(values: jax.Array, index: jax.Array) -> jax.Array:
    """Of every image its rows [B, N, ...] at an index [B, P]."""
    return jax.vmap(lambda image, at: image[at])(values, index)
