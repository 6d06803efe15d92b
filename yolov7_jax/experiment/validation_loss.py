"""The loss of a run on its validation images: the very loss that it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolov7_jax.config import Config
from yolov7_jax.data.augment import UNCHANGED
from yolov7_jax.data.loader import Loader
from yolov7_jax.experiment.preparation import training_pipeline
from yolov7_jax.experiment.setup import StepParts
from yolov7_jax.nn.network import Network
from yolov7_jax.source import Source
from yolov7_jax.training import hosts
from yolov7_jax.training.mesh import shard_batch
from yolov7_jax.training.step import Metrics, make_val_loss
from yolov7_jax.types import Batch

PREFIX = "val_"
"""Begins the names of items of the loss in the row of an evaluation."""

Losses = Callable[[Any, Callable[[], None]], dict[str, float]]
"""(averaged weights {"params", "batch_stats"}, what is called before each batch) → items by name."""


def validation_losses(config: Config, parts: StepParts, val: Source, mesh: Mesh) -> Losses:
    """What computes the items of a run's loss on validation images, in inference, without augmentation.

    Images are in the letterbox of training, in batches of the training's size; the last one is filled up with the
    first ones again. Items are means over the batches, counts too. An image that cannot be read counts as a gray one
    without objects. A loss with a state has that of a run's beginning. All processes of a run call it together.
    """
    settings = replace(config.train, rect=False, multi_scale=())
    data = replace(config.data, sampling="uniform", on_error="skip")
    plain = replace(config, train=settings, data=data, augment=UNCHANGED)
    pipeline = training_pipeline(plain, parts.network.graph, val)
    loader = Loader(pipeline, workers=config.data.workers, host=hosts.place())
    loss = _loss(parts.network, parts.loss, mesh)

    def losses(averaged: Any, check: Callable[[], None]) -> dict[str, float]:
        with closing(loader.batches()) as batches:
            found = [loss(averaged, shard_batch(batch, mesh)) for batch in _together(batches, pipeline.steps, check)]
        return _means(jax.device_get(found))

    return losses


def _loss(network: Network, loss: Any, mesh: Mesh) -> Callable[[Any, Batch], Metrics]:
    """The compiled loss; the last one is kept, as the step is."""
    try:
        return _kept_loss(network, loss, mesh)
    except TypeError:  # a loss of a user's that has no hash
        return make_val_loss(network, loss, mesh)


_kept_loss = lru_cache(maxsize=1)(make_val_loss)


def _together(batches: Iterator[Batch], count: int, check: Callable[[], None]) -> Iterator[Batch]:
    """So many batches, each of which all processes have, or none."""
    for _ in range(count):
        with hosts.all_or_none():
            check()
            batch = next(batches)
        yield batch


def _means(items: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    return {PREFIX + name: float(np.mean([batch[name] for batch in items])) for name in items[0]}
