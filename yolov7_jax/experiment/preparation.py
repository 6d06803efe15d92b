"""What a training run begins with, from its configuration: data, a network with its weights, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from yolov7_jax.config import Config
from yolov7_jax.convert.load import load, resolve
from yolov7_jax.convert.transfer import transfer
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.audit import audit, readable
from yolov7_jax.data.pipeline import Pipeline
from yolov7_jax.data.sources import Source, open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.inference import Track
from yolov7_jax.graph.rewrite import with_width, without_implicit
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import init
from yolov7_jax.train.loop import Watcher


class Data(NamedTuple):
    """Labelled images to train on, and to evaluate on if that is wanted."""

    train: Source
    val: Source | None


def open_data(config: Config, watcher: Watcher, track: Track[Any]) -> Data:
    """The training and validation images, looked over; tells of everything that is wrong."""
    settings = config.data
    if not settings.path:
        raise InputError(
            "data.path is not set; name a data YAML, a folder in VOC layout or a COCO JSON: data.path=FILE"
        )
    train = _look_over(settings.path, settings.train_split, settings.images, config, watcher, track)
    if not config.train.val_every:
        return Data(train, None)
    path, images = (settings.val_path, settings.val_images) if settings.val_path else (settings.path, settings.images)
    val = _look_over(path, settings.val_split, images, config, watcher, track)
    if val.names != train.names:
        raise InputError(
            f"{path}: its classes ({', '.join(val.names[:8])} …) are not those of the training images "
            f"({', '.join(train.names[:8])} …); make them agree"
        )
    return Data(train, val)


def _look_over(path: str, split: str, images: str, config: Config, watcher: Watcher, track: Track[Any]) -> Source:
    source = open_source(path, split, image_folder=Path(images) if images else None, faults="skip")
    found = audit(source, track=track)
    for line in found.lines():
        watcher.noted(f"{split}: {line}")
    if config.data.faults == "stop":
        found.stop_at_faults()
    return readable(source, found)


def starting_weights(config: Config, names: tuple[str, ...]) -> tuple[Weights, str]:
    """The network with what it knows at the beginning, and how it came to it."""
    key = jax.random.key(config.train.seed)
    if config.model.weights:
        weights, report = transfer(load(config.model.weights), names, key)
        return weights, f"{config.model.weights}: {report}"
    graph = with_width(resolve(config.model.name, num_classes=len(names)), config.model.width)
    graph = graph if config.model.implicit else without_implicit(graph)
    return Weights(graph, jax.tree.map(np.asarray, init(graph, key)), names), f"{config.model.name}: fresh weights"


def training_pipeline(config: Config, graph: Graph, source: Source) -> Pipeline:
    """What makes the samples of a run."""
    return Pipeline(
        source=source,
        augment=config.augment,
        size=config.train.size,
        anchors=graph.anchors,
        strides=graph.strides,
        anchor_t=config.loss.anchor_t,
        max_boxes=config.data.max_boxes,
        window=config.data.window,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        reach=config.loss.reach,
        coarse=graph.has_aux and config.loss.aux == "coarse_to_fine",
        aux_reach=config.loss.aux_reach,
        on_fault=config.data.faults,
    )
