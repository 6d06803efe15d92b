"""Labeled images in Pascal VOC layout: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from yolov7_jax.datasets.data_yaml import numbered_lines
from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES, image_ids, list_images, present
from yolov7_jax.datasets.image_source import FileSource, pick
from yolov7_jax.datasets.voc_xml import object_names, read_annotation
from yolov7_jax.errors import DataError
from yolov7_jax.source import READER_THREADS
from yolov7_jax.types import Labels, OnError

_CLASS_FILES = ("classes.txt", "labels.txt")


def is_voc(folder: Path) -> bool:
    """Whether a folder is in Pascal VOC layout."""
    return (folder / "Annotations").is_dir() and (folder / "ImageSets" / "Main").is_dir()


def open_voc(folder: Path, split: str = "val", *, on_error: OnError = "stop") -> VocSource:
    """A split of a folder in Pascal VOC layout.

    Classes are the lines of classes.txt or labels.txt in the folder; without such a file, the names in all annotations
    of the folder, sorted, so that they are the same for all splits.

    Raises:
        DataError: the data cannot be used; names the file, and the line where there is one.
    """
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        known = ", ".join(sorted(file.stem for file in listing.parent.glob("*.txt")))
        raise DataError(f"{folder}: no split {split!r}; it has {known or 'none'}: add {listing} or choose another")
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

    names: tuple[str, ...]
    annotations: tuple[Path, ...]
    on_error: OnError = "stop"

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """What the annotation of the image says; difficult objects are ignored ones."""
        file, image = self.annotations[index], self.images[index]
        return read_annotation(file, image, size, names=self.names, on_error=self.on_error)

    def files(self) -> list[Path]:
        """Images and annotations, there or not."""
        return [*self.images, *self.annotations]

    def subset(self, indices: Sequence[int]) -> VocSource:
        """These images alone."""
        return replace(
            self,
            images=pick(self.images, indices),
            annotations=pick(self.annotations, indices),
            image_ids=pick(self.image_ids, indices),
        )


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
    with ThreadPoolExecutor(READER_THREADS) as pool:
        found = list(pool.map(lambda file: object_names(file, on_error=on_error), files))
    names = sorted(set().union(*found))
    if not names:
        raise DataError(f"{folder / 'Annotations'}: no object has a name; name the classes in {folder / 'classes.txt'}")
    return tuple(names)
