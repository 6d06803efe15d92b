"""Labeled images in Pascal VOC layout: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from yolov7_jax.datasets.data_yaml import numbered_lines
from yolov7_jax.datasets.image_files import (
    IMAGE_SUFFIXES,
    FileSource,
    image_ids,
    image_size,
    list_images,
    present,
)
from yolov7_jax.datasets.objects import UNREADABLE, IssueCollector, LabelRow, ObjectCollector, read_label_file
from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.prefetch import of_each
from yolov7_jax.source import require_size
from yolov7_jax.types import Labels, OnError

_CLASS_FILES = ("classes.txt", "labels.txt")


def is_voc(folder: Path) -> bool:
    """Whether a folder is in Pascal VOC layout."""
    return (folder / "Annotations").is_dir() and (folder / "ImageSets" / "Main").is_dir()


def voc_splits(folder: Path) -> list[str]:
    """The splits of a folder in Pascal VOC layout."""
    return sorted(file.stem for file in (folder / "ImageSets" / "Main").glob("*.txt"))


def open_voc(folder: Path | str, split: str = "val", *, on_error: OnError = "stop") -> VocSource:
    """A split of a folder in Pascal VOC layout.

    Classes are the lines of classes.txt or labels.txt in the folder; without such a file, the names in all annotations
    of the folder, sorted, so that they are the same for all splits.

    Raises:
        DataError: the data cannot be used; names the file, and the line where there is one.
    """
    folder = Path(folder)
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        known = ", ".join(voc_splits(folder)) or "none"
        raise DataError(f"{folder}: no split {split!r}; it has {known}: add {listing} or choose another")
    images = _split_images(folder, listing, on_error)
    annotations = tuple(folder / "Annotations" / f"{image.stem}.xml" for image in images)
    if not any(present(annotations)):
        raise DataError(
            f"{folder}: {split} has {len(images)} images but no annotation file at all; expected {annotations[0]}"
        )
    names = _class_names(folder, on_error)
    return VocSource(
        names=names, images=images, annotations=annotations, image_ids=image_ids(images), on_error=on_error
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class VocSource(FileSource):
    """A source over image files and their XML annotations, read when asked for.

    Pixels of VOC count from 1 and both corners lie in the box: as edges a box is xmin - 1, ymin - 1, xmax, ymax. It is
    clipped to the image. Objects marked difficult are no objects of a `Sample`, as training on VOC leaves them out; in
    `ground_truth()` they are crowds, which evaluation ignores.
    """

    annotations: tuple[Path, ...]
    on_error: OnError = "stop"
    per_image: ClassVar[tuple[str, ...]] = ("image_ids", "images", "annotations")

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """What the annotation of the image says; difficult objects are ignored ones."""
        file, image = self.annotations[index], self.images[index]
        return read_annotation(file, image, size, names=self.names, on_error=self.on_error)

    def files(self) -> list[Path]:
        """Images and annotations, there or not."""
        return [*self.images, *self.annotations]


def _split_images(folder: Path, listing: Path, on_error: OnError) -> tuple[Path, ...]:
    image_folder = folder / "JPEGImages"
    by_stem = {image.stem: image for image in list_images(image_folder)}
    images = []
    for number, line in numbered_lines(listing, expected="a text file of image names"):
        name = line[: -len(suffix)] if (suffix := Path(line).suffix).lower() in IMAGE_SUFFIXES else line
        if name not in by_stem and on_error == "stop":
            raise DataError(f"{listing}, line {number}: no image {name} in {image_folder}; correct or remove the line")
        images.append(by_stem.get(name, image_folder / f"{name}.jpg"))
    if not images:
        raise DataError(f"{listing}: lists no images; expected one name a line")
    return tuple(images)


def _class_names(folder: Path, on_error: OnError) -> tuple[str, ...]:
    for file in (folder / name for name in _CLASS_FILES):
        if file.is_file():
            return tuple(line for _, line in numbered_lines(file, expected="class names, one a line"))
    files = sorted((folder / "Annotations").glob("*.xml"))
    names = sorted(set().union(*of_each(partial(object_names, on_error=on_error), files)))
    if not names:
        raise DataError(f"{folder / 'Annotations'}: no object has a name; name the classes in {folder / 'classes.txt'}")
    return tuple(names)


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LINE = "@line"  # no attribute of a file can have this name


def object_names(file: Path, *, on_error: OnError) -> frozenset[str]:
    """The names of all objects in an annotation file; none if it is no XML and errors are skipped."""
    with IssueCollector(on_error):
        return frozenset(name for item in _root(file).iterfind("object") if (name := _text(item, "name")))
    return frozenset()


def read_annotation(
    file: Path, image: Path, size: tuple[int, int] | None, *, names: Sequence[str], on_error: OnError = "stop"
) -> Labels:
    """The objects in an annotation file, clipped to the image; a file that is not there is an image without objects.

    Args:
        file: the annotation.
        image: the image's file, whose header says the size where nothing else does.
        size: (h, w) of the image where it is known.
        names: of the classes.
        on_error: stop at an object that is wrong, or skip and report it.

    Raises:
        DataError: the file is no XML of an annotation, is for an image of another size, or, unless such objects are to
            be skipped, an object of it is wrong; names the file, the object's line and its number.
    """
    missing = not file.exists()
    root = Element("annotation") if missing else _root(file)
    labeled = _size(root)
    if labeled and size:
        require_size(image, size, labeled, where=str(file))
    size = labeled or size or image_size(image)
    class_index = {name: index for index, name in enumerate(names)}
    collector = ObjectCollector(on_error)
    for number, item in enumerate(root.iterfind("object"), start=1):
        with collector:
            place = f"line {item.get(_LINE)} (object {number})"
            row = _row(item, f"{file}, {place}", class_index, size)
            collector.add(row, place, ignored=_text(item, "difficult") not in ("", "0"))
    labels = collector.labels(file, size, missing=missing)
    return replace(
        labels,
        boxes_xyxy_px=clip_boxes(labels.boxes_xyxy_px, size),
        ignored_boxes_xyxy_px=clip_boxes(labels.ignored_boxes_xyxy_px, size),
    )


def _row(item: Element, where: str, class_index: dict[str, int], size: tuple[int, int]) -> LabelRow:
    name = _text(item, "name")
    if not name:
        raise DataError(f"{where}: the object has no name; add it or remove the object", kind="object without a name")
    if name not in class_index:
        raise DataError(
            f"{where}: class {name} is not one of {', '.join(class_index)}; correct it or the classes",
            kind="class out of range",
        )
    words = [_text(item, f"bndbox/{corner}") for corner in _CORNERS]
    try:
        left, top, right, bottom = map(float, words)
    except ValueError:
        raise DataError(
            f"{where}: bndbox has {_listed(words)}; expected four numbers in pixels", kind="not a number"
        ) from None
    is_finite = all(map(math.isfinite, (left, top, right, bottom)))
    if not is_finite or right < left - 1 or bottom < top - 1:
        raise DataError(
            f"{where}: bndbox has {_listed(words)}; expected finite numbers, and xmax and ymax not below xmin and ymin",
            kind="negative size" if is_finite else "not finite",
        )
    if right <= 0 or bottom <= 0 or left - 1 >= size[1] or top - 1 >= size[0]:
        raise DataError(
            f"{where}: bndbox has {_listed(words)}, which is outside of the image of {size[1]} x {size[0]} pixels; "
            "correct or remove the object",
            kind="outside of the image",
        )
    return LabelRow(class_index[name], (left - 1, top - 1, right, bottom))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"{corner} {word or 'missing'}" for corner, word in zip(_CORNERS, words, strict=True))


def _text(item: Element, path: str) -> str:
    return (item.findtext(path) or "").strip()


def _size(root: Element) -> tuple[int, int] | None:
    height, width = _text(root, "size/height"), _text(root, "size/width")
    if not height.isdecimal() or not width.isdecimal() or not int(height) or not int(width):
        return None  # some tools write 0
    return int(height), int(width)


def _root(file: Path) -> Element:
    """The root element; each `object` has its line. Document types are refused: entities in them can blow up."""
    parser, builder = expat.ParserCreate(), TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, attributes | {_LINE: str(parser.CurrentLineNumber)} if tag == "object" else attributes)

    def refuse(*_: object) -> None:
        raise DataError(
            f"{file}, line {parser.CurrentLineNumber}: a DOCTYPE is refused; remove it from the file", kind=UNREADABLE
        )

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(read_label_file(file, expected="a Pascal VOC annotation"), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{file}, line {error.lineno}: not XML ({error}); the file may be cut off", kind=UNREADABLE
        ) from error
    except DataError:
        raise
    except (LookupError, ValueError) as error:
        raise DataError(f"{file}: not XML ({error}); save it as UTF-8", kind=UNREADABLE) from error
    root = builder.close()
    if root.tag != "annotation":
        raise DataError(
            f"{file}: the outermost element is {root.tag}; expected a Pascal VOC annotation", kind=UNREADABLE
        )
    return root
