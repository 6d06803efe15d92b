"""Labeled images as yolov5 and yolov7 have them: a data YAML, folders of images, a .txt of labels for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolov7_jax.datasets.data_yaml import class_names, read_data_yaml, split_images
from yolov7_jax.datasets.image_files import FileSource, image_ids, present
from yolov7_jax.datasets.objects import UNREADABLE, LabelRow, ObjectCollector, packed
from yolov7_jax.errors import DataError
from yolov7_jax.types import Labels, OnError


def open_yolo(file: Path | str, split: str = "val", *, on_error: OnError = "stop") -> YoloSource:
    """The split of a data YAML: its images are listed, nothing of them is read yet.

    Keys: train, val, test (a folder, a .txt of image paths, or a list of these), names (a list or {number: name}), and
    where given path (the folder all is relative to) and nc (the number of classes).

    Raises:
        DataError: the data cannot be used; names the file and the key or line. InputError: the YAML cannot be read.
    """
    file = Path(file)
    content = read_data_yaml(file)
    names = class_names(content, file)
    images = split_images(content, split, file, on_error=on_error)
    if not any(present(map(label_file, images))):
        raise DataError(
            f"{file}: {split} has {len(images)} images but no label file at all; expected for example "
            f"{label_file(images[0])} (the folder images reads labels, one .txt for each image)"
        )
    return YoloSource(names=names, images=tuple(images), image_ids=image_ids(images), on_error=on_error)


@dataclass(frozen=True, eq=False, kw_only=True)
class YoloSource(FileSource):
    """A source over image files and their label files, read when asked for."""

    on_error: OnError = "stop"

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """What the label file of the image says."""
        file = label_file(self.images[index])
        return read_labels(file, size or self.size(index), num_classes=len(self.names), on_error=self.on_error)

    def files(self) -> list[Path]:
        """Images and label files, there or not."""
        return [*self.images, *map(label_file, self.images)]


_BOX_NUMBERS = 5
_LEAST_POLYGON_NUMBERS = 7  # a class and three points


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder `images` of its path reads `labels`, the ending is .txt."""
    parts = list(image.parts)
    folders = parts[:-1]
    if "images" in folders:
        parts[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, size: tuple[int, int], *, num_classes: int, on_error: OnError = "stop") -> Labels:
    """The objects in a label file; a file that is not there is an image without objects.

    Args:
        file: of labels.
        size: (h, w) of the image in pixels.
        num_classes: classes are counted from 0 and under this.
        on_error: stop at a line that is wrong, or skip and report it.

    Raises:
        DataError: the file is not text, or, unless such lines are to be skipped, a line is not a label; names the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: the labels cannot be read ({error}); expected a text file", kind=UNREADABLE
        ) from error
    collector = ObjectCollector(on_error)
    for number, line in enumerate((text or "").splitlines(), start=1):
        with collector:
            if words := line.split():
                collector.add(_row(words, f"{file}, line {number}", num_classes), f"line {number}")
    return collector.labels(file, size, scale=(size[1], size[0]), missing=text is None)


def _row(words: list[str], where: str, num_classes: int) -> LabelRow:
    class_id, *coordinates = _numbers(words, where)
    if not class_id.is_integer():
        raise DataError(
            f"{where}: class {words[0]} is not a whole number; a line is class x y width height",
            kind="class not an integer",
        )
    if not 0 <= class_id < num_classes:
        raise DataError(
            f"{where}: class {words[0]} is not one of the {num_classes} classes 0 to {num_classes - 1}; "
            "correct the line or the names in the data YAML",
            kind="class out of range",
        )
    is_box = len(coordinates) == _BOX_NUMBERS - 1
    for position, (word, value) in enumerate(zip(words[1:], coordinates, strict=True)):
        if is_box and position >= 2 and value < 0:
            raise DataError(
                f"{where}: {word} is a negative width or height; correct or remove the line", kind="negative size"
            )
        if not 0 <= value <= 1:
            raise DataError(
                f"{where}: {word} is outside 0 to 1; labels are fractions of the image: divide x by its width, "
                "y by its height, and clip to the image",
                kind="not normalized" if value > _LARGEST_FRACTION else "outside of the image",
            )
    if not is_box:
        return LabelRow(int(class_id), _around(coordinates), (packed(coordinates),))
    x, y, width, height = coordinates
    return LabelRow(int(class_id), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


_LARGEST_FRACTION = 2.0
"""What is larger than this was hardly meant to be a fraction of the image, but pixels."""


def _numbers(words: Sequence[str], where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{where}: {error}; expected numbers: class x y width height", kind="not a number") from error
    if len(numbers) != _BOX_NUMBERS and (len(numbers) < _LEAST_POLYGON_NUMBERS or len(numbers) % 2 == 0):
        raise DataError(
            f"{where}: {len(numbers)} numbers; expected 5 (class x y width height) or a polygon "
            "of three points or more (class x1 y1 x2 y2 x3 y3 ...)",
            kind="wrong number of columns",
        )
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: a number is not finite; replace it or remove the line", kind="not finite")
    return numbers


def _around(polygon: list[float]) -> tuple[float, float, float, float]:
    return min(polygon[0::2]), min(polygon[1::2]), max(polygon[0::2]), max(polygon[1::2])
