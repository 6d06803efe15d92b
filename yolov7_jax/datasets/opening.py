"""The door to labeled data of any format, built-in formats and those that users register."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from yolov7_jax.datasets.coco import annotation_file, coco_splits, open_coco
from yolov7_jax.datasets.joined import Part, is_joined, open_joined
from yolov7_jax.datasets.tfds import open_tfds
from yolov7_jax.datasets.voc import is_voc, open_voc
from yolov7_jax.datasets.yolo import open_yolo
from yolov7_jax.errors import DataError
from yolov7_jax.registry import SOURCES, look_up, register_source
from yolov7_jax.source import SourceMixin, complete
from yolov7_jax.types import OnError

_YAML = frozenset({".yaml", ".yml"})


class Place(NamedTuple):
    """Where data are. format: a name in `registry.SOURCES`, empty if none fits. place: what its function is given."""

    format: str
    place: str


def locate(data: Path | str) -> Place:
    """The format of a data set and where it is: as NAME:PLACE says, else by the ending or layout of what is there.

    An existing path with a colon is a path, and so is one with a drive's letter.
    """
    text, path = str(data), Path(data)
    name, colon, rest = text.partition(":")
    if colon and len(name) > 1 and name.isidentifier() and not path.exists():
        return Place(name, rest)
    suffix = path.suffix.lower()
    if suffix == ".json" or coco_splits(path):
        return Place("coco", text)
    if is_voc(path):
        return Place("voc", text)
    if suffix in _YAML:
        return Place("joined" if is_joined(path) else "yolo", text)
    return Place("", text)


def open_source(
    data: Path | str, split: str = "val", *, image_folder: Path | None = None, on_error: OnError = "stop"
) -> SourceMixin:
    """Labeled images of a data YAML, a COCO JSON file or folder, a Pascal VOC folder, or NAME:PLACE.

    Args:
        data: a YAML file with the keys names and train, val or test (see `open_yolo`) or with the key datasets, which
            joins several (see `open_joined`), a JSON file in COCO format, a folder with
            annotations/instances_SPLIT.json, a folder with Annotations, JPEGImages and ImageSets/Main (see
            `open_voc`), tfds: and what TensorFlow Datasets calls a set (see `open_tfds`), or the name of a format that
            is registered with `register_source`, a colon and what its function is given: csv:labels.csv.
        split: which key of the YAML, which list in ImageSets/Main, or which split of TensorFlow Datasets; a JSON file
            is one split by itself.
        image_folder: where the images of a JSON file are; without it, usual places beside the file are tried.
        on_error: stop at an object that is wrong, or skip it and report it in `labels(index).issues`; "note": report
            there what is odd, too. Errors of a whole data set, image or label file are raised either way; `audit`
            finds them before training does.

    Raises:
        DataError: the data cannot be used; names the file, and the line, key or id.
        InputError: the YAML file cannot be read, or no format has this name.
    """
    return _open(str(data), split, image_folder, on_error)


def _open(
    text: str, split: str, image_folder: Path | None, on_error: OnError, within: tuple[Path, ...] = ()
) -> SourceMixin:
    """`open_source` of what is named in these files, one in another."""
    format_name, place = locate(text)
    if format_name == "coco":
        return _open_coco(place, split, image_folder=image_folder, on_error=on_error)
    if image_folder is not None:
        raise DataError(f"{text}: an image folder is for COCO JSON files; {Path(text).name} itself says where they are")
    if format_name == "joined":
        return _open_joined(place, split, on_error=on_error, within=within)
    if not format_name:
        raise _unknown(Path(text), split)
    return complete(look_up(SOURCES, format_name, where=text)(place, split, on_error=on_error))


def _open_coco(place: str, split: str, *, on_error: OnError, image_folder: Path | None = None) -> SourceMixin:
    data = Path(place)
    file = _annotations(data, split, splits) if (splits := coco_splits(data)) else data
    return open_coco(file, image_folder=image_folder, on_error=on_error)


def _open_joined(place: str, split: str, *, on_error: OnError, within: tuple[Path, ...] = ()) -> SourceMixin:
    data = Path(place)
    if data.resolve() in within:
        raise DataError(f"{data}: names itself among its datasets, by way of {within[-1]}; take it out")

    def open_part(part: Part) -> SourceMixin:
        return _open(part.data, part.split, part.images, on_error, (*within, data.resolve()))

    return open_joined(data, split, open_part, on_error=on_error)


def _annotations(folder: Path, split: str, known: list[str]) -> Path:
    """The annotation file of a split; train is train2017 where that is the only one of this beginning."""
    like = [split] if split in known else [name for name in known if name.startswith(split)]
    if len(like) != 1:
        add = annotation_file(folder, split)
        raise DataError(f"{folder}: no split {split!r}; it has {', '.join(known)}: add {add} or choose another")
    return annotation_file(folder, *like)


def _unknown(data: Path, split: str) -> DataError:
    if data.suffix.lower() == ".txt":
        return DataError(
            f"{data}: a list of images does not say the names of classes; write a data YAML with {split}: {data.name} "
            "and names: [...], and name that"
        )
    return DataError(
        f"{data}: not a data set known here; name a data YAML (.yaml), a COCO annotation file (.json), a folder "
        "in Pascal VOC layout (with Annotations and ImageSets/Main in it), tfds:NAME, or a format of your own as "
        "NAME:PLACE"
    )


for _name, _function in (
    ("yolo", open_yolo),
    ("coco", _open_coco),
    ("voc", open_voc),
    ("tfds", open_tfds),
    ("joined", _open_joined),
):
    register_source(_name)(_function)
