"""Files of labels against files of images: which have no partner, and which have several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES
from yolov7_jax.datasets.labels import label_file
from yolov7_jax.datasets.voc import VocSource
from yolov7_jax.datasets.yolo import YoloSource
from yolov7_jax.source import Source
from yolov7_jax.types import Fault

ORPHAN = "label file without image"
SHARED = "label file of several images"

_NO_LABELS = frozenset({"classes.txt", "labels.txt"})  # lists of class names that tools leave beside label files


def labels_of(source: Source, index: int) -> Path | None:
    """The file of labels of an image, if it has one to itself."""
    if isinstance(source, YoloSource):
        return label_file(source.path(index))
    return source.annotations[index] if isinstance(source, VocSource) else None


def check_label_files(sources: Iterable[Source]) -> list[Fault]:
    """Names label files that belong to no image, and those that belong to several, of all splits of a data set."""
    known: dict[Path, set[Path]] = {}
    for source in sources:
        for index in range(len(source)):
            if file := labels_of(source, index):
                known.setdefault(file, set()).add(source.path(index))
    listed = {image for images in known.values() for image in images}
    by_place = {image.parent: file.parent for file, images in known.items() for image in images}
    for folder, home in by_place.items():  # images that are on disk, whether or not a split has them
        for image in folder.iterdir() if folder.is_dir() else ():
            if image.suffix.lower() in IMAGE_SUFFIXES and not image.name.startswith("."):
                file = home / f"{image.stem}{_ending(known)}"
                known.setdefault(file, set()).add(image)
    return [*_shared(known, listed), *_orphans(known, set(by_place.values()))]


def _shared(known: dict[Path, set[Path]], listed: set[Path]) -> Iterable[Fault]:
    for file, images in sorted(known.items()):
        if len(images) > 1 and images & listed:
            names = " and ".join(image.name for image in sorted(images))
            yield Fault(SHARED, f"{file}: has the labels of {names}; rename one of the images and give it labels")


def _orphans(known: dict[Path, set[Path]], folders: set[Path]) -> Iterable[Fault]:
    for folder in sorted(folders):
        for file in sorted(folder.glob(f"*{_ending(known)}")):
            if file not in known and file.name not in _NO_LABELS:
                yield Fault(ORPHAN, f"{file}: there is no image of this name; add the image or remove the file")


def _ending(known: dict[Path, set[Path]]) -> str:
    return next(iter(known)).suffix
