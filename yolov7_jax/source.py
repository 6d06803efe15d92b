"""The contract of labeled data: four things that a user gives, and all that follows from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import xyxy_to_xywh
from yolov7_jax.prefetch import of_each
from yolov7_jax.types import Issue, Labels, OnError, Sample

_COCO_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking
meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis
racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell
phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_CATEGORIES = dict(
    zip(
        " ".join(_COCO_NAMES.split()).split(", "),
        (number for number in range(1, 91) if number not in _COCO_GAPS),
        strict=True,
    )
)


def default_category_ids(names: Sequence[str]) -> tuple[int, ...]:
    """COCO's own numbers, 1 to 90 with gaps, where the classes are its 80 by name; else they count from 1."""
    if set(names) == set(_COCO_CATEGORIES):
        return tuple(_COCO_CATEGORIES[name] for name in names)
    return tuple(range(1, len(names) + 1))


@runtime_checkable
class Source(Protocol):
    """Labeled images in random access: cheap to open, safe to share between threads, quick to pickle for workers.

    names: of the classes; class ids index into them.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects.

        Raises:
            DataError: the image or its labels cannot be used.
        """
        ...

    def labels(self, index: int) -> Labels:
        """The objects of the image, and its size; does not decode the image if that can be avoided.

        Raises:
            DataError: the labels cannot be used.
        """
        ...


class SourceMixin(ABC):
    """Base class of a `Source` with all that the package asks of one; override what your format knows better.

    names: of the classes. issues: what is wrong with entries that are left out and belong to no image. on_error: what
    the source does about an object that is wrong.
    """

    names: tuple[str, ...]
    issues: tuple[Issue, ...] = ()
    on_error: OnError = "stop"

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """See `Source`."""

    @abstractmethod
    def labels(self, index: int) -> Labels:
        """See `Source`."""

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """The id of each image in `ground_truth()`, in the order of the source; by default they count from 1."""
        return tuple(range(1, len(self) + 1))

    @cached_property
    def category_ids(self) -> tuple[int, ...]:
        """The category of each class in `ground_truth()`; see `default_category_ids`."""
        return default_category_ids(self.names)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Plain values that labels follow from, beside the content of files, names and ids."""
        return ()

    def path(self, index: int) -> Path:
        """The image's file, or where it has none a path that names the image in sentences."""
        return Path(type(self).__name__, str(self.image_ids[index]))

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image, [h, w, 3] RGB.

        Raises:
            DataError: it is missing, empty, cut short or no image.
        """
        return self[index].image

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.labels(index).size

    def check_image(self, index: int) -> tuple[int, int]:
        """Checks the image without decoding it, as far as that goes; returns height and width in pixels.

        Raises:
            DataError: it is missing, empty, cut short or no image.
        """
        return self.size(index)

    def labels_for(self, index: int, size: tuple[int, int]) -> Labels:
        """The labels of an image whose height and width are known already.

        Raises:
            DataError: the labels cannot be used, or are for an image of another size.
        """
        labels = self.labels(index)
        require_size(self.path(index), size, labels.size, where="its source")
        return labels

    def files(self) -> list[Path]:
        """All files that labels and images come from; without any, labels are not cached between runs."""
        return []

    def subset(self, indices: Sequence[int]) -> SourceMixin:
        """The same data with these images alone, in this order."""
        return _Subset(self, indices)

    def ground_truth(self) -> dict[str, Any]:
        """What to evaluate against, as a COCO dict: images, annotations, categories; ignored objects are crowds.

        An object's area is that of its box. Annotations count from 1. Polygons are left out.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, labels in enumerate(of_each(self.labels, range(len(self)))):
            image_id, (height, width) = self.image_ids[index], labels.size
            images.append({"id": image_id, "file_name": self.path(index).name, "width": width, "height": height})
            for class_id, box, is_crowd in _coco_objects(labels):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": self.category_ids[class_id],
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": is_crowd,
                    }
                )
        categories = [{"id": n, "name": name} for n, name in zip(self.category_ids, self.names, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}


def _coco_objects(labels: Labels) -> Iterable[tuple[int, list[float], int]]:
    """Class, box (xywh in pixels) and whether it is a crowd (0 or 1) of each object, ignored ones last."""
    class_ids = np.concatenate([labels.class_ids, labels.ignored_class_ids])
    boxes_xywh_px = xyxy_to_xywh(np.concatenate([labels.boxes_xyxy_px, labels.ignored_boxes_xyxy_px]))
    is_crowd = np.arange(len(class_ids)) >= len(labels.class_ids)
    return zip(class_ids.tolist(), boxes_xywh_px.tolist(), is_crowd.astype(int).tolist(), strict=True)


def complete(source: Source | SourceMixin) -> SourceMixin:
    """A source with all that the package asks of one: itself if it inherits `SourceMixin`, else a wrapper."""
    return source if isinstance(source, SourceMixin) else _Completed(source)


class _Completed(SourceMixin):
    """A source of the four things that `Source` asks for, with the defaults for all else."""

    def __init__(self, source: Source) -> None:
        self.names = tuple(source.names)
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]

    def labels(self, index: int) -> Labels:
        return self._source.labels(index)

    def path(self, index: int) -> Path:
        return Path(type(self._source).__name__, str(self.image_ids[index]))


class SourceView(SourceMixin):
    """A source whose images are those of other sources; their labels may differ."""

    @abstractmethod
    def place(self, index: int) -> tuple[SourceMixin, int]:
        """The other source that an image is in, and its index there."""

    def path(self, index: int) -> Path:
        """The image's file."""
        source, inner = self.place(index)
        return source.path(inner)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""
        source, inner = self.place(index)
        return source.read(inner)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        source, inner = self.place(index)
        return source.size(inner)

    def check_image(self, index: int) -> tuple[int, int]:
        """The image's size; raises DataError where it cannot be used."""
        source, inner = self.place(index)
        return source.check_image(inner)


class _Subset(SourceView):
    """Some images of another source, in the order of `indices`."""

    def __init__(self, source: SourceMixin, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = tuple(range(len(source))[index] for index in indices)
        self.names, self.issues, self.on_error = source.names, source.issues, source.on_error
        self.category_ids = source.category_ids
        self.image_ids = tuple(source.image_ids[index] for index in self._indices)

    @property
    def settings(self) -> tuple[Any, ...]:
        return (type(self._source).__name__, self._source.settings)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]

    def place(self, index: int) -> tuple[SourceMixin, int]:
        return self._source, self._indices[index]

    def labels(self, index: int) -> Labels:
        return self._source.labels(self._indices[index])

    def labels_for(self, index: int, size: tuple[int, int]) -> Labels:
        return self._source.labels_for(self._indices[index], size)

    def files(self) -> list[Path]:
        return self._source.files()


def require_size(image: Path, found: tuple[int, int], labeled: tuple[int, int], *, where: str) -> None:
    """Refuses an image of another size (h, w) than its labels are for.

    Raises:
        DataError: the sizes differ; `where` says what names the other size.
    """
    if found != labeled:
        raise DataError(
            f"{image}: the image is {found[1]} x {found[0]} pixels, but {where} says {labeled[1]} x {labeled[0]}; "
            "its boxes would be misplaced: use the images that the labels were made for",
            kind="labels of another size",
        )
