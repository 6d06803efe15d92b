"""What a training run begins with, from its configuration: data, weights, samples, settings without effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Config
from yolov7_jax.contracts import Transform
from yolov7_jax.convert.load import load, resolve
from yolov7_jax.convert.transfer import transfer
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.pipeline import Pipeline
from yolov7_jax.data.sampling import image_repeats, rectangles, squares
from yolov7_jax.data.transforms import check_sendable, named_transforms
from yolov7_jax.datasets import with_names
from yolov7_jax.datasets.audit import Audit, readable
from yolov7_jax.datasets.curate.anchors import ENOUGH, fit
from yolov7_jax.datasets.curate.statistics import objects_of, sizes_at
from yolov7_jax.datasets.image_cache import GIB, with_cached_images
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.labels import audit_data
from yolov7_jax.graph.builder import with_anchors
from yolov7_jax.graph.rewrite import with_width, without_implicit
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import init
from yolov7_jax.prefetch import ProgressBar, of_each
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.optimizer import Schedule

GivenData = tuple[Source, Source | None]
"""Images to train on, and to evaluate on."""


class Data(NamedTuple):
    """Labeled images to train on, and to evaluate on if that is wanted."""

    train: SourceMixin
    val: SourceMixin | None


def open_data(config: Config, callbacks: Callback, progress: ProgressBar, *, given: GivenData | None = None) -> Data:
    """The training and validation images, audited; reports everything that is wrong.

    given: open sources, in place of those that the configuration names.
    """
    settings = config.data
    if settings.cache_images == "memory" and settings.processes:
        raise InputError(
            "data.cache_images is memory, which worker processes do not share; use data.cache_images=disk, which they "
            "do, or threads (data.processes=false)"
        )
    if given is None and not settings.path:
        raise InputError(
            "data.path is not set; name a data YAML, a COCO JSON, a COCO or VOC folder, or FORMAT:PLACE such as "
            "tfds:NAME: data.path=FILE"
        )
    train_place, val_place = (settings.path, settings.val_path or settings.path) if given is None else given
    train, found = _audited(train_place, settings.train_split, settings.images, config, callbacks, progress)
    if twice := [name for number, name in enumerate(train.names) if name in train.names[:number]]:
        raise InputError(
            f"{train_place if isinstance(train_place, str) else 'the training data'}: two classes are named "
            f"{twice[0]!r}; give every class a name of its own"
        )
    for line in ineffective_settings(config, images=len(train), with_polygons=found.with_polygons):
        callbacks.log(line)
    if not config.train.val_every_epochs or val_place is None:
        return _cached(Data(train, None), config, callbacks)
    images = settings.val_images if settings.val_path else settings.images
    val, _ = _audited(val_place, settings.val_split, images, config, callbacks, progress)
    if unknown := [name for name in val.names if name not in train.names]:
        raise InputError(
            f"{val_place if isinstance(val_place, str) else 'the validation data'}: its classes "
            f"{', '.join(unknown[:8])} are not among those of the training images ({', '.join(train.names[:8])} …); "
            "make them agree"
        )
    return _cached(Data(train, with_names(val, train.names)), config, callbacks)


def _cached(data: Data, config: Config, callbacks: Callback) -> Data:
    """The same images, decoded ones kept as data.cache_images says, those of training first; reports how many."""
    where, room = config.data.cache_images, int(config.data.cache_gb * GIB)
    if where == "off":
        return data
    sources: list[SourceMixin | None] = []
    for split, source in zip((config.data.train_split, config.data.val_split), data, strict=True):
        if source is None:
            sources.append(None)
            continue
        kept = with_cached_images(source, where, room=room)
        callbacks.log(f"{split}: {kept}")
        room -= kept.num_bytes
        sources.append(kept)
    train, val = sources
    assert train is not None
    return Data(train, val)


def _audited(
    data: str | Source, split: str, images: str, config: Config, callbacks: Callback, progress: ProgressBar
) -> tuple[SourceMixin, Audit]:
    source, found = audit_data(
        data,
        split,
        image_folder=images or None,
        cache=config.data.cache,
        progress=progress,
        single_class=config.data.single_class,
    )
    for line in found.lines():
        callbacks.log(f"{split}: {line}")
    if config.data.on_error == "stop":
        found.stop_on_error()
    return readable(source, found), found


def ineffective_settings(config: Config, *, images: int, with_polygons: int) -> list[str]:
    """A sentence for each setting of samples that has no effect on the data or beside others, or not the expected one.

    Args:
        config: has the settings.
        images: how many there are to train on.
        with_polygons: how many of their objects have polygons.
    """
    augment = config.augment
    lines: list[str] = []

    def without_effect(reason: str, *names: str) -> None:
        lines.extend(f"augment.{name}: has no effect, as {reason}" for name in names if getattr(augment, name))

    if not with_polygons:
        without_effect("no object of the training images has a polygon", "copy_paste", "paste_in")
    mosaic = augment.mosaic > 0 and not config.train.rect
    if config.train.rect and augment.mosaic:
        lines.append("train.rect: mosaic and what goes with it, mixup and copy_paste, have no effect")
    elif not mosaic:
        without_effect("augment.mosaic is 0", "mosaic9", "mixup", "copy_paste")
    if mosaic and augment.close_mosaic >= config.train.epochs:
        lines.append(
            f"augment.close_mosaic: as there are {config.train.epochs} epochs, there is no mosaic in any of them"
        )
    tiles = 9 if augment.mosaic9 else 4
    if mosaic and images < tiles:
        lines.append(f"augment.mosaic: of {tiles} images, but there are {images}: the same ones are in it repeatedly")
    if config.data.class_weights and config.data.sampling not in ("balanced", "by_ap"):
        lines.append(f"data.class_weights: has no effect, as data.sampling is {config.data.sampling}")
    if config.data.sampling == "by_ap" and not config.train.val_every_epochs:
        lines.append("data.sampling: by_ap is balanced, as there are no evaluations (train.val_every_epochs)")
    return lines


def expectations(config: Config, graph: Graph, source: SourceMixin, steps_per_epoch: int) -> list[str]:
    """What people want to know before the first step: how anchors fit, images of an update, rates, warm-up."""
    optim, steps = config.optim, config.train.epochs * steps_per_epoch
    schedule = Schedule(optim, steps_per_epoch, config.train.epochs, config.train.batch_size)
    batch, summed = config.train.batch_size, schedule.full_accumulation
    lines = [
        f"an update sees {batch * summed} images ({batch} × {summed}); learning rate "
        f"{optim.lr0:g} to {optim.lr0 * optim.lrf:g}, weight decay {schedule.update_config.weight_decay:g}"
    ]
    if schedule.warmup_steps >= steps:
        lines.append(
            f"warm-up lasts {schedule.warmup_steps} iterations and the run {steps}: its learning rate never gets to "
            f"{optim.lr0:g}; set optim.warmup_min_steps and optim.warmup_epochs, or train longer"
        )
    objects = objects_of(of_each(source.labels, range(len(source))))
    if len(objects.image):
        fitted = fit(sizes_at(objects, config.train.size), graph.anchors, config.loss.anchor_t)
        advice = "" if fitted.recall >= ENOUGH else "; see for better ones: yolov7-jax anchors"
        lines.insert(0, f"anchors fit {100 * fitted.recall:.2f} % of {fitted.boxes} boxes{advice}")
    return lines


def starting_weights(config: Config, names: tuple[str, ...]) -> tuple[Weights, str]:
    """The network with what it knows at the beginning, and how it came to it."""
    key = jax.random.key(config.train.seed)
    if config.model.weights:
        weights, report = transfer(load(config.model.weights), names, key)
        graph = _with_own_anchors(weights.graph, config)
        return replace(weights, graph=graph), f"{config.model.weights}: {report}"
    graph = graph_of(config, num_classes=len(names))
    variables = jax.tree.map(np.asarray, init(graph, key))
    return Weights(graph, variables, names), f"{config.model.name}: randomly initialized"


def graph_of(config: Config, *, num_classes: int | None = None) -> Graph:
    """The network of a configuration, or of its initial weights, before it meets data.

    num_classes: by default the network's own.
    """
    if config.model.weights:
        graph = load(config.model.weights).graph
        return _with_own_anchors(resolve(graph, num_classes=num_classes), config)
    graph = with_width(resolve(config.model.name, num_classes=num_classes), config.model.width)
    return _with_own_anchors(graph if config.model.implicit else without_implicit(graph), config)


def _with_own_anchors(graph: Graph, config: Config) -> Graph:
    """The graph with the anchors of the configuration, where it has some."""
    anchors = config.model.anchors
    if not anchors:
        return graph
    wanted, given = ([len(level) * pair for level in levels] for levels, pair in ((graph.anchors, 2), (anchors, 1)))
    if wanted != given or not all(0 < side < math.inf for level in anchors for side in level):
        raise InputError(
            f"model.anchors is {[list(level) for level in anchors]}; {config.model.weights or config.model.name} needs "
            f"{len(wanted)} levels of {wanted[0]} numbers over 0: width, height, width, height, … in pixels"
        )
    return with_anchors(graph, tuple(tuple(zip(level[0::2], level[1::2], strict=True)) for level in anchors))


def training_pipeline(
    config: Config, graph: Graph, source: Source, *, transforms: Sequence[Transform] | None = None
) -> Pipeline:
    """What makes the samples of a run.

    transforms: in place of those that augment.transforms names.

    Raises:
        InputError: data.class_weights do not fit the data, or a transform cannot be called or sent to processes.
    """
    if transforms is None:
        transforms = named_transforms(config.augment.transforms)
    if config.data.processes:
        check_sendable(transforms)
    source, size, stride = complete(source), config.train.size, graph.max_stride
    shapes, buckets = squares(size, config.train.multi_scale, stride=stride), None
    if config.train.rect:
        shapes, buckets = rectangles([source.size(index) for index in range(len(source))], size, stride=stride)
    return Pipeline(
        source=source,
        augment=config.augment,
        shapes=shapes,
        buckets=buckets,
        repeats=repeats(config, source),
        epochs=config.train.epochs,
        anchors=graph.anchors,
        strides=graph.strides,
        anchor_t=config.loss.anchor_t,
        max_boxes=config.data.max_boxes,
        mosaic_window=config.data.mosaic_window,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        neighbor_offset=config.loss.neighbor_offset,
        coarse=graph.has_aux and config.loss.aux == "coarse_to_fine",
        aux_neighbor_offset=config.loss.aux_neighbor_offset,
        on_error=config.data.on_error,
        transforms=tuple(transforms),
    )


def repeats(config: Config, source: SourceMixin, aps: Sequence[float | None] = ()) -> NDArray[np.float64] | None:
    """How often each image occurs in an epoch on average; None: once. aps: see `image_repeats`."""
    if config.data.sampling == "uniform":
        return None
    class_ids = [source.labels(index).class_ids for index in range(len(source))]
    return image_repeats(config.data, class_ids, len(source.names), aps)
