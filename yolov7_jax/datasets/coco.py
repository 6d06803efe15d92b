"""Labeled images of a COCO annotation file (JSON with images, annotations, categories)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from yolov7_jax.datasets.coco_json import Entries, Entry, polygons, read_content, sound_entries
from yolov7_jax.datasets.image_files import FileSource, image_size, present
from yolov7_jax.datasets.objects import LabelRow, ObjectCollector, packed
from yolov7_jax.datasets.table import LabelTable
from yolov7_jax.errors import DataError
from yolov7_jax.source import require_size
from yolov7_jax.types import Issue, Labels, OnError

_UNKNOWN = (0, 0)  # size of an image of which the file does not say it


def coco_splits(folder: Path) -> list[str]:
    """The splits of a folder in COCO's layout, annotations/instances_SPLIT.json and images/SPLIT; none of another."""
    return [file.stem.removeprefix("instances_") for file in sorted(folder.glob("annotations/instances_*.json"))]


def annotation_file(folder: Path, split: str) -> Path:
    """Where the annotations of a split are in a folder in COCO's layout."""
    return folder / "annotations" / f"instances_{split}.json"


def open_coco(file: Path, *, image_folder: Path | None = None, on_error: OnError = "stop") -> CocoSource:
    """The images of a COCO annotation file; none of them is read yet.

    Classes are the categories in order of their ids. Crowds, objects marked `ignore`, objects that repeat and boxes
    without area are no objects of a `Sample`; they stay in `ground_truth()`. Without `image_folder`, the images are
    looked for in the file's folder, its images/, ../images, ../val2017 and ../images/val2017 for a file named
    instances_val2017.json.

    Raises:
        DataError: the file or, unless they are to be skipped, an entry of it is wrong, or images are missing; names the
            file and the id.
    """
    entries = sound_entries(read_content(file), file, on_error=on_error)
    return CocoSource(
        file=file,
        names=tuple(entries.categories[number]["name"] for number in sorted(entries.categories)),
        category_ids=tuple(sorted(entries.categories)),
        image_ids=tuple(entries.images),
        images=_image_paths(entries.images, file, image_folder, on_error),
        table=LabelTable.of(_by_image(entries, file, on_error)),
        issues=entries.issues.get(None, ()),
        on_error=on_error,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class CocoSource(FileSource):
    """A source over a COCO annotation file. table: the labels of all images."""

    file: Path
    category_ids: tuple[int, ...] = field()
    table: LabelTable
    on_error: OnError
    issues: tuple[Issue, ...] = ()

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, as the annotation file says, else from the image's header."""
        labeled = self.table.labels(index).size
        return image_size(self.images[index]) if labeled == _UNKNOWN else labeled

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The objects of the image; crowds and objects marked `ignore` are ignored ones."""
        labels = self.table.labels(index)
        if labels.size == _UNKNOWN:
            return replace(labels, size=size or image_size(self.images[index]))
        if size:
            where = f"{self.file} (image {self.image_ids[index]})"
            require_size(self.images[index], size, labels.size, where=where)
        return labels

    def files(self) -> list[Path]:
        """Images and the annotation file."""
        return [self.file, *self.images]

    def subset(self, indices: Sequence[int]) -> Self:
        """These images alone."""
        return replace(super().subset(indices), table=self.table.subset(indices))

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's own content, areas and crowds as given; polygons are left out, boxes need none.

        Objects marked `ignore` are crowds, which evaluation ignores. Entries that are wrong are left out, where they
        are to be skipped, and so are images that are not of the source.
        """
        content, kept = read_content(self.file), set(self.image_ids)
        entries = sound_entries(content, self.file, on_error=self.on_error)
        return {
            **content,
            "images": [row for number, row in entries.images.items() if number in kept],
            "annotations": [_for_evaluation(row) for row in entries.annotations if row["image_id"] in kept],
        }


def _for_evaluation(annotation: Entry) -> Entry:
    kept = {key: value for key, value in annotation.items() if key != "segmentation"}
    return kept | ({"iscrowd": 1} if annotation.get("ignore") else {})


def _by_image(entries: Entries, file: Path, on_error: OnError) -> list[Labels]:
    """The objects of each image that repeat none and have an area, those to be ignored by themselves."""
    class_index = {number: index for index, number in enumerate(sorted(entries.categories))}
    collectors = {image_id: ObjectCollector(on_error) for image_id in entries.images}
    for image_id, collector in collectors.items():
        collector.issues.extend(entries.issues.get(image_id, ()))
    for entry in entries.annotations:
        x, y, width, height = entry["bbox"]
        corners = tuple(packed(polygon) for polygon in polygons(entry))
        row = LabelRow(class_index[entry["category_id"]], (x, y, x + width, y + height), corners)
        place = f"annotation {entry.get('id', 'without id')}"
        ignored = bool(entry.get("iscrowd") or entry.get("ignore"))
        collectors[entry["image_id"]].add(row, place, ignored=ignored)
    return [
        collector.labels(file, entries.sizes[image_id], distinct_ignored=False)
        for image_id, collector in collectors.items()
    ]


def _image_paths(
    images: dict[int, Entry], file: Path, image_folder: Path | None, on_error: OnError
) -> tuple[Path, ...]:
    home, split = file.parent, file.stem.rpartition("_")[2]
    usual = [home, home / "images", home.parent / "images", home.parent / split, home.parent / "images" / split]
    folders = usual if image_folder is None else [image_folder]
    names = [row["file_name"] for row in images.values()]
    decisive = names[:1] if on_error == "stop" else names
    folder = next((folder for name in decisive for folder in folders if (folder / name).is_file()), None)
    if folder is None:
        looked = ", ".join(map(str, folders))
        raise DataError(f"{file}: its image {names[0]} is not in {looked}; name the folder of the images")
    paths = tuple(folder / name for name in names)
    if on_error == "stop":
        missing = [number for number, there in zip(images, present(paths), strict=True) if not there]
        if missing:
            name = images[missing[0]]["file_name"]
            raise DataError(
                f"{file}: {len(missing)} of its {len(images)} images are not in {folder}, the first is {name} "
                f"(image {missing[0]}); add the images or name their folder"
            )
    return paths
