"""Images drawn to look at before training: labels as they are, or samples as they are augmented and assigned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from yolov7_jax.config import Config
from yolov7_jax.config_file import check_config
from yolov7_jax.contracts import Transform
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.loader import Loader
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.experiment.labels import open_labeled
from yolov7_jax.experiment.preparation import open_data, starting_weights, training_pipeline
from yolov7_jax.experiment.setup import check_names, loss_of
from yolov7_jax.files import new_folder
from yolov7_jax.image import write_image
from yolov7_jax.nn.network import Network
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.source import SourceMixin
from yolov7_jax.training.callbacks import Callback, Callbacks
from yolov7_jax.types import Batch
from yolov7_jax.viz.assignments import HeadCells, draw_cells
from yolov7_jax.viz.sheet import MOST_IMAGES, Image, LabeledImage, draw_batch, draw_labels, left_out


class LabelSheets(NamedTuple):
    """The sheets that were drawn, and sentences on what is wrong with the images chosen or their labels."""

    files: list[Path]
    issues: list[str]


def show_labels(
    data: Path | str,
    folder: Path | str,
    *,
    split: str = "train",
    image_folder: Path | str | None = None,
    images: int = 16,
    seed: int = 0,
    issues_first: bool = False,
    progress: ProgressBar = no_progress,
) -> LabelSheets:
    """Draws images of a data set with their labels, chosen by chance, in a new folder: sheets of 16, labels-1.png ….

    Frames have the class's color, ignored objects (crowds, difficult ones) dashed frames, polygons their edge.

    Args:
        data: what `open_source` opens.
        folder: where to write.
        split: of the data.
        image_folder: of the images of a COCO JSON.
        images: how many; all, if there are fewer.
        seed: of the choice.
        issues_first: begin with images from whose labels something is left out.
        progress: a display of progress.

    Raises:
        InputError: the data cannot be used, or the number of images is not 1 or more.
    """
    _check_count(images)
    source, found = open_labeled(data, split, image_folder=image_folder, progress=progress)
    issues = [issue.message for issue in found.unusable.values()]
    order: list[int] = np.random.default_rng(seed).permutation(len(source)).tolist()
    if issues_first:
        order.sort(key=lambda index: not left_out(source.labels(index)))
    sheets = (draw_labels(_readable(source, part, issues), source.names) for part in _sheets(order[:images]))
    return LabelSheets(_write(new_folder(Path(folder)), "labels", sheets), issues)


def show_samples(
    config: Config,
    folder: Path | str,
    *,
    images: int = 8,
    assign: bool = False,
    transforms: Sequence[Transform] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
) -> list[Path]:
    """Draws the first training samples of a configuration, as they are augmented, in a new folder.

    samples-1.png … are sheets of up to 16. assign: also assigned-1.png …, one an image, with a part for each head and
    level: boxes, the cells of their candidates, and those that the assigner picks by the predictions of the
    configuration's network (of model.weights, else randomly initialized) in inference. transforms: in place of those
    that augment.transforms names.

    Raises:
        InputError: as `train`, or the number of images is not 1 or more.
    """
    check_config(config, where="config")
    _check_count(images)
    train, read_once = (
        replace(config.train, val_every_epochs=0, batch_size=images),
        replace(config.data, cache_images="off"),
    )
    config = replace(config, train=train, data=read_once)
    watching = Callbacks(callbacks)
    check_names(config)
    data = open_data(config, watching, progress)
    weights, report = starting_weights(config, data.train.names)
    watching.log(report)
    weights.graph.check_side(config.train.size)
    pipeline = training_pipeline(config, weights.graph, data.train, transforms=transforms)
    loader = Loader(pipeline, workers=config.data.workers)
    with closing(loader.batches()) as batches:
        batch = next(batches)
    folder = new_folder(Path(folder))
    sheets = (draw_batch(_part(batch, shown), weights.names) for shown in _sheets(range(images)))
    files = _write(folder, "samples", sheets)
    return files + _write(folder, "assigned", _assigned(batch, weights, config)) if assign else files


def _check_count(images: int) -> None:
    if images < 1:
        raise InputError(f"{images} images were asked for; expected at least 1")


def _sheets(order: Sequence[int]) -> Iterator[list[int]]:
    """The images of each sheet."""
    for first in range(0, len(order), MOST_IMAGES):
        yield list(order[first : first + MOST_IMAGES])


def _write(folder: Path, stem: str, sheets: Iterable[Image]) -> list[Path]:
    """Writes sheets as stem-1.png …."""
    files = []
    for number, sheet in enumerate(sheets, start=1):
        files.append(folder / f"{stem}-{number}.png")
        write_image(files[-1], sheet)
    return files


def _readable(source: SourceMixin, order: Sequence[int], issues: list[str]) -> list[LabeledImage]:
    """The images that can be read; adds what is wrong to `issues`."""
    images = []
    for index in order:
        labels = source.labels(index)
        issues += [issue.message for issue in labels.issues]
        try:
            images.append(LabeledImage(source.path(index).name, source.read(index), labels))
        except DataError as error:
            issues.append(str(error))
    return images


def _assigned(batch: Batch, weights: Weights, config: Config) -> Iterator[Image]:
    """A sheet of each image: candidates and positives of its boxes by head and level."""
    graph = weights.graph
    loss = loss_of(config, graph)
    if not hasattr(loss, "assignments"):
        raise InputError(f"loss.name={config.loss.name}: it shows no assignments; give it a method `assignments`")
    grid = make_grid(graph.anchors, graph.strides, (batch.image.shape[1], batch.image.shape[2]))

    @jax.jit
    def assignments(variables: Any, batch: Batch) -> Any:
        outputs: Any = Network(graph).apply(variables, batch.image.astype(np.float32) / 255)  # [B, N, 5 + C]
        return loss.assignments(outputs, batch, grid)

    lead, aux = jax.device_get(assignments(weights.variables, batch))
    heads = [("lead", batch.fine, lead)]
    if aux is not None:
        heads.append(("auxiliary", batch.fine if batch.coarse is None else batch.coarse, aux))
    for number, (image, boxes_cxcywh_px) in enumerate(zip(batch.image, batch.boxes_cxcywh_px, strict=True)):
        of_image = [HeadCells(name, *(_part(part, number) for part in parts)) for name, *parts in heads]
        yield draw_cells(image, boxes_cxcywh_px, of_image, grid)


def _part(arrays: Any, images: Any) -> Any:
    """Of arrays of a batch those of an image, or of some."""
    return jax.tree.map(lambda array: array[images], arrays)
