"""Contact sheets of a data set as it is, before any augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolov7_jax.errors import DataError, InputError
from yolov7_jax.experiment.inference import ProgressBar, new_folder, no_progress
from yolov7_jax.experiment.labeled import open_labeled
from yolov7_jax.image import write_image
from yolov7_jax.source import SourceMixin
from yolov7_jax.viz.labels import LabeledImage, draw_labels, left_out
from yolov7_jax.viz.sheet import MOST_IMAGES


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
    progress: ProgressBar[Any] = no_progress,
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
    if images < 1:
        raise InputError(f"{images} images were asked for; expected at least 1")
    source, found = open_labeled(data, split, image_folder=image_folder, progress=progress)
    folder = new_folder(Path(folder))
    issues = [issue.message for issue in found.unusable.values()]
    files: list[Path] = []
    order = _order(source, np.random.default_rng(seed), issues_first=issues_first)[:images]
    for first in range(0, len(order), MOST_IMAGES):
        chosen = _labeled_images(source, order[first : first + MOST_IMAGES], issues)
        files.append(folder / f"labels-{len(files) + 1}.png")
        write_image(files[-1], draw_labels(chosen, source.names))
    return LabelSheets(files, issues)


def _labeled_images(source: SourceMixin, order: list[int], issues: list[str]) -> list[LabeledImage]:
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


def _order(source: SourceMixin, rng: np.random.Generator, *, issues_first: bool) -> list[int]:
    """The images shuffled; those from whose labels something is left out before others if that is wanted."""
    order: list[int] = rng.permutation(len(source)).tolist()
    return sorted(order, key=lambda index: not left_out(source.labels(index))) if issues_first else order
