"""All splits of a data set, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.coco import is_coco_folder
from yolov7_jax.datasets.data_yaml import read_data_yaml
from yolov7_jax.datasets.joined_yaml import Part, is_joined, read_joined_yaml
from yolov7_jax.datasets.voc import is_voc
from yolov7_jax.datasets.writers import Format
from yolov7_jax.errors import DataError
from yolov7_jax.source import Source
from yolov7_jax.types import OnError

_USUAL = ("train", "val", "test")


def split_names(data: Path | str) -> tuple[str, ...]:
    """The splits that a data set names: of train, val and test those that are there, else all.

    A COCO annotation file is one split, called by the one of these words that its name has in it, else train.

    Raises:
        InputError: the data set cannot be read, or names no split.
    """
    data = Path(data)
    if is_coco_folder(data):
        known = [file.stem.removeprefix("instances_") for file in sorted(data.glob("annotations/instances_*.json"))]
    elif is_voc(data):
        known = sorted(file.stem for file in (data / "ImageSets" / "Main").glob("*.txt"))
    elif _is_yaml(data) and is_joined(data):
        known = [name for name in _USUAL if _is_joined_split(data, name)]
    elif _is_yaml(data):
        known = [name for name, places in read_data_yaml(data).items() if name in _USUAL and places]
    else:
        return (next((name for name in _USUAL if name in data.stem), _USUAL[0]),)
    if not known:
        raise DataError(f"{data}: names no split; expected one or more of {', '.join(_USUAL)}")
    return tuple(name for name in _USUAL if name in known) or tuple(known)


def _is_yaml(data: Path) -> bool:
    return data.suffix.lower() in (".yaml", ".yml")


def _is_joined_split(file: Path, split: str) -> bool:
    """Whether any of joined data sets has a split; those that are one split by themselves are for train and val."""
    try:
        parts, _ = read_joined_yaml(file, split)
    except DataError:  # none of the entries is for this split
        return False

    def has(part: Part) -> bool:
        place = Path(part.data)
        if part.split != split:
            return True
        names_splits = _is_yaml(place) or is_voc(place) or is_coco_folder(place)
        return split in (split_names(place) if names_splits else _USUAL[:2])

    return any(map(has, parts))


def open_splits(
    data: Path | str,
    splits: Sequence[str] | None = None,
    *,
    image_folder: Path | None = None,
    on_error: OnError = "stop",
) -> dict[str, Source]:
    """The sources of these splits of a data set, by default of all that it names.

    Raises:
        InputError: the data set or one of the splits cannot be used.
    """
    chosen = dict.fromkeys(splits or split_names(data))
    return {split: open_source(data, split, image_folder=image_folder, on_error=on_error) for split in chosen}


def format_of(data: Path | str) -> Format:
    """Which format a data set is in."""
    data = Path(data)
    if is_voc(data):
        return "voc"
    return "yolo" if _is_yaml(data) else "coco"
