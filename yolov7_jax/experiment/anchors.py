"""Anchors for one's own data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.config import LossConfig
from yolov7_jax.convert.load import Model
from yolov7_jax.datasets.curate.anchors import AnchorSearch, search
from yolov7_jax.datasets.curate.statistics import sizes_at
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.experiment.labels import network, objects_in, open_labeled
from yolov7_jax.files import write_atomically, yaml_text
from yolov7_jax.graph.spec import Graph
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.source import SourceMixin

_WEIGHTS = (".pt", ".pth", ".safetensors")


class AnchorRun(NamedTuple):
    """What was found for the images that can be used.

    graph: the network, with its own anchors. size: the longer side of images in pixels. images: how many. issues:
    sentences on what was left out. file: the configuration that was written, if any.
    """

    found: AnchorSearch
    graph: Graph
    size: int
    images: int
    issues: tuple[str, ...]
    file: Path | None


def fit_anchors(
    data: Path | str,
    model: Model = "yolov7-tiny",
    *,
    output: Path | str | None = None,
    split: str = "train",
    image_folder: Path | str | None = None,
    size: int | None = None,
    anchor_t: float = LossConfig.anchor_t,
    progress: ProgressBar = no_progress,
    **settings: int,
) -> AnchorRun:
    """How well a network's anchors fit the boxes of a data set, and better ones if there are any.

    Args:
        data: what `open_source` opens.
        model: a zoo name, a model YAML, weights, or a run's folder.
        output: where to write a configuration with the new anchors, which begins with the command to train with it;
            it is not written if there are none.
        split: of the data.
        image_folder: of the images of a COCO JSON.
        size: the longer side of images in training, in pixels; by default the one the network is published for.
        anchor_t: how many times larger or smaller than an anchor a box may be.
        progress: a display of progress.
        settings: of the genetic search: generations, population and seed, see `search`.

    Raises:
        InputError: the data or the model cannot be used, there are fewer boxes than anchors, or the file is there.
    """
    file = None if output is None else _free(Path(output), model)
    graph = network(model)
    side = graph.default_size if size is None else size
    graph.check_side(side)
    source, audit = open_labeled(data, split, image_folder=image_folder, progress=progress)
    found = _search(source, graph, side, f"{data} ({split})", anchor_t=anchor_t, **settings)
    if file is not None and found.improved:
        place = {"path": str(data), "train_split": split, **({"images": str(image_folder)} if image_folder else {})}
        write_atomically(file, _configuration(file, place, side, anchor_t, model, found))
    return AnchorRun(found, graph, side, len(source), audit.sentences, file if found.improved else None)


def _free(file: Path, model: Model) -> Path:
    """The file, if a configuration can be written there that names this model."""
    if not isinstance(model, str | Path):
        raise InputError("a configuration names its network; give fit_anchors a name or a file, or no output")
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: a configuration is a YAML file; name one that ends with .yaml")
    if file.exists():
        raise InputError(f"{file}: is there already; name another file, or remove it")
    return file


def _search(source: SourceMixin, graph: Graph, side: int, where: str, **settings: Any) -> AnchorSearch:
    sizes_px = sizes_at(objects_in(source, where=where), side)
    try:
        return search(sizes_px, graph.anchors, **settings)
    except DataError as error:
        raise DataError(f"{where} at {side} pixels: {error}") from error


def _configuration(
    file: Path, data: Mapping[str, str], side: int, anchor_t: float, model: Model, found: AnchorSearch
) -> str:
    """The text of the file: the command, then the settings, `model` last, and its anchors with a level on a line."""
    new, own = (f"{100 * fitted.recall:.2f} %" for fitted in (found.fit, found.given))
    heading = [
        f"Anchors for the {found.fit.boxes} boxes of {data['path']} ({data['train_split']}) at {side} pixels.",
        f"They fit {new} of the boxes; the network's own fit {own}.",
        f"  {shlex.join(['yolov7-jax', 'train', str(file)])}",
        "base may be any other configuration, and every setting may be changed.",
    ]
    if Path(data["path"]).suffix == ".json":
        heading.append("Without data.val_path=OTHER.json the images that are trained on are those evaluated on.")
    comment = [f"# {line}" for text in heading for line in text.splitlines()]
    is_weights = Path(str(model)).suffix in _WEIGHTS or Path(str(model)).is_dir()
    named = {"weights" if is_weights else "name": str(model)}
    loss, train = {"anchor_t": anchor_t}, {"size": side}
    config = {"base": "finetune", "data": dict(data), "train": train, "loss": loss, "model": named}
    rows = [f"  - [{', '.join(f'{side:g}' for pair in level for side in pair)}]" for level in found.anchors]
    return "\n".join([*comment, yaml_text(config).rstrip(), "  anchors:", *rows, ""])
