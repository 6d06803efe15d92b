"""Simplified optimal transport: the candidates that fit a box best are assigned to it (YOLOX, arXiv:2107.08430).

Their number comes from how well any fit. Every box is compared with every candidate of its image, whichever box
brought it, yet nothing is computed for slots without a candidate: candidates are taken in blocks, and there are only as
many blocks as the candidates of an image need.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.config import LossConfig
from yolov7_jax.contracts import IMAGES
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.ops.decode import decode
from yolov7_jax.ops.iou import pairwise_iou
from yolov7_jax.ops.selection import valid_first
from yolov7_jax.registry import register_assigner
from yolov7_jax.types import Assignment, Candidates, Grid

BLOCK = 256
"""candidates that are compared with the boxes at a time"""
IOU_EPSILON = 1e-8


@dataclass(frozen=True)
class OTA:
    """An `Assigner`: at most `top_k` positives for each box; no gradient flows through the choice.

    A candidate costs a box the BCE of y = sqrt(σ(class) · σ(objectness)) against the box's class, summed over all
    classes, and -iou_cost · log(IoU + 1e-8). A box takes the max(1, ⌊sum of its `top_k` largest IoUs⌋) candidates of
    least cost; one that several boxes take goes to the box of the image that it costs least. Among equals the first is
    taken, in the order of boxes and of slots. Costs are finite for all finite outputs.

    P is M · top_k. A prediction is in the assignment twice only where two boxes each brought it as a candidate.

    top_k: the most positives of a box (YOLOv7: 10; 20 where an auxiliary head has coarse candidates).
    iou_cost: weight of the IoU beside the classes (YOLOv7: 3).
    image_axis: in a `vmap` over images that names its axis, that name: then all take as many rounds as the fullest.
    """

    top_k: int = 10
    iou_cost: float = 3.0
    image_axis: str | None = None

    def __call__(
        self,
        raw: jax.Array,  # [N, 5 + C], float32 or float64
        boxes_cxcywh_px: jax.Array,  # [M, 4]
        class_ids: jax.Array,  # [M]
        valid: jax.Array,  # [M]
        candidates: Candidates,  # [M, K]
        grid: Grid,
    ) -> Assignment:
        """The assignment of one image; see `contracts.Assigner`."""
        slot = valid_first(jnp.ravel(candidates.valid), BLOCK)
        index = jnp.take(jnp.ravel(candidates.index), slot, mode="clip")  # [M K], in whole blocks
        count = jnp.sum(candidates.valid, dtype=jnp.int32)
        boxes_xyxy_px = cxcywh_to_xyxy(jnp.asarray(boxes_cxcywh_px, raw.dtype))

        def add_block(i: jax.Array, best: _Best) -> _Best:
            number = i * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
            at = lax.dynamic_slice(index, (i * BLOCK,), (BLOCK,))
            rows = raw[at]  # [BLOCK, 5 + C]
            iou = _ious(rows[:, :5], boxes_xyxy_px, at, grid)  # [M, BLOCK]
            cost = _class_cost(rows, class_ids) - self.iou_cost * jnp.log(iou + IOU_EPSILON)
            compared = valid[:, None] & (number < count)[None, :]
            return _merge(best, jnp.where(compared, iou, 0), jnp.where(compared, cost, jnp.inf), number)

        raw = lax.stop_gradient(raw)
        blocks = -(-count // BLOCK)
        if self.image_axis is not None:  # with a number for each image, vmap would select in every round
            blocks = lax.pmax(blocks, self.image_axis)
        best = _nothing_yet(len(boxes_cxcywh_px), self.top_k, len(index), raw.dtype)
        best = lax.fori_loop(jnp.int32(0), blocks, add_block, best)
        truth, positive = _resolve(best)
        return Assignment(index[jnp.reshape(best.numbers, -1)], truth, positive)


@register_assigner("ota")
def _ota(config: LossConfig, **options: Any) -> OTA:
    return replace(OTA(config.top_k, config.iou_cost, IMAGES), **options)


class _Best(NamedTuple):
    """What is known of the M boxes of an image after some of its candidates, which are numbered without the gaps."""

    ious: jax.Array  # [M, top], the largest of each box
    costs: jax.Array  # [M, top], the least of each box, ascending; inf: no candidate
    numbers: jax.Array  # int32 [M, top], of the candidates of these costs
    cheapest: jax.Array  # int32 [candidates], the box that each costs least


def _nothing_yet(M: int, top_k: int, candidates: int, dtype: jnp.dtype) -> _Best:
    return _Best(
        jnp.zeros((M, top_k), dtype),
        jnp.full((M, top_k), jnp.inf, dtype),
        jnp.zeros((M, top_k), jnp.int32),
        jnp.zeros(candidates, jnp.int32),
    )


def _ious(raw: jax.Array, boxes_xyxy_px: jax.Array, at: jax.Array, grid: Grid) -> jax.Array:
    """IoU [M, Q] of the boxes with the predictions `at` [Q] of the grid, whose raw outputs are [Q, 5]."""
    cell, stride, anchor_px = (jnp.asarray(part)[at] for part in grid[:3])
    cells = grid._replace(cell=cell, stride=stride, anchor_px=anchor_px, levels=())
    return pairwise_iou(boxes_xyxy_px, cxcywh_to_xyxy(decode(raw, cells)[:, :4]))


def _class_cost(raw: jax.Array, class_ids: jax.Array) -> jax.Array:
    """Cross-entropy [M, Q] of the predictions' y [Q, C] against the boxes' classes [M], without an array M x Q x C.

    The sum over classes is -Σ log(1 - y), the same for all boxes, and log(1 - y) - log(y) of the box's class. All is
    computed from log(y), which is finite; that is kept away from 0 where σ saturates, so log(1 - y) is finite, too.
    """
    log_y = (jax.nn.log_sigmoid(raw[:, 5:]) + jax.nn.log_sigmoid(raw[:, 4:5])) / 2
    log_y = jnp.minimum(log_y, -jnp.finfo(raw.dtype).tiny)
    # Each form is exact on its side of y = 1/2 (Mächler, "Accurately computing log(1 - exp(-|a|))", 2012).
    log_rest = jnp.where(log_y < -0.7, jnp.log1p(-jnp.exp(log_y)), jnp.log(-jnp.expm1(log_y)))
    return (log_rest - log_y).T[class_ids] - log_rest.sum(1)[None, :]


def _merge(best: _Best, iou: jax.Array, cost: jax.Array, number: jax.Array) -> _Best:
    """`best` after a block of candidates [Q] more; iou 0 and cost inf, both [M, Q], where there is none."""
    M, top_k = best.costs.shape
    ious, _ = lax.top_k(jnp.concat([best.ious, iou], axis=1), top_k)
    costs, which = lax.top_k(-jnp.concat([best.costs, cost], axis=1), top_k)
    numbers = jnp.concat([best.numbers, jnp.broadcast_to(number, (M, len(number)))], axis=1)
    # The first box of least cost, as argmin finds it, but several times faster on a CPU.
    box = jnp.arange(M, dtype=jnp.int32)[:, None]
    cheapest = jnp.where(cost == cost.min(0, keepdims=True), box, M - 1).min(0)
    return _Best(
        ious,
        -costs,
        jnp.take_along_axis(numbers, which, axis=1),
        lax.dynamic_update_slice(best.cheapest, cheapest, (number[0],)),
    )


def _resolve(best: _Best) -> tuple[jax.Array, jax.Array]:
    """Truth int32 [P] and positive bool [P] of the slots P = M · top_k of `best`; no candidate is positive twice."""
    M, top_k = best.costs.shape
    k = jnp.maximum(best.ious.sum(1).astype(jnp.int32), 1)
    taken = (jnp.arange(top_k, dtype=jnp.int32)[None, :] < k[:, None]) & (best.costs < jnp.inf)
    taken, numbers = jnp.reshape(taken, -1), jnp.reshape(best.numbers, -1)
    slot = jnp.arange(M * top_k, dtype=jnp.int32)
    target = jnp.where(taken, numbers, len(best.cheapest))
    takers = jnp.zeros_like(best.cheapest).at[target].add(1, mode="drop")
    first = jnp.full_like(best.cheapest, M * top_k).at[target].min(slot, mode="drop")
    truth = jnp.where(takers[numbers] > 1, best.cheapest[numbers], slot // top_k)
    return truth, taken & (first[numbers] == slot)
