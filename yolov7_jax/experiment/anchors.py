"""Anchors for one's own data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.config import yaml_text
from yolov7_jax.convert.load import Model
from yolov7_jax.datasets.curate.anchors import AnchorSearch, search
from yolov7_jax.datasets.curate.statistics import sizes_at
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.experiment.inference import ProgressBar, no_progress
from yolov7_jax.experiment.labeled import network, objects_in, open_labeled
from yolov7_jax.graph.spec import Graph

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
    anchor_t: float = 4.0,
    generations: int = 1000,
    population: int = 4,
    seed: int = 0,
    progress: ProgressBar[Any] = no_progress,
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
        generations: rounds of the genetic search.
        population: mutations tried in a round.
        seed: of chance.
        progress: a display of progress.

    Raises:
        InputError: the data or the model cannot be used, there are fewer boxes than anchors, or the file is there.
    """
    file = None if output is None else _free(Path(output))
    named = _named(model) if file else {}
    graph = network(model)
    side = graph.default_size if size is None else size
    graph.check_side(side)
    labeled = open_labeled(data, split, image_folder=image_folder, progress=progress)
    sizes_px = sizes_at(objects_in(labeled, where=f"{data} ({split})"), side)
    try:
        found = search(
            sizes_px, graph.anchors, anchor_t=anchor_t, generations=generations, population=population, seed=seed
        )
    except DataError as error:
        raise DataError(f"{data} ({split}) at {side} pixels: {error}") from error
    written = file if found.improved else None
    if written is not None:
        images = {"images": str(image_folder)} if image_folder else {}
        source = {"path": str(data), "train_split": split, **images}
        loss, size_px = {"anchor_t": anchor_t}, {"size": side}
        settings = {"base": "finetune", "data": source, "train": size_px, "loss": loss, "model": named}
        _write(written, _configuration(written, settings, found))
    return AnchorRun(found, graph, side, len(labeled.source), labeled.found.sentences, written)


def _free(file: Path) -> Path:
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: a configuration is a YAML file; name one that ends with .yaml")
    if file.exists():
        raise InputError(f"{file}: is there already; name another file, or remove it")
    return file


def _named(model: Model) -> dict[str, str]:
    """The key that a configuration names the network by."""
    if not isinstance(model, str | Path):
        raise InputError("a configuration names its network; give fit_anchors a name or a file, or no output")
    is_weights = Path(model).suffix in _WEIGHTS or Path(model).is_dir()
    return {"weights" if is_weights else "name": str(model)}


def _configuration(file: Path, settings: Mapping[str, Any], found: AnchorSearch) -> str:
    """The text of the file: the command, then the settings, `model` last, and its anchors with a level on a line."""
    data, side = settings["data"], settings["train"]["size"]
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
    rows = [f"  - [{', '.join(f'{side:g}' for pair in level for side in pair)}]" for level in found.anchors]
    return "\n".join([*comment, yaml_text(settings).rstrip(), "  anchors:", *rows, ""])


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:  # never over what came there meanwhile
            stream.write(text)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error}); choose another place") from error
