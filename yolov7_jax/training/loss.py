"""The loss of a detector: boxes, objectness and classes of the predictions that answer for boxes, and all that do not.

One function for all forms: assigner, overlap and what guides an auxiliary head are settings, and an auxiliary head is
the same loss a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from yolov7_jax.assign import ota, simple
from yolov7_jax.config import LossConfig
from yolov7_jax.errors import InputError
from yolov7_jax.ops.decode import BOUNDED, UNBOUNDED, center_in_cell
from yolov7_jax.ops.iou import bbox_iou
from yolov7_jax.ops.losses import binary_cross_entropy
from yolov7_jax.training.class_loss import class_loss, rows_at
from yolov7_jax.types import Array, Assignment, Batch, Candidates, Grid, Outputs

BALANCE = {1: (4.0,), 2: (4.0, 1.0), 3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}
"""weights of the levels' objectness, finest first, by the number of levels (YOLOv5)"""
BALANCE_DECAY = 0.9999
"""of those weights in a step, where they follow the losses (YOLOv5)"""
BALANCED_STRIDE = 16
"""the level whose weight stays 1 then"""


class LossItems(NamedTuple):
    """What a step's loss is made of: means over the batch, with their gains, auxiliary heads included.

    box, obj, cls: float []. total: float [], their sum; the loss is this times the batch size. positives: int32 [L],
    predictions of each level of the lead head that answer for a box. objectness: float [L], the loss of each level of
    the lead head, without gain and weight.
    """

    box: Array
    obj: Array
    cls: Array
    total: Array
    positives: Array
    objectness: Array


def scaled_gains(config: LossConfig, *, levels: int, num_classes: int, size: float) -> LossConfig:
    """Gains of a run from those of a recipe, which are meant for 3 levels, 80 classes and images of 640 pixels.

    size: the side of the training images in pixels.
    """
    share = 3 / levels
    return dataclasses.replace(
        config,
        box=config.box * share,
        cls=config.cls * share * num_classes / 80,
        obj=config.obj * share * (size / 640) ** 2,
    )


def detection_loss(
    outputs: Outputs, batch: Batch, grid: Grid, config: LossConfig, *, balance: Array | None = None
) -> tuple[Array, LossItems]:
    """The loss of a batch, to be differentiated with respect to the raw outputs, and its items.

    What answers for a box is up to `assignments`. Computed in float32, or float64 if the outputs are.

    Args:
        outputs: of the network, for the images of the batch.
        batch: boxes, and what candidates they have; its images are not looked at.
        grid: where the predictions of images of this size live.
        config: with gains that `scaled_gains` made.
        balance: float [L], weights of the levels' objectness; by default those of `first_balance`.

    Returns:
        The sum of the items times the batch size, float [], and the items.

    Raises:
        InputError: an auxiliary head is to have coarse candidates, and the batch has none.
    """
    exact = jnp.float64 if outputs.lead.dtype == jnp.float64 else jnp.float32
    outputs = jax.tree.map(lambda raw: raw.astype(exact), outputs)
    balance = jnp.asarray(first_balance(len(grid.levels)) if balance is None else balance, exact)
    lead, aux_assignment = assignments(outputs, batch, grid, config)
    box, objectness, cls = _head_loss(outputs.lead, lead, batch, grid, config)
    obj = (objectness * balance).sum()
    if outputs.aux is not None and aux_assignment is not None:
        parts = _head_loss(outputs.aux, aux_assignment, batch, grid, config, center_bound=_aux_center_bound(config))
        aux_box, aux_objectness, aux_cls = parts
        box += config.aux_weight * aux_box
        obj += config.aux_weight * (aux_objectness * balance).sum()
        cls += config.aux_weight * aux_cls
    box, obj, cls = box * config.box, obj * config.obj, cls * config.cls
    total = box + obj + cls
    return total * len(batch.valid), LossItems(box, obj, cls, total, _level_counts(lead, grid), objectness)


def first_balance(levels: int) -> NDArray[np.float32]:
    """Weights [L] of the levels' objectness, as they stay or as they begin."""
    return np.array(BALANCE[levels], np.float32)


def next_balance(balance: Array, objectness: Array, strides: Sequence[int]) -> Array:
    """Weights [L] of the levels' objectness after a step with losses [L] (YOLOv5, "autobalance").

    A level's weight moves towards the inverse of its loss; all are divided by that of stride 16 (of the first level,
    where there is no such).
    """
    inverse = 1 / jnp.maximum(objectness, jnp.finfo(objectness.dtype).tiny)
    moved = BALANCE_DECAY * balance + (1 - BALANCE_DECAY) * inverse
    return moved / moved[strides.index(BALANCED_STRIDE) if BALANCED_STRIDE in strides else 0]


def assignments(outputs: Outputs, batch: Batch, grid: Grid, config: LossConfig) -> tuple[Assignment, Assignment | None]:
    """The positives of the lead head, and of the auxiliary head if there is one.

    The lead head's predictions choose its positives among the fine candidates. Those of an auxiliary head are chosen
    (YOLOv7, arXiv:2207.02696, section 4.2), by config.aux, by the lead head's predictions among the coarse candidates,
    where either head takes up to aux_top_k of a box; or are the lead head's; or are chosen by its own predictions.

    Raises:
        InputError: an auxiliary head is to have coarse candidates, and the batch has none.
    """
    top_k = config.aux_top_k if outputs.aux is not None and config.aux == "coarse_to_fine" else config.top_k
    positives = partial(_positives, batch=batch, grid=grid, config=config, top_k=top_k)
    lead = positives(outputs.lead, batch.fine)
    if outputs.aux is None:
        return lead, None
    if config.aux == "independent":
        return lead, positives(outputs.aux, batch.fine, center_bound=_aux_center_bound(config))
    return lead, positives(outputs.lead, _coarse(batch)) if config.aux == "coarse_to_fine" else lead


def _aux_center_bound(config: LossConfig) -> float:
    """That of an auxiliary head's centers, see `ops.decode.center_in_cell`."""
    return BOUNDED if config.aux_center_bound else UNBOUNDED


def _coarse(batch: Batch) -> Candidates:
    if batch.coarse is None:
        raise InputError(
            "loss.aux is coarse_to_fine and the batch has no coarse candidates; make it with them, or set loss.aux"
        )
    return batch.coarse


def _positives(
    raw: Array,
    candidates: Candidates,
    *,
    batch: Batch,
    grid: Grid,
    config: LossConfig,
    top_k: int,
    center_bound: float = BOUNDED,
) -> Assignment:
    """The assignment of every image of a batch by the predictions [B, N, 5 + C] of one head."""
    if config.assigner == "simple":
        return jax.vmap(simple.assign)(candidates)
    blocks = ota.blocks_needed(candidates)
    assign = partial(
        ota.assign, grid=grid, top_k=top_k, iou_cost=config.iou_cost, center_bound=center_bound, blocks=blocks
    )
    return jax.vmap(assign)(raw, batch.boxes_cxcywh_px, batch.class_ids, batch.valid, candidates)


def _head_loss(
    raw: Array, assignment: Assignment, batch: Batch, grid: Grid, config: LossConfig, *, center_bound: float = BOUNDED
) -> tuple[Array, Array, Array]:
    """Box [], objectness [L] and class loss [] of one head [B, N, 5 + C], without gains and weights."""
    weight = _level_means(assignment, grid, raw.dtype)
    overlaps = _overlaps(raw[..., :4], assignment, batch, grid, config, center_bound)
    box = ((1 - overlaps) * weight).sum()
    target = (1 - config.gr) + config.gr * jnp.maximum(lax.stop_gradient(overlaps), 0)
    objectness = _objectness_loss(raw[..., 4], target, assignment, grid, config)
    cls = class_loss(raw, assignment, batch, weight, config)
    return box, objectness, cls


def _level_counts(assignment: Assignment, grid: Grid) -> Array:
    """How many positives each level has, int32 [L]."""
    return jnp.stack([_here(assignment, level).sum(dtype=jnp.int32) for level in grid.levels])


def _here(assignment: Assignment, level: slice) -> Array:
    """Which slots [B, P] hold positives of a level."""
    return assignment.positive & (assignment.index >= level.start) & (assignment.index < level.stop)


def _level_means(assignment: Assignment, grid: Grid, dtype: jnp.dtype) -> Array:
    """Weights [B, P] whose sum with anything is the sum over levels of the mean over each level's positives."""
    weight = jnp.zeros(assignment.index.shape, dtype)
    for level in grid.levels:
        here = _here(assignment, level)
        weight += jnp.where(here, 1 / jnp.maximum(here.sum(dtype=dtype), 1), 0)
    return weight


def _overlaps(
    raw_boxes: Array, assignment: Assignment, batch: Batch, grid: Grid, config: LossConfig, center_bound: float
) -> Array:
    """Overlap [B, P] of predicted, raw [B, N, 4], with true boxes, in cells, from the cell."""
    rows = rows_at(raw_boxes, assignment.index)
    cell, stride, anchor_px = (jnp.asarray(part, rows.dtype)[assignment.index] for part in grid[:3])
    truth = jnp.take_along_axis(batch.boxes_cxcywh_px, assignment.truth[..., None], axis=1).astype(rows.dtype)
    stride = stride[..., None]
    sigma = jax.nn.sigmoid(rows[..., :4])
    center, size = (
        center_in_cell(sigma[..., :2], center_bound=center_bound),
        jnp.square(2 * sigma[..., 2:]) * anchor_px / stride,
    )
    expected = jnp.concat([truth[..., :2] / stride - cell, truth[..., 2:] / stride], axis=-1)
    return bbox_iou(jnp.concat([center, size], axis=-1), expected, iou_type=config.iou_type)


def _objectness_loss(logits: Array, target: Array, assignment: Assignment, grid: Grid, config: LossConfig) -> Array:
    """Mean cross-entropy [L] of every level's logits [B, N]; where positives share one, the largest target."""
    target = jnp.where(assignment.positive, target, 0)
    targets = jax.vmap(lambda zeros, index, value: zeros.at[index].max(value))(
        jnp.zeros_like(logits), assignment.index, target
    )
    loss = binary_cross_entropy(logits, targets, pos_weight=config.obj_pw, focal_gamma=config.fl_gamma).mean(0)
    return jnp.stack([loss[level].mean() for level in grid.levels])
