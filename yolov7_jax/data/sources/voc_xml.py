"""Annotation files of Pascal VOC: an XML file an image, with its size and its objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.sources.faults import Faults, OnFault
from yolov7_jax.data.sources.image_files import image_size
from yolov7_jax.data.sources.objects import Labels, Row, as_arrays, sift
from yolov7_jax.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LINE = "@line"  # no attribute of a file can have this name


@dataclass(frozen=True, eq=False, kw_only=True)
class VocLabels(Labels):
    """`Labels` with boxes_xywh_px: float64 [n, 4] as edges, not clipped; the same of difficult objects, kept apart.

    size: (h, w) in pixels of the image.
    """

    boxes_xywh_px: NDArray[np.float64]
    difficult_class_ids: NDArray[np.int32]
    difficult_boxes_xywh_px: NDArray[np.float64]
    size: tuple[int, int]


def object_names(file: Path, *, on_fault: OnFault) -> frozenset[str]:
    """The names of all objects in an annotation file; of one that is no XML none, where faults are to be skipped."""
    faults = Faults(on_fault)
    with faults:
        return frozenset(name for item in _root(file).iterfind("object") if (name := _text(item, "name")))
    return frozenset()


def read_annotation(file: Path, image: Path, *, names: Sequence[str], on_fault: OnFault = "stop") -> VocLabels:
    """The objects in an annotation file; a file that is not there is an image without objects.

    Where the file does not say the image's size, the image's header does.

    Raises:
        DataError: the file is no XML of an annotation, or, unless such objects are to be skipped, an object of it is
            wrong; names the file, the object's line and its number.
    """
    missing = not file.exists()
    root = Element("annotation") if missing else _root(file)
    size = _size(root) or image_size(image)
    class_index = {name: index for index, name in enumerate(names)}
    plain: list[Row] = []
    difficult: list[Row] = []
    faults = Faults(on_fault)
    for number, item in enumerate(root.iterfind("object"), start=1):
        with faults:
            row = _row(item, f"{file}, line {item.get(_LINE)} (object {number})", class_index, size)
            (difficult if _text(item, "difficult") not in ("", "0") else plain).append(row)
    kept, duplicates, empty = sift(plain)
    class_ids, boxes_xywh_px = as_arrays(kept)
    difficult_class_ids, difficult_boxes_xywh_px = as_arrays(sift(difficult)[0])
    return VocLabels(
        class_ids=class_ids,
        boxes_xywh_px=boxes_xywh_px,
        difficult_class_ids=difficult_class_ids,
        difficult_boxes_xywh_px=difficult_boxes_xywh_px,
        size=size,
        duplicates=duplicates,
        empty=empty,
        faults=tuple(faults.sentences),
        missing=missing,
    )


def _row(item: Element, where: str, class_index: dict[str, int], size: tuple[int, int]) -> Row:
    name = _text(item, "name")
    if not name:
        raise DataError(f"{where}: the object has no name; add it or remove the object")
    if name not in class_index:
        raise DataError(f"{where}: class {name} is not one of {', '.join(class_index)}; correct it or the classes")
    words = [_text(item, f"bndbox/{corner}") for corner in _CORNERS]
    try:
        left, top, right, bottom = map(float, words)
    except ValueError:
        raise DataError(f"{where}: bndbox has {_listed(words)}; expected four numbers in pixels") from None
    if not all(map(math.isfinite, (left, top, right, bottom))) or right < left - 1 or bottom < top - 1:
        raise DataError(
            f"{where}: bndbox has {_listed(words)}; expected finite numbers, and xmax and ymax not below xmin and ymin"
        )
    if right <= 0 or bottom <= 0 or left - 1 >= size[1] or top - 1 >= size[0]:
        raise DataError(
            f"{where}: bndbox has {_listed(words)}, which is outside of the image of {size[1]} x {size[0]} pixels; "
            "correct or remove the object"
        )
    return class_index[name], left - 1, top - 1, right - left + 1, bottom - top + 1


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
        raise DataError(f"{file}, line {parser.CurrentLineNumber}: a DOCTYPE is refused; remove it from the file")

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected a Pascal VOC annotation") from error
    except expat.ExpatError as error:
        raise DataError(f"{file}, line {error.lineno}: not XML ({error}); the file may be cut off") from error
    except DataError:
        raise
    except (LookupError, ValueError) as error:
        raise DataError(f"{file}: not XML ({error}); save it as UTF-8") from error
    root = builder.close()
    if root.tag != "annotation":
        raise DataError(f"{file}: the outermost element is {root.tag}; expected a Pascal VOC annotation")
    return root
