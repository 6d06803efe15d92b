"""Schedules, parameter groups, optimizers and the moving average of the weights."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from yolov7_jax.config import OptimConfig
from yolov7_jax.contracts import OptimizerFactory
from yolov7_jax.errors import InputError
from yolov7_jax.registry import OPTIMIZERS, look_up, register_optimizer
from yolov7_jax.types import Rates, Scalar

GROUPS: Mapping[str, str] = {"bias": r".*/bias", "weight": r".*/kernel", "norm": r".*/(scale|implicit)"}
"""Parameter groups as regular expressions over whole tree paths; kernels alone have weight decay."""

FROZEN = "frozen"
"""The group of weights that stay as they are."""

ADAM_SECOND_DECAY = 0.999
ADAM_EPSILON = 1e-8


def _numeric(iteration: Scalar) -> ModuleType:
    return jnp if isinstance(iteration, jax.Array) else np


def _real(iteration: Scalar) -> Scalar:
    return iteration.astype(float) if isinstance(iteration, jax.Array) else float(iteration)


@dataclass(frozen=True)
class Schedule:
    """Learning rates, momentum and accumulation at every iteration of a run; iterations are ints or traced int32.

    batch_size: images of a step over all devices and hosts.
    """

    config: OptimConfig
    steps_per_epoch: int
    epochs: int
    batch_size: int

    def rates(self, iteration: Scalar) -> Rates:
        """Learning rates and momentum.

        After warm-up every rate is lr0 times a factor that falls from 1 towards lrf in steps of whole epochs: by a
        cosine that would reach it after the last (YOLOv7), or by a line that has it in the last (YOLOv5 v6.0). In
        warm-up each goes there linearly, biases from warmup_bias_lr, the others from 0, and the momentum of SGD from
        warmup_momentum; β1 of the others is constant.
        """
        config = self.config
        linear = config.schedule == "linear"
        done = _real(iteration // self.steps_per_epoch) / (max(self.epochs - 1, 1) if linear else self.epochs)
        fallen = done if linear else (1 - _numeric(iteration).cos(math.pi * done)) / 2
        rate = config.lr0 * (1 + fallen * (config.lrf - 1))
        warmed = self._warmed(iteration)

        def approach(start: float, target: Scalar) -> Scalar:
            return start * (1 - warmed) + target * warmed

        start = config.warmup_momentum if config.name == "sgd" else config.momentum
        ramped = approach(0.0, rate)
        return Rates(ramped, ramped, approach(config.warmup_bias_lr, rate), approach(start, config.momentum))

    def accumulation(self, iteration: Scalar) -> Scalar:
        """How many batches' gradients are summed for an update: from 1 to `full_accumulation` in warm-up."""
        xp = _numeric(iteration)
        wanted = 1 + (self.config.nominal_batch_size / self.batch_size - 1) * self._warmed(iteration)
        return xp.maximum(xp.round(wanted), 1).astype(xp.int32)

    @property
    def full_accumulation(self) -> int:
        """`accumulation` after warm-up. Where this is 1 it is 1 throughout."""
        return max(1, round(self.config.nominal_batch_size / self.batch_size))

    @property
    def micro_batches(self) -> int:
        """How many parts of a batch go through the network one after another, in one step."""
        return self.batch_size // (self.config.micro_batch or self.batch_size)

    @property
    def update_config(self) -> OptimConfig:
        """The settings with the weight decay of an update: that of the nominal batch, in proportion to the images."""
        images = self.batch_size * self.full_accumulation
        return replace(self.config, weight_decay=self.config.weight_decay * images / self.config.nominal_batch_size)

    @property
    def warmup_steps(self) -> int:
        """Iterations of the warm-up."""
        return max(round(self.config.warmup_epochs * self.steps_per_epoch), self.config.warmup_min_steps)

    def _warmed(self, iteration: Scalar) -> Scalar:
        """How much of the warm-up is done, 0..1."""
        length = self.warmup_steps
        return _numeric(iteration).minimum(_real(iteration) / length, 1.0) if length else 1.0


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


Rule = Callable[[Scalar, optax.GradientTransformation], tuple[optax.GradientTransformation, ...]]
"""(momentum, the decay of weights) → what gradients go through before the learning rate."""


def grouped(rule: Rule, now: Rates, labels: Any, config: OptimConfig) -> optax.GradientTransformation:
    """One rule for all parameter groups, with the rate of each; kernels alone have weight decay."""

    def group(rate: Scalar, decay: float) -> optax.GradientTransformation:
        parts = map(_promoting, rule(now.momentum, optax.add_decayed_weights(decay)))
        return optax.chain(*parts, optax.scale(-rate))

    groups = {
        "bias": group(now.bias, 0.0),
        "weight": group(now.weight, config.weight_decay),
        "norm": group(now.norm, 0.0),
        FROZEN: optax.set_to_zero(),
    }
    return optax.partition(groups, labels)


def _promoting(part: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation under the usual promotion of dtypes: optax raises floats to the power of integer counts."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return part.update(gradients, state, params)

    return optax.GradientTransformation(part.init, update)


def _adam(momentum: Scalar, **options: Any) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=momentum, b2=ADAM_SECOND_DECAY, eps=ADAM_EPSILON, **options)


def _muon(momentum: Scalar, decayed: optax.GradientTransformation) -> tuple[optax.GradientTransformation, ...]:
    """Muon for kernels, as matrices of what they sum over and of their outputs; vectors get Adam's rule from it."""
    matrices = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)

    def numbers(params: Any) -> Any:
        return jax.tree.map(lambda leaf: matrices if leaf.ndim == 4 else None, params)

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: "matrix" if leaf.ndim == 4 else "vector", params)

    muon = optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=numbers)
    return optax.partition({"matrix": muon, "vector": _adam(momentum)}, labels), decayed


RULES: dict[str, Rule] = {
    "sgd": lambda momentum, decayed: (decayed, optax.trace(momentum, nesterov=True)),  # decay as L2
    "adam": lambda momentum, decayed: (decayed, _adam(momentum)),  # decay as L2
    "adamw": lambda momentum, decayed: (_adam(momentum), decayed),
    "nadamw": lambda momentum, decayed: (_adam(momentum, nesterov=True), decayed),
    "lion": lambda momentum, decayed: (optax.scale_by_lion(b1=momentum), decayed),
    "adafactor": lambda _, decayed: (
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        decayed,
    ),
}
if hasattr(optax.contrib, "scale_by_muon"):
    RULES["muon"] = _muon

for _name, _rule in RULES.items():
    register_optimizer(_name)(partial(grouped, _rule))


def make_optimizer(config: OptimConfig) -> OptimizerFactory:
    """The optimizer factory that optim.name names.

    Raises:
        InputError: it is not known.
    """
    return look_up(OPTIMIZERS, config.name, where="optim.name")


def clipped(transform: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """A transformation of gradients whose global norm is at most this; its state is as it was."""
    clip = optax.clip_by_global_norm(norm)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return transform.update(clip.update(gradients, clip.init(params))[0], state, params)

    return optax.GradientTransformation(transform.init, update)


def averaged(ema: Any, values: Any, updates: Scalar, config: OptimConfig) -> Any:
    """The moving average of a tree after update number `updates`, counted from 1."""
    decay = config.ema_decay * -jnp.expm1(-_real(updates) / config.ema_ramp)
    return optax.incremental_update(values, ema, 1 - decay)
