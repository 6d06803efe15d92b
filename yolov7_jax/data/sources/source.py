"""The contract of labelled data, and the door to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from yolov7_jax.data.sources.coco import open_coco
from yolov7_jax.data.sources.yolo import open_yolo
from yolov7_jax.errors import DataError
from yolov7_jax.types import Sample


class Source(Protocol):
    """Labelled images in random access: cheap to open, safe to share between threads, quick to pickle for workers."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes; class ids index into them."""

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category of each class in `ground_truth()`."""

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The id of each image in `ground_truth()`, in the order of the source."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects.

        Raises:
            DataError: the image or its labels cannot be used.
        """

    def path(self, index: int) -> Path:
        """The image's file."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, without decoding it."""

    def ground_truth(self) -> dict[str, Any]:
        """What to evaluate against, as a COCO dict: images, annotations, categories."""


def open_source(data: Path | str, split: str = "val", *, image_folder: Path | None = None) -> Source:
    """Labelled images named by a data YAML or a COCO JSON file.

    Args:
        data: a YAML file with the keys names and train, val or test (see `open_yolo`), or a JSON file in COCO format.
        split: which key of the YAML; a JSON file is one split by itself.
        image_folder: where the images of a JSON file are; without it, usual places beside the file are tried.

    Raises:
        DataError: the data cannot be used; names the file, and the line, key or id.
        InputError: the YAML file cannot be read.
    """
    data = Path(data)
    suffix = data.suffix.lower()
    if suffix == ".json":
        return open_coco(data, image_folder=image_folder)
    if suffix not in {".yaml", ".yml"}:
        raise DataError(
            f"{data}: not a data set known here; name a data YAML (.yaml) or a COCO annotation file (.json)"
        )
    if image_folder is not None:
        raise DataError(f"{data}: an image folder is for COCO JSON files; write the folder into the YAML file instead")
    return open_yolo(data, split)
