"""The loss of a detector: boxes, objectness and classes of positives, objectness of all predictions.

One loss for all forms: assigner, box loss and what guides an auxiliary head are its parts, and an auxiliary head is
the same loss a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from yolov7_jax.assign import ota, simple  # noqa: F401 - which register themselves
from yolov7_jax.config import LossConfig
from yolov7_jax.contracts import IMAGES, Assigner, LossFn, LossSetup
from yolov7_jax.errors import InputError
from yolov7_jax.ops.by_device import on_each_device
from yolov7_jax.ops.decode import UNBOUNDED, center_in_cell
from yolov7_jax.ops.iou import IouType, bbox_iou
from yolov7_jax.ops.losses import binary_cross_entropy
from yolov7_jax.registry import ASSIGNERS, LOSSES, look_up, register_loss
from yolov7_jax.training.class_loss import class_loss, rows_at
from yolov7_jax.types import Assignment, Batch, Candidates, Grid, Outputs

BALANCE = {1: (4.0,), 2: (4.0, 1.0), 3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}
"""weights of the levels' objectness, finest first, by the number of levels (YOLOv5)"""
BALANCE_DECAY = 0.9999
"""of those weights in a step, where they follow the losses (YOLOv5)"""
BALANCED_STRIDE = 16
"""the level whose weight stays 1 then"""


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


class BoxLoss(Protocol):
    """Compares predicted boxes with those they are assigned to."""

    def __call__(self, predicted_cxcywh: jax.Array, truth_cxcywh: jax.Array, /) -> tuple[jax.Array, jax.Array]:
        """Loss and objectness target [...] of boxes [..., 4], in cells, centers relative to one point of both.

        The target counts from 0 up, and carries no gradient on from here.
        """


@dataclass(frozen=True)
class IouLoss:
    """The box loss 1 - IoU, whose IoU is the objectness target too."""

    iou_type: IouType = "ciou"

    def __call__(self, predicted_cxcywh: jax.Array, truth_cxcywh: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss and objectness target; see `BoxLoss`."""
        iou = bbox_iou(predicted_cxcywh, truth_cxcywh, iou_type=self.iou_type)
        return 1 - iou, iou


@dataclass(frozen=True)
class DetectionLoss:
    """A `LossFn`, computed in float32, or float64 if the outputs are.

    config: with gains that `scaled_gains` made. assigner: of both heads. box_loss: None for that of config.iou_type.

    Items are means over the batch: box, obj and cls with their gains, auxiliary heads included; total, their sum (the
    loss is this times the batch size); positives of the lead head, and positives_per_box; for each of its levels
    positives_stride_8 … and objectness_stride_8 … (its loss, without gain and weight).
    """

    config: LossConfig
    assigner: Assigner
    box_loss: BoxLoss | None = None

    def __call__(self, outputs: Outputs, batch: Batch, grid: Grid, balance: jax.Array | None = None) -> Any:
        """The loss, float [], and its items.

        balance: float [L], weights of the levels' objectness; by default those of `first_balance`.

        Raises:
            InputError: an auxiliary head is to have coarse candidates, and the batch has none.
        """
        exact = jnp.float64 if outputs.lead.dtype == jnp.float64 else jnp.float32
        outputs = jax.tree.map(lambda raw: raw.astype(exact), outputs)
        balance = jnp.asarray(first_balance(len(grid.levels)) if balance is None else balance, exact)
        lead, aux = self.assignments(outputs, batch, grid)
        box, objectness, cls = self._head_loss(outputs.lead, lead, batch, grid)
        obj = (objectness * balance).sum()
        if outputs.aux is not None and aux is not None:
            aux_box, aux_objectness, aux_cls = self._head_loss(outputs.aux, aux, batch, self._aux_grid(grid))
            box += self.config.aux_weight * aux_box
            obj += self.config.aux_weight * (aux_objectness * balance).sum()
            cls += self.config.aux_weight * aux_cls
        box, obj, cls = box * self.config.box, obj * self.config.obj, cls * self.config.cls
        total = box + obj + cls
        items = {"box": box, "obj": obj, "cls": cls, "total": total, **_positives(lead, batch, grid)}
        items |= _by_level("objectness", objectness, grid)
        return total * len(batch.valid), items

    def assignments(self, outputs: Outputs, batch: Batch, grid: Grid) -> tuple[Assignment, Assignment | None]:
        """The positives of the lead head, and of the auxiliary head if there is one.

        The lead head's predictions choose its positives among the fine candidates. Those of an auxiliary head are
        chosen (YOLOv7, arXiv:2207.02696, section 4.2), by config.aux, by the lead head's predictions among the coarse
        candidates; or are the lead head's; or are chosen by its own predictions.

        Raises:
            InputError: an auxiliary head is to have coarse candidates, and the batch has none.
        """
        lead = self._assigned(outputs.lead, batch, batch.fine, grid)
        if outputs.aux is None:
            return lead, None
        if self.config.aux == "independent":
            return lead, self._assigned(outputs.aux, batch, batch.fine, self._aux_grid(grid))
        if self.config.aux == "coarse_to_fine":
            return lead, self._assigned(outputs.lead, batch, _coarse(batch), grid)
        return lead, lead

    def _assigned(self, raw: jax.Array, batch: Batch, candidates: Candidates, grid: Grid) -> Assignment:
        """The assignment of every image of a batch by the predictions [B, N, 5 + C] of one head."""
        by_image = on_each_device(jax.vmap(partial(_called, self.assigner, grid), axis_name=IMAGES))
        assignment: Assignment = by_image(raw, batch.boxes_cxcywh_px, batch.class_ids, batch.valid, candidates)
        return assignment

    def _aux_grid(self, grid: Grid) -> Grid:
        return grid if self.config.aux_center_bound else grid._replace(center_bound=UNBOUNDED)

    def _head_loss(
        self, raw: jax.Array, assignment: Assignment, batch: Batch, grid: Grid
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Box [], objectness [L] and class loss [] of one head [B, N, 5 + C], without gains and weights."""
        config = self.config
        weight = _level_means(assignment, grid, raw.dtype)  # [B, P]
        box_loss = self.box_loss or IouLoss(config.iou_type)
        loss, target = box_loss(*_matched_boxes(raw[..., :4], assignment, batch, grid))  # [B, P] both
        target = (1 - config.gr) + config.gr * jnp.maximum(lax.stop_gradient(target), 0)
        objectness = _objectness_loss(raw[..., 4], target, assignment, grid, config)
        return (loss * weight).sum(), objectness, class_loss(raw, assignment, batch, weight, config)


@dataclass(frozen=True)
class AutobalancedLoss(DetectionLoss):
    """A `DetectionLoss` whose weights of the levels' objectness follow their losses (YOLOv5, "autobalance").

    Its state is these weights, float32 [L]. strides: of the levels, in pixels.
    """

    strides: tuple[int, ...] = ()

    def initial_state(self) -> Any:
        """The weights as they begin."""
        return first_balance(len(self.strides))

    def __call__(self, outputs: Outputs, batch: Batch, grid: Grid, balance: jax.Array | None = None) -> Any:
        """The loss and its items, and among them balance_stride_8 …, the weights after this step."""
        balance = jnp.asarray(self.initial_state() if balance is None else balance)
        loss, items = super().__call__(outputs, batch, grid, balance)
        objectness = jnp.stack([items[f"objectness_stride_{stride}"] for stride in self.strides])
        moved = jnp.where(jnp.isfinite(loss), next_balance(balance, objectness, self.strides), balance)
        return loss, items | _by_level("balance", moved, grid)

    def next_state(self, _: jax.Array, items: Mapping[str, jax.Array]) -> jax.Array:
        """The weights after a step."""
        return jnp.stack([items[f"balance_stride_{stride}"] for stride in self.strides])


@register_loss("detection")
def detection_loss(config: LossConfig, setup: LossSetup, *, box_loss: BoxLoss | None = None) -> DetectionLoss:
    """The loss of a run: gains scaled to its network and images, the assigner of its settings.

    Where an auxiliary head is assigned coarse to fine, either head takes up to aux_top_k of a box.
    """
    gains = scaled_gains(config, levels=len(setup.strides), num_classes=setup.num_classes, size=setup.size)
    both = setup.has_aux and config.aux == "coarse_to_fine"
    own = dataclasses.replace(config, top_k=config.aux_top_k) if both else config
    assigner = setup.assigner or look_up(ASSIGNERS, config.assigner, where="loss.assigner")(own)
    if config.autobalance:
        return AutobalancedLoss(gains, assigner, box_loss, setup.strides)
    return DetectionLoss(gains, assigner, box_loss)


def make_loss(config: LossConfig, setup: LossSetup) -> LossFn:
    """The loss that loss.name names.

    Raises:
        InputError: loss.name or loss.assigner is not known.
    """
    loss: LossFn = look_up(LOSSES, config.name, where="loss.name")(config, setup)
    return loss


def _called(assigner: Callable[..., Assignment], grid: Grid, *image: Any) -> Assignment:
    return assigner(*image, grid)


def _coarse(batch: Batch) -> Candidates:
    if batch.coarse is None:
        raise InputError(
            "loss.aux is coarse_to_fine and the batch has no coarse candidates; make it with them, or set loss.aux"
        )
    return batch.coarse


def _positives(lead: Assignment, batch: Batch, grid: Grid) -> dict[str, jax.Array]:
    """How many positives the lead head has: in all, for each box of the batch, on each level."""
    levels = jnp.stack([_on_level(lead, level).sum(dtype=jnp.int32) for level in grid.levels])  # [L]
    boxes = jnp.maximum(batch.valid.sum(dtype=jnp.int32), 1)
    total = levels.sum(dtype=jnp.int32)
    return {"positives": total, "positives_per_box": total / boxes, **_by_level("positives", levels, grid)}


def _by_level(name: str, values: jax.Array, grid: Grid) -> dict[str, jax.Array]:
    """Values [L] by the strides of their levels."""
    strides = (int(np.asarray(grid.stride)[level.start]) for level in grid.levels)
    return {f"{name}_stride_{stride}": value for stride, value in zip(strides, values, strict=True)}


def first_balance(levels: int) -> NDArray[np.float32]:
    """Weights [L] of the levels' objectness, as they stay or as they begin."""
    return np.array(BALANCE[levels], np.float32)


def next_balance(balance: jax.Array, objectness: jax.Array, strides: Sequence[int]) -> jax.Array:
    """Weights [L] of the levels' objectness after a step with losses [L] (YOLOv5, "autobalance").

    A level's weight moves towards the inverse of its loss; all are divided by that of stride 16 (of the first level,
    where there is no such).
    """
    inverse = 1 / jnp.maximum(objectness, jnp.finfo(objectness.dtype).tiny)
    moved = BALANCE_DECAY * balance + (1 - BALANCE_DECAY) * inverse
    return moved / moved[strides.index(BALANCED_STRIDE) if BALANCED_STRIDE in strides else 0]


def _on_level(assignment: Assignment, level: slice) -> jax.Array:
    """Which slots [B, P] hold positives of a level."""
    return assignment.positive & (assignment.index >= level.start) & (assignment.index < level.stop)


def _level_means(assignment: Assignment, grid: Grid, dtype: jnp.dtype) -> jax.Array:
    """Weights [B, P] whose sum with anything is the sum over levels of the mean over each level's positives."""
    weight = jnp.zeros(assignment.index.shape, dtype)
    for level in grid.levels:
        here = _on_level(assignment, level)
        weight += jnp.where(here, 1 / jnp.maximum(here.sum(dtype=dtype), 1), 0)
    return weight


def _matched_boxes(
    raw_boxes: jax.Array, assignment: Assignment, batch: Batch, grid: Grid
) -> tuple[jax.Array, jax.Array]:
    """Predicted, raw [B, N, 4], and true boxes [B, P, 4] of the slots, in cells, from the corner of the cell."""
    rows = rows_at(raw_boxes, assignment.index)  # [B, P, 4]
    cell, stride, anchor_px = (jnp.asarray(part, rows.dtype)[assignment.index] for part in grid[:3])
    truth = jnp.take_along_axis(batch.boxes_cxcywh_px, assignment.truth[..., None], axis=1).astype(rows.dtype)
    stride = stride[..., None]  # [B, P, 1]
    sigma = jax.nn.sigmoid(rows)
    center = center_in_cell(sigma[..., :2], grid.center_bound)
    size = jnp.square(2 * sigma[..., 2:]) * anchor_px / stride
    expected = jnp.concat([truth[..., :2] / stride - cell, truth[..., 2:] / stride], axis=-1)
    return jnp.concat([center, size], axis=-1), expected


def _objectness_loss(
    logits: jax.Array, target: jax.Array, assignment: Assignment, grid: Grid, config: LossConfig
) -> jax.Array:
    """Mean BCE [L] of every level's logits [B, N]; where positives share one, the largest target."""
    target = jnp.where(assignment.positive, target, 0)
    targets = jax.vmap(lambda zeros, index, value: zeros.at[index].max(value))(
        jnp.zeros_like(logits), assignment.index, target
    )
    loss = binary_cross_entropy(logits, targets, pos_weight=config.obj_pw, focal_gamma=config.fl_gamma).mean(0)
    return jnp.stack([loss[level].mean() for level in grid.levels])
