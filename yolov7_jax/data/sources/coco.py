"""Labelled images of a COCO annotation file (JSON with images, annotations, categories)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.image import read_image
from yolov7_jax.data.sources.coco_json import Entries, Entry, read_content, sound_entries
from yolov7_jax.data.sources.faults import OnFault
from yolov7_jax.data.sources.image_files import checked_size, image_size, present, require_size
from yolov7_jax.data.sources.objects import Labels, Row, as_arrays, pick, sift
from yolov7_jax.errors import DataError
from yolov7_jax.ops.boxes import xywh_to_xyxy
from yolov7_jax.types import Sample


def open_coco(file: Path, *, image_folder: Path | None = None, on_fault: OnFault = "stop") -> CocoSource:
    """The images of a COCO annotation file; none of them is read yet.

    Classes are the categories in order of their ids. Crowds, objects that repeat and boxes without area are no objects
    of a `Sample`; they stay in `ground_truth()`. Without `image_folder`, the images are looked for in the file's
    folder, its images/, ../images, ../val2017 and ../images/val2017 for a file named instances_val2017.json.

    Raises:
        DataError: the file or, unless they are to be skipped, an entry of it is wrong, or images are missing; names the
            file and the id.
    """
    entries = sound_entries(read_content(file), file, on_fault=on_fault)
    objects, left_out = _by_image(entries)
    counts = [len(rows) for rows in objects]
    class_ids, boxes_xywh_px = as_arrays([row for rows in objects for row in rows])
    return CocoSource(
        file=file,
        names=tuple(entries.categories[number]["name"] for number in sorted(entries.categories)),
        category_ids=tuple(sorted(entries.categories)),
        image_ids=tuple(entries.images),
        images=_image_paths(entries.images, file, image_folder, on_fault),
        sizes=tuple(entries.sizes.values()),
        boxes_xyxy_px=xywh_to_xyxy(boxes_xywh_px).astype(np.float32),
        class_ids=class_ids,
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        left_out=left_out,
        faults=entries.faults.get(None, ()),
        on_fault=on_fault,
    )


class LeftOut(NamedTuple):
    """How many objects of an image repeat, how many have no area, and what is wrong with others."""

    duplicates: int
    empty: int
    faults: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CocoSource:
    """A `Source` over a COCO annotation file, kept as arrays so that worker processes get it quickly.

    sizes: height and width of each image, None where the file does not say. boxes_xyxy_px: float32 [n, 4] and
    class_ids: int32 [n] of all images in a row. starts: int64 [images + 1], where each image's objects begin.
    left_out: of the image ids that have any.
    """

    file: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: tuple[int, ...]
    images: tuple[Path, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    boxes_xyxy_px: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    left_out: dict[int, LeftOut]
    faults: tuple[str, ...]
    on_fault: OnFault

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects.

        Raises:
            DataError: the image cannot be read, or has not the size that the annotation file says.
        """
        image = read_image(self.images[index])
        self._require_size(index, image.shape[:2])
        objects = self._objects(index)
        return Sample(image, self.boxes_xyxy_px[objects].copy(), self.class_ids[objects].copy(), self.image_ids[index])

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.images[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, as the annotation file says, else from the image's header."""
        return self.sizes[index] or image_size(self.images[index])

    def check_image(self, index: int) -> None:
        """Raises DataError where the image cannot be used, as far as its header, end and entry tell."""
        self._require_size(index, checked_size(self.images[index]))

    def labels(self, index: int) -> Labels:
        """The objects of the image, crowds left out and not counted."""
        left_out = self.left_out.get(self.image_ids[index], LeftOut(0, 0, ()))
        return Labels(class_ids=self.class_ids[self._objects(index)], **left_out._asdict())

    def subset(self, indices: Sequence[int]) -> CocoSource:
        """These images alone."""
        parts = [self._objects(index) for index in indices]
        rows = np.concatenate([np.arange(part.start, part.stop) for part in parts] or [np.zeros(0, np.int64)])
        return replace(
            self,
            images=pick(self.images, indices),
            sizes=pick(self.sizes, indices),
            image_ids=pick(self.image_ids, indices),
            boxes_xyxy_px=self.boxes_xyxy_px[rows],
            class_ids=self.class_ids[rows],
            starts=np.concatenate([[0], np.cumsum([part.stop - part.start for part in parts], dtype=np.int64)]),
        )

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's own content, areas and crowds as given; outlines are left out, boxes need none.

        Entries that are wrong are left out, where they are to be skipped, and so are images that are not of the source.
        """
        content, kept = read_content(self.file), set(self.image_ids)
        entries = sound_entries(content, self.file, on_fault=self.on_fault)
        return {
            **content,
            "images": [row for number, row in entries.images.items() if number in kept],
            "annotations": [row for row in entries.annotations if row["image_id"] in kept],
        }

    def _objects(self, index: int) -> slice:
        first = index % len(self)
        return slice(int(self.starts[first]), int(self.starts[first + 1]))

    def _require_size(self, index: int, found: tuple[int, int]) -> None:
        where = f"{self.file} (image {self.image_ids[index]})"
        require_size(self.images[index], found, self.sizes[index] or found, where=where)


def _by_image(entries: Entries) -> tuple[list[list[Row]], dict[int, LeftOut]]:
    """The objects of each image that are no crowds, repeat none and have an area; what was left out, by image id."""
    class_index = {number: index for index, number in enumerate(sorted(entries.categories))}
    rows: dict[int, list[Row]] = {image_id: [] for image_id in entries.images}
    for row in entries.annotations:
        if not row.get("iscrowd"):
            rows[row["image_id"]].append((class_index[row["category_id"]], *row["bbox"]))
    objects, left_out = [], {}
    for image_id, found in rows.items():
        kept, duplicates, empty = sift(found)
        objects.append(kept)
        faults = entries.faults.get(image_id, ())
        if duplicates or empty or faults:
            left_out[image_id] = LeftOut(duplicates, empty, faults)
    return objects, left_out


def _image_paths(
    images: dict[int, Entry], file: Path, image_folder: Path | None, on_fault: OnFault
) -> tuple[Path, ...]:
    home, split = file.parent, file.stem.rpartition("_")[2]
    usual = [home, home / "images", home.parent / "images", home.parent / split, home.parent / "images" / split]
    folders = usual if image_folder is None else [image_folder]
    names = [row["file_name"] for row in images.values()]
    decisive = names if on_fault == "skip" else names[:1]
    folder = next((folder for name in decisive for folder in folders if (folder / name).is_file()), None)
    if folder is None:
        looked = ", ".join(map(str, folders))
        raise DataError(f"{file}: its image {names[0]} is not in {looked}; name the folder of the images")
    paths = tuple(folder / name for name in names)
    if on_fault == "stop":
        missing = [number for number, there in zip(images, present(paths), strict=True) if not there]
        if missing:
            name = images[missing[0]]["file_name"]
            raise DataError(
                f"{file}: {len(missing)} of its {len(images)} images are not in {folder}, the first is {name} "
                f"(image {missing[0]}); add the images or name their folder"
            )
    return paths
