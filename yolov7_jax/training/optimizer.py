"""Schedules, parameter groups, optimizers and the moving average of the weights."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolov7_jax.config import OptimConfig
from yolov7_jax.errors import InputError
from yolov7_jax.types import Array

GROUPS: Mapping[str, str] = {"bias": r".*/bias", "weight": r".*/kernel", "other": r".*/(scale|implicit)"}
"""Parameter groups as regular expressions over whole tree paths; kernels alone have weight decay."""

FROZEN = "frozen"
"""The group of weights that stay as they are."""

ADAM_SECOND_DECAY = 0.999
ADAM_EPSILON = 1e-8


class Rates(NamedTuple):
    """What the optimizer works with at one iteration: a learning rate for each group, and the momentum."""

    other: Array
    weight: Array
    bias: Array
    momentum: Array


def _numeric(iteration: Array) -> ModuleType:
    return jnp if isinstance(iteration, jax.Array) else np


def _real(iteration: Array) -> Array:
    return iteration.astype(float) if isinstance(iteration, jax.Array) else float(iteration)


def _warmed(iteration: Array, config: OptimConfig, steps_per_epoch: int) -> Array:
    """How much of the warm-up is done, 0..1."""
    length = max(round(config.warmup_epochs * steps_per_epoch), config.warmup_min_steps)
    return _numeric(iteration).minimum(_real(iteration) / length, 1.0) if length else 1.0


def rates(iteration: Array, config: OptimConfig, *, steps_per_epoch: int, epochs: int) -> Rates:
    """Learning rates and momentum at an iteration, an int or a traced int32.

    After warm-up every rate is lr0 times a factor that falls from 1 to lrf over the epochs, by a cosine or a line, in
    steps of whole epochs. In warm-up each goes there linearly, biases from warmup_bias_lr, the others from 0, and the
    momentum of SGD from warmup_momentum; β1 of Adam is constant.
    """
    done = _real(iteration // steps_per_epoch) / epochs
    fallen = done if config.schedule == "linear" else (1 - _numeric(iteration).cos(math.pi * done)) / 2
    rate = config.lr0 * (1 + fallen * (config.lrf - 1))
    warmed = _warmed(iteration, config, steps_per_epoch)

    def approach(start: float, target: Array) -> Array:
        return start * (1 - warmed) + target * warmed

    start = config.warmup_momentum if config.name == "sgd" else config.momentum
    ramped = approach(0.0, rate)
    return Rates(ramped, ramped, approach(config.warmup_bias_lr, rate), approach(start, config.momentum))


def accumulation(iteration: Array, config: OptimConfig, *, steps_per_epoch: int, batch_size: int) -> Array:
    """How many batches' gradients are summed for an update: from 1 to nominal_batch_size / batch_size in warm-up."""
    xp = _numeric(iteration)
    wanted = 1 + (config.nominal_batch_size / batch_size - 1) * _warmed(iteration, config, steps_per_epoch)
    return xp.maximum(xp.round(wanted), 1).astype(xp.int32)


def full_accumulation(config: OptimConfig, batch_size: int) -> int:
    """`accumulation` after warm-up. Where this is 1 it is 1 throughout."""
    return max(1, round(config.nominal_batch_size / batch_size))


def matches(pattern: str, path: str) -> bool:
    """Whether a regular expression describes the whole of a tree path."""
    return re.fullmatch(pattern, path) is not None


def _path(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _paths(tree: Any) -> list[str]:
    return [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]


def check_freeze(pattern: str, variables: Mapping[str, Any]) -> None:
    """Refuses a setting optim.freeze that does not do what it says.

    Raises:
        InputError: it is no regular expression, describes no weight or running statistic, or leaves none to train.
    """
    if not pattern:
        return
    paths = [path for tree in variables.values() for path in _paths(tree)]
    try:
        frozen = {path for path in paths if matches(pattern, path)}
    except re.error as error:
        raise InputError(f"optim.freeze: {pattern!r} is not a regular expression ({error}); correct it") from error
    if not frozen:
        near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
        raise InputError(
            f"optim.freeze: {pattern!r} describes the whole path of no weight; the nearest are {', '.join(near)} "
            "(a whole layer is 0/.*)"
        )
    if frozen.issuperset(_paths(variables["params"])):
        raise InputError(f"optim.freeze: {pattern!r} describes every weight; leave some to train")


def parameter_labels(params: Any, *, freeze: str = "") -> Any:
    """The group of every weight, in a tree like `params`: a key of `GROUPS`, or `FROZEN`.

    Raises:
        InputError: a group is empty, or a weight is in none.
    """
    paths = _paths(params)
    for name, pattern in GROUPS.items():
        if not any(matches(pattern, path) for path in paths):
            raise InputError(
                f"no weight is in the parameter group {name!r} ({pattern}); train the training form of a network, "
                "with its batch normalization"
            )

    def label(keys: tuple[Any, ...], _: Any) -> str:
        path = _path(keys)
        if matches(freeze, path):
            return FROZEN
        for name, pattern in GROUPS.items():
            if matches(pattern, path):
                return name
        raise InputError(
            f"the weight {path} is in no parameter group; expected a path like {', '.join(GROUPS.values())}"
        )

    return jax.tree_util.tree_map_with_path(label, params)


def _adam(momentum: Array) -> optax.GradientTransformation:
    inner = optax.scale_by_adam(b1=momentum, b2=ADAM_SECOND_DECAY, eps=ADAM_EPSILON)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # it raises floats to the power of an integer count
            return inner.update(gradients, state, params)

    return optax.GradientTransformation(inner.init, update)


def _group(config: OptimConfig, rate: Array, momentum: Array, decay: float) -> optax.GradientTransformation:
    decayed = optax.add_decayed_weights(decay)
    parts = {
        "sgd": (decayed, optax.trace(momentum, nesterov=True)),
        "adam": (decayed, _adam(momentum)),
        "adamw": (_adam(momentum), decayed),
    }
    return optax.chain(*parts[config.name], optax.scale(-rate))


def optimizer(config: OptimConfig, now: Rates, labels: Any, *, batch_size: int) -> optax.GradientTransformation:
    """The optimizer at one iteration; its state has the same structure at all of them.

    SGD has Nesterov's momentum and, as Adam, weight decay in the gradient (L2); AdamW has it beside. The decay is
    that of the nominal batch, in proportion to the images of an update. labels: as `parameter_labels` gives them.
    """
    images = batch_size * full_accumulation(config, batch_size)
    decay = config.weight_decay * images / config.nominal_batch_size
    groups = {
        "bias": _group(config, now.bias, now.momentum, 0.0),
        "weight": _group(config, now.weight, now.momentum, decay),
        "other": _group(config, now.other, now.momentum, 0.0),
        FROZEN: optax.set_to_zero(),
    }
    return optax.partition(groups, labels)


def averaged(ema: Any, values: Any, updates: Array, config: OptimConfig) -> Any:
    """The moving average of a tree after update number `updates`, counted from 1."""
    decay = config.ema_decay * -jnp.expm1(-_real(updates) / config.ema_ramp)
    return optax.incremental_update(values, ema, 1 - decay)
