"""The door to labeled data of any format."""

from __future__ import annotations

from pathlib import Path

from yolov7_jax.datasets.coco import annotation_file, is_coco_folder, open_coco
from yolov7_jax.datasets.joined import open_joined
from yolov7_jax.datasets.joined_yaml import Part, is_joined
from yolov7_jax.datasets.tfds import open_tfds
from yolov7_jax.datasets.tfds_folder import PREFIX
from yolov7_jax.datasets.voc import is_voc, open_voc
from yolov7_jax.datasets.yolo import open_yolo
from yolov7_jax.errors import DataError
from yolov7_jax.source import Source
from yolov7_jax.types import OnError


def open_source(
    data: Path | str, split: str = "val", *, image_folder: Path | None = None, on_error: OnError = "stop"
) -> Source:
    """Labeled images named by a data YAML, a COCO JSON file or folder, a folder in Pascal VOC layout or tfds:NAME.

    Args:
        data: a YAML file with the keys names and train, val or test (see `open_yolo`) or with the key datasets, which
            joins several (see `open_joined`), a JSON file in COCO format, a folder with
            annotations/instances_SPLIT.json, a folder with Annotations, JPEGImages and ImageSets/Main (see
            `open_voc`), or tfds: and what TensorFlow Datasets calls a set (see `open_tfds`).
        split: which key of the YAML, which list in ImageSets/Main, or which split of TensorFlow Datasets; a JSON file
            is one split by itself.
        image_folder: where the images of a JSON file are; without it, usual places beside the file are tried.
        on_error: stop at an object that is wrong, or skip it and name it in `labels(index).faults`; "note": name there
            what is odd, too. What concerns a
            whole data set, image or label file is raised either way; `audit` finds it before training does.

    Raises:
        DataError: the data cannot be used; names the file, and the line, key or id.
        InputError: the YAML file cannot be read.
    """
    return _open(str(data), split, image_folder, on_error)


def _open(text: str, split: str, image_folder: Path | None, on_error: OnError, within: tuple[Path, ...] = ()) -> Source:
    """`open_source` of what is named in these files, one in another."""
    if text.startswith(PREFIX):
        _no_image_folder(text, image_folder)
        return open_tfds(text.removeprefix(PREFIX), split, on_error=on_error)
    data = Path(text)
    suffix = data.suffix.lower()
    if suffix == ".json":
        return open_coco(data, image_folder=image_folder, on_error=on_error)
    if is_coco_folder(data):
        return open_coco(_annotations(data, split), image_folder=image_folder, on_error=on_error)
    _no_image_folder(text, image_folder)
    if is_voc(data):
        return open_voc(data, split, on_error=on_error)
    if suffix == ".txt":
        raise DataError(
            f"{data}: a list of images does not say the names of classes; write a data YAML with {split}: {data.name} "
            "and names: [...], and name that"
        )
    if suffix not in {".yaml", ".yml"}:
        raise DataError(
            f"{data}: not a data set known here; name a data YAML (.yaml), a COCO annotation file (.json), a folder "
            "in Pascal VOC layout (with Annotations and ImageSets/Main in it) or tfds:NAME"
        )
    if not is_joined(data):
        return open_yolo(data, split, on_error=on_error)
    if data.resolve() in within:
        raise DataError(f"{data}: names itself among its datasets, by way of {within[-1]}; take it out")

    def open_part(part: Part) -> Source:
        return _open(part.data, part.split, part.images, on_error, (*within, data.resolve()))

    return open_joined(data, split, open_part, on_error=on_error)


def _annotations(folder: Path, split: str) -> Path:
    """The annotation file of a split; train is train2017 where that is the only one of this beginning."""
    file = annotation_file(folder, split)
    known = sorted(file.parent.glob("instances_*.json"))
    like = [it for it in known if it.name.startswith(file.stem)]
    if file not in known and len(like) != 1:
        names = ", ".join(it.stem.removeprefix("instances_") for it in known)
        raise DataError(f"{folder}: no split {split!r}; it has {names}: add {file} or choose another")
    return file if file in known else like[0]


def _no_image_folder(data: str, image_folder: Path | None) -> None:
    if image_folder is not None:
        raise DataError(f"{data}: an image folder is for COCO JSON files; {Path(data).name} itself says where they are")
