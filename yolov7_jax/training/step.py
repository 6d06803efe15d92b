"""One step of training: loss, gradients, update, averages, compiled into one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from yolov7_jax.contracts import LossFn, OptimizerFactory
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.conv import CONV, STAGE
from yolov7_jax.nn.network import Network, abstract_variables
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training.mesh import check_batch_size, check_micro_batch, data_mesh, replicated, split
from yolov7_jax.training.optimizer import FROZEN, Schedule, averaged, check_freeze, clipped, parameter_labels
from yolov7_jax.training.state import TrainState, abstract_state, state_shardings
from yolov7_jax.types import Batch, Grid, Rates

Metrics = dict[str, jax.Array]
"""Scalars of one step, by name."""

Remat = Literal["none", "conv", "stage"]

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    network: Network,
    loss: LossFn,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    *,
    mesh: Mesh | None = None,
    remat: Remat = "none",
    clip: float = 0.0,
    deterministic: bool = False,
    shard: bool = False,
) -> Step:
    """The compiled step (state, batch) → (state, metrics); the state that goes in is used up.

    Splits the batch, or each micro-batch, over the mesh (by default of all devices) and keeps the state whole on every
    device, or parts of it (shard, see `state_shardings`; the state must come so); batch statistics are those of all
    devices. Skips a batch whose loss or gradient is not finite: only counters change. Metrics are those of `pure_step`.
    deterministic: has GPUs sum in one order every time, more slowly; CPUs do anyway.

    Raises:
        InputError: the devices cannot share the batch or optim.micro_batch, network.frozen is wrong, or the network is
            not in its training form.
    """
    mesh = mesh or data_mesh()
    check_batch_size(schedule.batch_size, mesh)
    check_micro_batch(schedule.config.micro_batch, schedule.batch_size, mesh.size)
    pure = pure_step(network, loss, optimizer, schedule, remat=remat, clip=clip)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `on_each_device`
            return pure(state, batch)

    state = state_shardings(abstract_state(network, loss, optimizer, schedule), mesh, shard=shard)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state, split(mesh)),
        out_shardings=(state, replicated(mesh)),
        compiler_options={"xla_gpu_deterministic_ops": True} if deterministic else None,
    )


def pure_step(
    network: Network,
    loss: LossFn,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    *,
    remat: Remat = "none",
    clip: float = 0.0,
) -> Step:
    """The step before it is compiled, for `vmap` over states and whatever else; see `make_step`.

    remat: what the backward pass keeps of the network's forward pass, less memory for more time: "none" makes nothing
    anew and keeps all; "conv" keeps outputs of convolutions, and makes normalizations and activations anew; "stage"
    keeps the feature maps that end a stage, and makes the stages anew. clip: the largest global norm that the gradient
    of an update, summed over its batches, may have, to which it is scaled (arXiv 1211.5063, algorithm 1). 0: any.

    Metrics: `loss`, and its items; `overflow_boxes` and `overflow_candidates` left out of the batch; `lr/norm`,
    `lr/weight`, `lr/bias`, `momentum`, `gradient_norm`, `finite`; the counters `updates`, `nonfinite`,
    `nonfinite_in_row`.

    optim.micro_batch: the images go through the network so many at a time, image i of the batch in micro-batch i mod k
    of k, and gradients are summed. The step then equals k steps of such batches whose gradients `Schedule.accumulation`
    sums for one update: its loss is the sum of theirs, its items their means, those that are integers (counts) their
    sums. From the whole batch at once it differs in what is normalized over a batch: batch statistics are those of each
    micro-batch, and running statistics and the state of the loss follow one after another; where the loss takes means
    over positives (the box and class losses of `DetectionLoss`; not its objectness loss, a mean over predictions), they
    are those of each micro-batch, weighted by its images, whatever its positives. With frozen batch normalization and a
    loss that is a sum over images it is the same. If a micro-batch is not finite, the whole step is skipped.

    Raises:
        InputError: optim.micro_batch does not divide the batch, network.frozen is wrong, or the network is not in its
            training form.
    """
    check_micro_batch(schedule.config.micro_batch, schedule.batch_size, devices=1)
    variables = abstract_variables(network.graph)
    check_freeze(network.frozen, variables)
    labels = parameter_labels(variables["params"], freeze=network.frozen)
    both_passes = _at_once(loss, _loss_of_params(network, loss, labels, remat))
    if schedule.micro_batches > 1:
        both_passes = _in_micro_batches(both_passes, schedule.micro_batches)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        now = schedule.rates(state.step)
        found = both_passes(state, batch)
        norm = optax.tree.norm(found.gradients)
        finite = jnp.isfinite(found.loss) & jnp.isfinite(norm)
        transform = optimizer(now, labels, schedule.update_config)
        if clip:
            transform = clipped(transform, clip)
        due = state.step % schedule.accumulation(state.step) == 0
        ahead = _updated(state, found.gradients, found.batch_stats, transform, schedule, finite=finite, due=due)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), found.loss_state, state.loss_state)
        ahead = ahead._replace(loss_state=kept)
        return ahead, _metrics(ahead, found.loss, found.items, batch, now, norm, finite)

    return step


def make_val_loss(network: Network, loss: LossFn, mesh: Mesh) -> Callable[[Any, Batch], Metrics]:
    """The compiled items of a loss of (variables, batch), in inference; the batch is split over the mesh.

    variables: {"params", "batch_stats"}. A loss with a state has that of the beginning.
    """
    begin = getattr(loss, "initial_state", None)

    def items(variables: Any, batch: Batch) -> Metrics:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `on_each_device`
            outputs: Any = network.apply(variables, _fractions(batch.image))
            carried = () if begin is None else (jax.tree.map(jnp.asarray, begin()),)
            return dict(loss(outputs, batch, _grid(network.graph, batch), *carried)[1])

    return jax.jit(items, in_shardings=(replicated(mesh), split(mesh)), out_shardings=replicated(mesh))


class _Found(NamedTuple):
    """What images give: loss and items, gradients, and what batch_stats and loss_state are after them."""

    loss: jax.Array
    items: Mapping[str, Any]
    gradients: Any
    batch_stats: Any
    loss_state: Any


_BothPasses = Callable[[TrainState, Batch], _Found]
"""The network's forward and backward pass over the images of a batch."""

_Carried = tuple[Any, Any, Any]
"""batch_stats, loss_state and summed gradients, from one micro-batch to the next."""


def _at_once(loss: LossFn, loss_of: Callable[..., Any]) -> _BothPasses:
    """With all images at once."""

    def both_passes(state: TrainState, batch: Batch) -> _Found:
        (value, (items, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params, state, batch)
        moved = None
        if state.loss_state is not None:
            moved = loss.next_state(state.loss_state, items)  # type: ignore[attr-defined]
        return _Found(value, items, gradients, batch_stats, moved)

    return both_passes


def _in_micro_batches(both_passes: _BothPasses, count: int) -> _BothPasses:
    """With the images in so many micro-batches, one after another; image i is in number i mod count.

    So every device finds its share of each among its own images, and none are sent from one to another.
    """

    def in_turn(state: TrainState, batch: Batch) -> _Found:
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]), batch)  # [B / count, count, ...]

        def add(before: _Carried, number: jax.Array) -> tuple[_Carried, tuple[jax.Array, Mapping[str, Any]]]:
            micro_batch = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, number, 1, keepdims=False), rows)
            batch_stats, loss_state, gradients = before
            found = both_passes(state._replace(batch_stats=batch_stats, loss_state=loss_state), micro_batch)
            summed = optax.tree.add(gradients, found.gradients)
            return (found.batch_stats, found.loss_state, summed), (found.loss, found.items)

        start = state.batch_stats, state.loss_state, optax.tree.zeros_like(state.params)
        (batch_stats, loss_state, gradients), (losses, items) = lax.scan(add, start, jnp.arange(count))
        return _Found(losses.sum(), jax.tree.map(_of_all, items), gradients, batch_stats, loss_state)

    return in_turn


def _of_all(item: jax.Array) -> jax.Array:
    """An item of a whole batch from those of its micro-batches: the sum of counts, the mean of all else."""
    return item.sum(dtype=item.dtype) if jnp.issubdtype(item.dtype, jnp.integer) else item.mean()


def _loss_of_params(
    network: Network, loss: LossFn, labels: Any, remat: Remat
) -> Callable[[Any, TrainState, Batch], tuple[jax.Array, tuple[Mapping[str, Any], Any]]]:
    """(params, state, batch) → loss, (its items, new batch_stats)."""
    apply: Callable[..., Any] = partial(network.apply, train=True, mutable=["batch_stats"])
    if remat != "none":
        kept = {"conv": CONV, "stage": STAGE}[remat]
        apply = jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(kept))

    def loss_of(params: Any, state: TrainState, batch: Batch) -> tuple[jax.Array, tuple[Mapping[str, Any], Any]]:
        # Without a gradient to compute, XLA leaves out the backward pass of what is frozen.
        params = jax.tree.map(lambda leaf, label: lax.stop_gradient(leaf) if label == FROZEN else leaf, params, labels)
        outputs, changed = apply({"params": params, "batch_stats": state.batch_stats}, _fractions(batch.image))
        carried = () if state.loss_state is None else (state.loss_state,)
        value, items = loss(outputs, batch, _grid(network.graph, batch), *carried)
        return value, (items, changed["batch_stats"])

    return loss_of


def _fractions(images: Any) -> jax.Array:
    """Images [B, H, W, 3] of bytes, in 0..1."""
    fractions: jax.Array = images.astype(jnp.float32) / 255
    return fractions


def _grid(graph: Graph, batch: Batch) -> Grid:
    return make_grid(graph.anchors, graph.strides, (batch.image.shape[1], batch.image.shape[2]))


def _updated(
    state: TrainState,
    gradients: Any,
    batch_stats: Any,
    transform: optax.GradientTransformation,
    schedule: Schedule,
    *,
    finite: jax.Array,
    due: jax.Array,
) -> TrainState:
    """The next state: unchanged but for its counters, with gradients added, or with updated weights."""

    def accumulate(state: TrainState) -> TrainState:
        return state._replace(batch_stats=batch_stats, gradients=optax.tree.add(state.gradients, gradients))

    def drop(state: TrainState) -> TrainState:
        return state._replace(gradients=optax.tree.zeros_like(state.gradients))

    def update(state: TrainState) -> TrainState:
        summed, empty = gradients, None
        if state.gradients is not None:
            summed, empty = optax.tree.add(state.gradients, gradients), optax.tree.zeros_like(gradients)
        changes, opt_state = transform.update(summed, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        updates = state.updates + 1
        ema = averaged(state.ema, {"params": params, "batch_stats": batch_stats}, updates, schedule.config)
        return state._replace(
            params=params, batch_stats=batch_stats, ema=ema, opt_state=opt_state, gradients=empty, updates=updates
        )

    if state.gradients is None:
        state = lax.cond(finite, update, lambda state: state, state)
    else:
        # A batch that is skipped where an update is due takes it along, as with gradient scalers: what was summed is
        # of this update alone.
        branch = jnp.where(finite, 1, 0) + 2 * due.astype(jnp.int32)
        state = lax.switch(branch, [lambda state: state, accumulate, drop, update], state)
    return state._replace(
        step=state.step + 1,
        nonfinite=jnp.where(finite, state.nonfinite, state.nonfinite + 1),
        nonfinite_in_row=jnp.where(finite, 0, state.nonfinite_in_row + 1),
    )


def _metrics(
    state: TrainState,
    value: jax.Array,
    items: Mapping[str, Any],
    batch: Batch,
    now: Rates,
    norm: jax.Array,
    finite: jax.Array,
) -> Metrics:
    boxes, candidates = batch.overflow.sum(0)
    return {
        "loss": value,
        **items,
        "overflow_boxes": boxes,
        "overflow_candidates": candidates,
        "lr/norm": now.norm,
        "lr/weight": now.weight,
        "lr/bias": now.bias,
        "momentum": jnp.asarray(now.momentum, jnp.float32),
        "gradient_norm": norm,
        "finite": finite,
        "updates": state.updates,
        "nonfinite": state.nonfinite,
        "nonfinite_in_row": state.nonfinite_in_row,
    }
