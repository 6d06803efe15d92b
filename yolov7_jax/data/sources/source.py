"""The contract of labelled data, and the door to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from yolov7_jax.data.sources.coco import open_coco
from yolov7_jax.data.sources.faults import OnFault
from yolov7_jax.data.sources.objects import Labels
from yolov7_jax.data.sources.voc import is_voc, open_voc
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

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with entries that were left out and belong to no image, a sentence each."""

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

    def check_image(self, index: int) -> None:
        """Looks at the image's file without decoding it.

        Raises:
            DataError: it is missing, empty, cut short, no image, or of another size than its labels say.
        """

    def labels(self, index: int) -> Labels:
        """The objects of the image without the image, those left out counted and the faults among them named.

        Raises:
            DataError: the labels cannot be read at all, or, unless faults are skipped, one of them is wrong.
        """

    def subset(self, indices: Sequence[int]) -> Self:
        """The same data with these images alone, in this order."""

    def ground_truth(self) -> dict[str, Any]:
        """What to evaluate against, as a COCO dict: images, annotations, categories."""


def open_source(
    data: Path | str, split: str = "val", *, image_folder: Path | None = None, faults: OnFault = "stop"
) -> Source:
    """Labelled images named by a data YAML, a COCO JSON file or a folder in Pascal VOC layout.

    Args:
        data: a YAML file with the keys names and train, val or test (see `open_yolo`), a JSON file in COCO format, or
            a folder with Annotations, JPEGImages and ImageSets/Main (see `open_voc`).
        split: which key of the YAML, or which list in ImageSets/Main; a JSON file is one split by itself.
        image_folder: where the images of a JSON file are; without it, usual places beside the file are tried.
        faults: stop at an object that is wrong, or skip it and name it in `labels(index).faults`. What concerns a
            whole data set, image or label file is raised either way; `audit` finds it before training does.

    Raises:
        DataError: the data cannot be used; names the file, and the line, key or id.
        InputError: the YAML file cannot be read.
    """
    data = Path(data)
    suffix = data.suffix.lower()
    if suffix == ".json":
        return open_coco(data, image_folder=image_folder, on_fault=faults)
    if image_folder is not None:
        raise DataError(f"{data}: an image folder is for COCO JSON files; {data.name} itself says where they are")
    if is_voc(data):
        return open_voc(data, split, on_fault=faults)
    if suffix not in {".yaml", ".yml"}:
        raise DataError(
            f"{data}: not a data set known here; name a data YAML (.yaml), a COCO annotation file (.json) or a folder "
            "in Pascal VOC layout (with Annotations and ImageSets/Main in it)"
        )
    return open_yolo(data, split, on_fault=faults)
