"""Labeled images that TensorFlow Datasets prepared, read without TensorFlow; the door to that library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import MOST_EXACT_INTEGER, ReadSource, image_size
from yolov7_jax.datasets.objects import IssueCollector, LabelRow, ObjectCollector
from yolov7_jax.datasets.tfds_files import FEATURES_FILE, INFO_FILE, PREFIX, Stretch, TfRecords, prepared_folder
from yolov7_jax.errors import DataError, InstallationError
from yolov7_jax.image import check_content, decode_image
from yolov7_jax.prefetch import of_each
from yolov7_jax.types import Labels, OnError

_IMAGE, _OBJECTS, _ID = "image", "objects", "image/id"
_IGNORING = ("is_crowd", "is_difficult")  # flags of objects that are neither wanted nor held against a detector


def open_tfds(name: str, split: str = "val", *, on_error: OnError = "stop") -> TfdsSource:
    """A split of a prepared data set whose examples have an image, and objects with bbox and label.

    Boxes are fractions of the image, kept to float32; objects that are crowds or difficult are ignored ones. Image ids
    are those of the feature image/id where it has whole numbers that differ, else 1, 2, 3 ...

    Args:
        name: as in tfds:coco/2017, after the colon: looked for in the folder of TFDS_DATA_DIR, else in
            ~/tensorflow_datasets, its highest version taken unless one is named (coco/2017:1.1.0); or a folder,
            absolute or beginning with . or ~.
        split: one of the data set's or a part such as train[:50%]; val is its validation where it has no val.
        on_error: stop at an object that is wrong, or skip and report it.

    Raises:
        DataError: the data set is not prepared, has no such split, lacks what is needed, or its files are cut off.
        InstallationError: tensorflow-datasets is not installed.
    """
    folder = prepared_folder(name)
    with _named(folder, "is no data set that this version of tensorflow-datasets can read"):
        info = _library().builder_from_directory(str(folder)).info
    split = _known_split(info, split, folder)
    layout = _layout(info.features, folder)
    records, title = _records(info, split, folder), f"{PREFIX}{name}/{split}"
    return TfdsSource(
        names=layout.names,
        image_ids=_image_ids(records, layout.ids, title, on_error),
        on_error=on_error,
        title=title,
        split=split,
        folder=folder,
        shards=tuple(dict.fromkeys(Path(part.filename) for part in info.splits[split].file_instructions)),
        positions=tuple(range(len(records))),
        records=records,
        layout=layout,
    )


class Layout(NamedTuple):
    """Names of the classes, and the features of an example that are read together: its image, its objects, its id."""

    names: tuple[str, ...]
    image: Any
    objects: Any
    ids: Any


@dataclass(frozen=True, eq=False, kw_only=True)
class TfdsSource(ReadSource):
    """A source over examples that TensorFlow Datasets prepared. positions: of its images among the records."""

    on_error: OnError
    title: str
    split: str
    folder: Path
    shards: tuple[Path, ...]
    positions: tuple[int, ...]
    records: Any
    layout: Layout
    per_image: ClassVar[tuple[str, ...]] = ("image_ids", "positions")

    @property
    def settings(self) -> tuple[Any, ...]:
        """The part of the files that it is."""
        return (self.split,)

    def path(self, index: int) -> Path:
        """A name for the image; there is no such file."""
        return Path(self.title, str(self.image_ids[index]))

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""
        return decode_image(self._content(index), name=str(self.path(index)))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, read from its header."""
        return self.check_image(index)

    def check_image(self, index: int) -> tuple[int, int]:
        """The image's size; raises DataError where it cannot be used, as far as its header and end tell."""
        content, name = self._content(index), str(self.path(index))
        check_content(content, name=name)
        return image_size(BytesIO(content), name=name)

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The objects of the example; crowds and difficult objects are ignored ones."""
        path, objects = self.path(index), self._example(index, self.layout.objects)[_OBJECTS]
        collector = ObjectCollector(self.on_error)
        boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
        for number, (label, box) in enumerate(zip(objects["label"], boxes.tolist(), strict=True)):
            with collector:
                place = f"object {number + 1}"
                row = _row(int(label), box, len(self.names), f"{path}, {place}")
                ignored = any(objects[key][number] for key in _IGNORING if key in objects)
                collector.add(row, place, ignored=ignored)
        size = size or self.size(index)
        return collector.labels(path, size, scale=(size[1], size[0]))

    def files(self) -> list[Path]:
        """The files of its examples, and those that describe them."""
        return [self.folder / INFO_FILE, self.folder / FEATURES_FILE, *self.shards]

    def _content(self, index: int) -> bytes:
        return self._example(index, self.layout.image)[_IMAGE]

    def _example(self, index: int, features: Any) -> dict[str, Any]:
        return _parsed(self.records, self.positions[index], features, self.path(index))


def _parsed(records: Any, position: int, features: Any, what: Path | str) -> dict[str, Any]:
    """These features of an example; its image as it was encoded."""
    with _named(what, "the example cannot be read"):
        decoders = {_IMAGE: _library().decode.SkipDecoding()} if _IMAGE in features else None
        example = features.deserialize_example_np(records[position], decoders=decoders)
        if absent := [name for name, value in example.items() if value is None]:
            raise ValueError(f"it has no {absent[0]}")
        return example


def _row(label: int, box: list[float], num_classes: int, where: str) -> LabelRow:
    if not 0 <= label < num_classes:
        raise DataError(
            f"{where}: label {label} is not one of the {num_classes} classes 0 to {num_classes - 1}; leave the object "
            "out when the data set is prepared",
            kind="class out of range",
        )
    top, left, bottom, right = box
    said = f"{where}: bbox has ymin {top:g}, xmin {left:g}, ymax {bottom:g}, xmax {right:g}"
    if not np.isfinite(box).all():
        raise DataError(f"{said}; expected finite numbers", kind="not finite")
    if right < left or bottom < top:
        raise DataError(f"{said}; expected ymax and xmax not below ymin and xmin", kind="negative size")
    if left >= 1 or top >= 1 or right <= 0 or bottom <= 0:
        raise DataError(f"{said}; expected fractions of the image, from 0 to 1", kind="outside of the image")
    return LabelRow(label, (left, top, right, bottom))


def _library() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InstallationError(
            f"data sets named {PREFIX}... need tensorflow-datasets ({error}); install it: pip install "
            "tensorflow-datasets array-record"
        ) from error
    return tensorflow_datasets


@contextmanager
def _named(what: Path | str, problem: str) -> Iterator[None]:
    """Whatever the library raises, said in a sentence."""
    try:
        yield
    except (DataError, InstallationError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{what}: {problem} ({reason}); prepare the data set anew", kind="unreadable example"
        ) from error


def _known_split(info: Any, split: str, folder: Path) -> str:
    """The split as the data set calls it.

    Raises:
        DataError: it has no such split.
    """
    known = list(info.splits)
    if "val" not in known and "validation" in known:
        split = re.sub(r"\bval\b", "validation", split)
    try:
        has_images = bool(info.splits[split].num_examples)
    except (ValueError, KeyError, AssertionError) as error:
        raise DataError(
            f"{folder}: no split {split!r}; it has {', '.join(known) or 'none'}, and parts of them such as train[:50%]"
        ) from error
    if not has_images:
        raise DataError(f"{folder}: the split {split!r} is empty; choose another of {', '.join(known)}")
    return split


def _layout(features: Any, folder: Path) -> Layout:
    objects = getattr(features[_OBJECTS], "feature", {}) if _OBJECTS in features else {}
    names = getattr(objects["label"], "names", None) if "label" in objects else None
    is_encoded = _IMAGE in features and isinstance(features[_IMAGE], _library().features.Image)
    if not is_encoded or "bbox" not in objects or not names:
        raise DataError(
            f"{folder}: its examples have {', '.join(features)}; expected the features {_IMAGE}, and {_OBJECTS} with "
            "bbox and label (named classes)"
        )
    has_ids = _ID in features and np.issubdtype(features[_ID].np_dtype, np.integer)
    part = _library().features.FeaturesDict
    return Layout(
        names=tuple(names),
        image=part({_IMAGE: features[_IMAGE]}),
        objects=part({_OBJECTS: features[_OBJECTS]}),
        ids=part({_ID: features[_ID]}) if has_ids else None,
    )


def _records(info: Any, split: str, folder: Path) -> Any:
    """The serialized examples of a split, bytes by position."""
    parts = info.splits[split].file_instructions
    suffix = info.file_format.file_suffix
    if suffix == "tfrecord":
        return TfRecords.of(
            [Stretch(Path(part.filename), part.skip, part.take, part.examples_in_shard) for part in parts]
        )
    if suffix != "array_record":
        raise DataError(f"{folder}: its files are {suffix}; expected array_record or tfrecord: prepare it as such")
    for part in parts:
        if not Path(part.filename).is_file():
            raise DataError(f"{part.filename}: is not there; copy the file again or prepare the data set anew")
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError as error:
        raise InstallationError(
            f"{folder}: files of array_record need array-record ({error}); install it: pip install array-record"
        ) from error
    return ArrayRecordDataSource(parts)


def _image_ids(records: Any, features: Any, title: str, on_error: OnError) -> tuple[int, ...]:
    def read(at: int) -> int:
        return int(_parsed(records, at, features, f"{title}, example {at + 1}")[_ID])

    numbers = tuple(range(1, len(records) + 1))
    if features is None:
        return numbers
    with IssueCollector(on_error):  # an unreadable one is reported when it is used
        ids = tuple(of_each(read, range(len(records))))
        return ids if len(set(ids)) == len(ids) and max(ids) < MOST_EXACT_INTEGER else numbers
    return numbers
