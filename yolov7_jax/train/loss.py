"""The loss of a detector: boxes, objectness and classes of the predictions that answer for boxes, and all that do not.

One function for all forms: the assigner is a setting, and an auxiliary head is the same loss a second time.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.assign import ota, simple
from yolov7_jax.config import LossConfig
from yolov7_jax.ops.iou import ciou
from yolov7_jax.ops.losses import binary_cross_entropy
from yolov7_jax.types import Array, Assignment, Batch, Candidates, Grid, Outputs

AUX_WEIGHT = 0.25
"""of each item of an auxiliary head (YOLOv7, arXiv:2207.02696)"""
BALANCE = {1: (4.0,), 2: (4.0, 1.0), 3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}
"""weights of the levels' objectness, finest first, by the number of levels (YOLOv5)"""

USUAL_SHARE = 4
"""of this many slots of an assignment one holds a positive at most, but for crowded images"""


class LossItems(NamedTuple):
    """What a step's loss is made of: means over the batch, with their gains, auxiliary heads included.

    box, obj, cls: float []. total: float [], their sum; the loss is this times the batch size. positives: int32 [],
    predictions of the lead head that answer for a box.
    """

    box: Array
    obj: Array
    cls: Array
    total: Array
    positives: Array


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
    outputs: Outputs,
    batch: Batch,
    grid: Grid,
    config: LossConfig,
    *,
    independent: bool = False,
) -> tuple[Array, LossItems]:
    """The loss of a batch, to be differentiated with respect to the raw outputs, and its items.

    An auxiliary head is guided by the lead head, whose predictions choose the positives of both; on the coarse
    candidates where the batch has them ("coarse-to-fine lead guided"), else on the same as the lead head's ("lead
    guided"). Computed in float32, or float64 if the outputs are.

    Args:
        outputs: of the network, for the images of the batch.
        batch: boxes, and what candidates they have; its images are not looked at.
        grid: where the predictions of images of this size live.
        config: with gains that `scaled_gains` made.
        independent: the auxiliary head's own predictions choose its positives.

    Returns:
        The sum of the items times the batch size, float [], and the items.
    """
    exact = jnp.float64 if outputs.lead.dtype == jnp.float64 else jnp.float32
    outputs = jax.tree.map(lambda raw: raw.astype(exact), outputs)
    coarse = None if outputs.aux is None else batch.coarse
    top = ota.TOP if coarse is None else ota.COARSE_TO_FINE_TOP
    positives = partial(_positives, batch=batch, grid=grid, config=config, top=top)
    lead = positives(outputs.lead, batch.fine)
    box, obj, cls = _head_loss(outputs.lead, lead, batch, grid, config)
    if outputs.aux is not None:
        guide = outputs.aux if independent else outputs.lead
        same = coarse is None and not independent
        chosen = lead if same else positives(guide, batch.fine if coarse is None else coarse)
        aux = _head_loss(outputs.aux, chosen, batch, grid, config)
        box, obj, cls = (item + AUX_WEIGHT * more for item, more in zip((box, obj, cls), aux, strict=True))
    box, obj, cls = box * config.box, obj * config.obj, cls * config.cls
    total = box + obj + cls
    return total * len(batch.valid), LossItems(box, obj, cls, total, lead.positive.sum(dtype=jnp.int32))


def _positives(
    raw: Array, candidates: Candidates, *, batch: Batch, grid: Grid, config: LossConfig, top: int
) -> Assignment:
    """The assignment of every image of a batch by the predictions [B, N, 5 + C] of one head."""
    if config.assigner == "simple":
        return jax.vmap(simple.assign)(candidates)
    assign = partial(ota.assign, grid=grid, top=top, blocks=ota.blocks_needed(candidates))
    return jax.vmap(assign)(raw, batch.boxes_cxcywh_px, batch.class_ids, batch.valid, candidates)


def _head_loss(
    raw: Array, assignment: Assignment, batch: Batch, grid: Grid, config: LossConfig
) -> tuple[Array, Array, Array]:
    """Box, objectness and class loss of one head [B, N, 5 + C], without gains."""
    weight = _level_means(assignment, grid, raw.dtype)
    overlap = _overlaps(raw[..., :4], assignment, batch, grid)
    box = ((1 - overlap) * weight).sum()
    target = (1 - config.gr) + config.gr * jnp.maximum(lax.stop_gradient(overlap), 0)
    obj = _objectness_loss(raw[..., 4], target, assignment, grid, config)
    cls = _class_loss(raw, assignment, batch, weight, config)
    return box, obj, cls


def _level_means(assignment: Assignment, grid: Grid, dtype: jnp.dtype) -> Array:
    """Weights [B, P] whose sum with anything is the sum over levels of the mean over each level's positives."""
    weight = jnp.zeros(assignment.index.shape, dtype)
    for level in grid.levels:
        here = assignment.positive & (assignment.index >= level.start) & (assignment.index < level.stop)
        weight += jnp.where(here, 1 / jnp.maximum(here.sum(dtype=dtype), 1), 0)
    return weight


def _overlaps(raw_boxes: Array, assignment: Assignment, batch: Batch, grid: Grid) -> Array:
    """CIoU [B, P] of predicted, raw [B, N, 4], with true boxes, in cells, from the cell."""
    rows = _rows(raw_boxes, assignment.index)
    cell, stride, anchor_px = (jnp.asarray(part, rows.dtype)[assignment.index] for part in grid[:3])
    truth = jnp.take_along_axis(batch.boxes_cxcywh_px, assignment.truth[..., None], axis=1).astype(rows.dtype)
    stride = stride[..., None]
    sigma = jax.nn.sigmoid(rows[..., :4])
    predicted = jnp.concat([2 * sigma[..., :2] - 0.5, jnp.square(2 * sigma[..., 2:]) * anchor_px / stride], axis=-1)
    return ciou(predicted, jnp.concat([truth[..., :2] / stride - cell, truth[..., 2:] / stride], axis=-1))


def _objectness_loss(logits: Array, target: Array, assignment: Assignment, grid: Grid, config: LossConfig) -> Array:
    """Mean cross-entropy of every level's logits [B, N], balanced; where positives share one, the largest target."""
    target = jnp.where(assignment.positive, target, 0)
    targets = jax.vmap(lambda zeros, index, value: zeros.at[index].max(value))(
        jnp.zeros_like(logits), assignment.index, target
    )
    loss = binary_cross_entropy(logits, targets, pos_weight=config.obj_pw, focal_gamma=config.fl_gamma).mean(0)
    balance = BALANCE[len(grid.levels)]
    return sum(loss[level].mean() * share for level, share in zip(grid.levels, balance, strict=True))


def _class_loss(raw: Array, assignment: Assignment, batch: Batch, weight: Array, config: LossConfig) -> Array:
    """Cross-entropy of the positives' classes, mean over classes, times `weight` [B, P]; 0 with one class only.

    Most slots hold no positive, and a slot costs C cross-entropies: so only a share of them is computed where it has
    room for the positives of every image, and all of them only where it has not.
    """
    if raw.shape[-1] == 6:
        return jnp.zeros((), raw.dtype)
    class_ids = jnp.take_along_axis(batch.class_ids, assignment.truth, axis=1)
    few = -(-assignment.index.shape[1] // USUAL_SHARE)
    slot = jax.vmap(partial(_first_positives, few))(assignment.positive)
    usual = [jnp.take_along_axis(part, slot, axis=1, mode="clip") for part in (assignment.index, class_ids)]
    usual_weight = jnp.take_along_axis(weight, slot, axis=1, mode="fill", fill_value=0)
    # What the backward pass needs is computed again, or both branches would have to keep it.
    loss = jax.checkpoint(partial(_class_cross_entropy, config=config))
    return lax.cond(
        (assignment.positive.sum(1) <= few).all(),
        lambda: loss(raw, *usual, usual_weight),
        lambda: loss(raw, assignment.index, class_ids, weight),
    )


def _first_positives(count: int, positive: Array) -> Array:
    """The slots int32 [count] of the first positives among [P]; P where there are no more."""
    place = jnp.cumsum(positive, dtype=jnp.int32)
    return jnp.searchsorted(place, jnp.arange(count, dtype=jnp.int32), side="right").astype(jnp.int32)


def _class_cross_entropy(raw: Array, index: Array, class_ids: Array, weight: Array, *, config: LossConfig) -> Array:
    logits = _rows(raw, index)[..., 5:]
    low = config.label_smoothing / 2
    hot = jax.nn.one_hot(class_ids, logits.shape[-1], dtype=bool)
    targets = jnp.where(hot, 1 - low, low).astype(logits.dtype)
    loss = binary_cross_entropy(logits, targets, pos_weight=config.cls_pw, focal_gamma=config.fl_gamma)
    return (loss.mean(-1) * weight).sum()


def _rows(values: Array, index: Array) -> Array:
    """Of every image its rows [B, N, ...] at an index [B, P]."""
    return jax.vmap(lambda image, at: image[at])(values, index)
