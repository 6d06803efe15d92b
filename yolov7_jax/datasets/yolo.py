"""Labeled images as yolov5 and yolov7 have them: a data YAML, folders of images, a .txt of labels for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yolov7_jax.datasets.data_yaml import class_names, read_data_yaml, split_images
from yolov7_jax.datasets.image_files import image_ids, present
from yolov7_jax.datasets.image_source import FileSource, pick
from yolov7_jax.datasets.labels import label_file, read_labels
from yolov7_jax.errors import DataError
from yolov7_jax.types import Labels, OnError


def open_yolo(file: Path, split: str = "val", *, on_error: OnError = "stop") -> YoloSource:
    """The split of a data YAML: its images are listed, nothing of them is read yet.

    Keys: train, val, test (a folder, a .txt of image paths, or a list of these), names (a list or {number: name}), and
    where given path (the folder all is relative to) and nc (the number of classes).

    Raises:
        DataError: the data cannot be used; names the file and the key or line. InputError: the YAML cannot be read.
    """
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

    names: tuple[str, ...]
    on_error: OnError = "stop"

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """What the label file of the image says."""
        file = label_file(self.images[index])
        return read_labels(file, size or self.size(index), num_classes=len(self.names), on_error=self.on_error)

    def files(self) -> list[Path]:
        """Images and label files, there or not."""
        return [*self.images, *map(label_file, self.images)]

    def subset(self, indices: Sequence[int]) -> YoloSource:
        """These images alone."""
        return replace(self, images=pick(self.images, indices), image_ids=pick(self.image_ids, indices))
