"""One step of training: loss, gradients, update, averages, compiled into one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from yolov7_jax.config import Config
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import Network, abstract_variables
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training.loss import LossItems, detection_loss, next_balance, scaled_gains
from yolov7_jax.training.mesh import check_batch_size, replicated, split
from yolov7_jax.training.optimizer import (
    FROZEN,
    Rates,
    accumulation,
    averaged,
    check_freeze,
    optimizer,
    parameter_labels,
    rates,
)
from yolov7_jax.training.state import TrainState
from yolov7_jax.types import Batch

Metrics = dict[str, jax.Array]
"""Scalars of one step, by name."""

LossFunction = Callable[[Any, Any, Batch, Any], tuple[jax.Array, tuple[LossItems, Any]]]
"""(params, batch_stats, batch, balance) → loss, (its items, new batch_stats)."""


def make_step(
    graph: Graph, config: Config, *, steps_per_epoch: int, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step (state, batch) → (state, metrics); the state that goes in is used up.

    The batch is split over the mesh, the state is whole on every device, batch statistics are those of the whole
    batch. A batch whose loss or gradient is not finite changes nothing but the counters. Metrics: `box`, `obj`, `cls`
    and `total` of the loss; of the lead head `positives`, `positives_per_box` and, for each level, `positives_stride_8`
    … and `objectness_stride_8` … (its loss, without gain and weight); `balance_stride_8` … where loss.autobalance is
    on; `overflow_boxes` and `overflow_candidates` left out of the batch, `lr/norm`, `lr/weight`, `lr/bias`,
    `momentum`, `gradient_norm`, `finite`, and the counters `updates`, `nonfinite`, `nonfinite_in_row`.

    Raises:
        InputError: the batch cannot be shared by the devices, optim.freeze is wrong, or the network is not in its
            training form.
    """
    check_batch_size(config.train.batch_size, mesh)
    variables = abstract_variables(graph)
    check_freeze(config.optim.freeze, variables)
    labels = parameter_labels(variables["params"], freeze=config.optim.freeze)
    loss_of = _loss_function(graph, config, labels)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        now = rates(state.step, config.optim, steps_per_epoch=steps_per_epoch, epochs=config.train.epochs)
        every = accumulation(
            state.step, config.optim, steps_per_epoch=steps_per_epoch, batch_size=config.train.batch_size
        )
        value, gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params, state.batch_stats, batch, state.balance
        )
        loss, (items, batch_stats) = value
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        transform = optimizer(config.optim, now, labels, batch_size=config.train.batch_size)
        state = _advanced(state, gradients, batch_stats, transform, config, finite=finite, due=state.step % every == 0)
        if state.balance is not None:
            moved = next_balance(state.balance, items.objectness, graph.strides)
            state = state._replace(balance=jnp.where(finite, moved, state.balance))
        return state, _metrics(state, items, graph.strides, batch, now, norm, finite)

    whole = replicated(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, split(mesh)), out_shardings=(whole, whole))


def _loss_function(graph: Graph, config: Config, labels: Any) -> LossFunction:
    network = Network(graph, jnp.dtype(config.train.dtype), config.optim.freeze)
    # Gains are of train.size, whatever the shape of a batch: recipes weigh the losses of a run, not of its batches.
    gains = scaled_gains(config.loss, levels=len(graph.strides), num_classes=graph.num_classes, size=config.train.size)

    def loss_of(params: Any, batch_stats: Any, batch: Batch, balance: Any) -> tuple[jax.Array, tuple[LossItems, Any]]:
        size = (batch.image.shape[1], batch.image.shape[2])
        grid = make_grid(graph.anchors, graph.strides, size)
        # Without a gradient to compute, XLA leaves out the backward pass of what is frozen.
        params = jax.tree.map(lambda leaf, label: lax.stop_gradient(leaf) if label == FROZEN else leaf, params, labels)
        outputs: Any
        outputs, changed = network.apply(
            {"params": params, "batch_stats": batch_stats},
            batch.image.astype(jnp.float32) / 255,
            train=True,
            mutable=["batch_stats"],
        )
        loss, items = detection_loss(outputs, batch, grid, gains, balance=balance)
        return loss, (items, changed["batch_stats"])

    return loss_of


def _advanced(
    state: TrainState,
    gradients: Any,
    batch_stats: Any,
    transform: optax.GradientTransformation,
    config: Config,
    *,
    finite: jax.Array,
    due: jax.Array,
) -> TrainState:
    """The next state: unchanged but for its counters, with gradients added, or with updated weights."""

    def accumulate(state: TrainState) -> TrainState:
        return state._replace(batch_stats=batch_stats, gradients=optax.tree.add(state.gradients, gradients))

    def update(state: TrainState) -> TrainState:
        summed, empty = gradients, None
        if state.gradients is not None:
            summed, empty = optax.tree.add(state.gradients, gradients), optax.tree.zeros_like(gradients)
        changes, opt_state = transform.update(summed, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        updates = state.updates + 1
        ema = averaged(state.ema, {"params": params, "batch_stats": batch_stats}, updates, config.optim)
        return state._replace(
            params=params, batch_stats=batch_stats, ema=ema, opt_state=opt_state, gradients=empty, updates=updates
        )

    if state.gradients is None:
        state = lax.cond(finite, update, lambda state: state, state)
    else:
        branch = jnp.where(finite, 1 + due.astype(jnp.int32), 0)
        state = lax.switch(branch, [lambda state: state, accumulate, update], state)
    return state._replace(
        step=state.step + 1,
        nonfinite=jnp.where(finite, state.nonfinite, state.nonfinite + 1),
        nonfinite_in_row=jnp.where(finite, 0, state.nonfinite_in_row + 1),
    )


def _metrics(
    state: TrainState,
    items: LossItems,
    strides: Sequence[int],
    batch: Batch,
    now: Rates,
    norm: jax.Array,
    finite: jax.Array,
) -> Metrics:
    boxes, candidates = batch.overflow.sum(0)
    positives, present = items.positives.sum(), batch.valid.sum(dtype=jnp.int32)
    levels = {"positives": items.positives, "objectness": items.objectness, "balance": state.balance}
    return {
        "box": items.box,
        "obj": items.obj,
        "cls": items.cls,
        "total": items.total,
        "positives": positives,
        "positives_per_box": positives / jnp.maximum(present, 1),
        **{
            f"{name}_stride_{stride}": values[level]
            for name, values in levels.items()
            if values is not None
            for level, stride in enumerate(strides)
        },
        "overflow_boxes": boxes,
        "overflow_candidates": candidates,
        "lr/norm": now.other,
        "lr/weight": now.weight,
        "lr/bias": now.bias,
        "momentum": jnp.asarray(now.momentum, jnp.float32),
        "gradient_norm": norm,
        "finite": finite,
        "updates": state.updates,
        "nonfinite": state.nonfinite,
        "nonfinite_in_row": state.nonfinite_in_row,
    }
