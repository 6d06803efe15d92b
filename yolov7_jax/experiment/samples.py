"""Draws training samples, and which cells are assigned to their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolov7_jax.config import Config
from yolov7_jax.config_file import check_config
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.loader import Loader
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.inference import ProgressBar, new_folder, no_progress
from yolov7_jax.experiment.preparation import open_data, starting_weights, training_pipeline
from yolov7_jax.experiment.setup import check_names, loss_of
from yolov7_jax.image import write_image
from yolov7_jax.nn.network import Network
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training.callbacks import Callback, Callbacks
from yolov7_jax.types import Batch
from yolov7_jax.viz.assignments import HeadCells, draw_cells
from yolov7_jax.viz.sheet import draw_batch


def show_samples(
    config: Config,
    folder: Path | str,
    *,
    images: int = 8,
    assign: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar[Any] = no_progress,
) -> list[Path]:
    """Draws the first training samples of a configuration, as they are augmented, in a new folder.

    samples-1.png … are sheets of up to 16. assign: also assigned-1.png …, one an image, with a picture for each head
    and level: boxes, the cells of their candidates, and those that the assigner picks by the predictions of the
    configuration's network (model.weights; fresh weights without) in inference.

    Raises:
        InputError: as `train`, or the number of images is not 1 or more.
    """
    check_config(config, where="config")
    if images < 1:
        raise InputError(f"{images} images were asked for; expected at least 1")
    config = replace(config, train=replace(config.train, val_every_epochs=0, batch_size=images))
    watching = Callbacks(callbacks)
    check_names(config)
    data = open_data(config, watching, progress)
    weights, report = starting_weights(config, data.train.names)
    watching.log(report)
    weights.graph.check_side(config.train.size)
    loader = Loader(training_pipeline(config, weights.graph, data.train), workers=config.data.workers)
    with closing(loader.batches()) as batches:
        batch = next(batches)
    folder = new_folder(Path(folder))
    return [*_sheets(batch, weights, folder), *(_assigned(batch, weights, config, folder) if assign else ())]


def _sheets(batch: Batch, weights: Weights, folder: Path) -> list[Path]:
    files = []
    for number, first in enumerate(range(0, len(batch.image), 16), start=1):
        part = slice(first, first + 16)
        sheet = draw_batch(
            batch.image[part], batch.boxes_cxcywh_px[part], batch.class_ids[part], batch.valid[part], weights.names
        )
        files.append(folder / f"samples-{number}.png")
        write_image(files[-1], sheet)
    return files


def _assigned(batch: Batch, weights: Weights, config: Config, folder: Path) -> list[Path]:
    graph = weights.graph
    loss = loss_of(config, graph)
    if not hasattr(loss, "assignments"):
        raise InputError(f"loss.name={config.loss.name}: it shows no assignments; give it a method `assignments`")
    grid = make_grid(graph.anchors, graph.strides, (batch.image.shape[1], batch.image.shape[2]))

    @jax.jit
    def assigned(variables: Any, batch: Batch) -> Any:
        outputs: Any = Network(graph).apply(variables, batch.image.astype(np.float32) / 255)
        return loss.assignments(outputs, batch, grid)

    found = jax.device_get(assigned(weights.variables, batch))
    heads = [("lead", batch.fine, found[0])]
    if found[1] is not None:
        heads.append(("auxiliary", batch.fine if batch.coarse is None else batch.coarse, found[1]))
    files = []
    for number, (image, boxes_cxcywh_px) in enumerate(zip(batch.image, batch.boxes_cxcywh_px, strict=True)):
        of_image = [HeadCells(name, *(_row(part, number) for part in parts)) for name, *parts in heads]
        files.append(folder / f"assigned-{number + 1}.png")
        write_image(files[-1], draw_cells(image, boxes_cxcywh_px, of_image, grid))
    return files


def _row(arrays: Any, number: int) -> Any:
    """Of arrays of a batch those of an image."""
    return jax.tree.map(lambda array: array[number], arrays)
