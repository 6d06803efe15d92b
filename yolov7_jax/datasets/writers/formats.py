"""The door to the writers of all formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from yolov7_jax.datasets.writers.coco import write_coco
from yolov7_jax.datasets.writers.content import Content, Losses
from yolov7_jax.datasets.writers.files import ImageFiles, new_folder
from yolov7_jax.datasets.writers.voc import write_voc
from yolov7_jax.datasets.writers.yolo import write_yolo
from yolov7_jax.errors import DataError

Format = Literal["yolo", "coco", "voc"]

_WRITERS: Mapping[Format, Callable[[Path, Content, ImageFiles, Losses], Path]] = {
    "yolo": write_yolo,
    "coco": write_coco,
    "voc": write_voc,
}
_CATEGORIES = "category ids counted from 1, as only COCO's files have them"
_RESERVED = frozenset({"path", "names", "nc", "images"})  # they mean something in a data YAML or in paths


class Written(NamedTuple):
    """A data set that was written. data: what to open it by. losses: what is not as it was, and how often."""

    data: Path
    losses: Mapping[str, int]

    @property
    def sentences(self) -> list[str]:
        """What is not as it was, with counts."""
        return [f"{what}: {count}" for what, count in self.losses.items()]


def write_data(folder: Path | str, content: Content, *, to: Format, link: bool = True) -> Written:
    """Writes a data set into a new folder, which is there as a whole in the end or, after an error, not at all.

    Args:
        folder: must not be there yet, or be empty.
        content: images with their labels.
        to: yolo (see `write_yolo`), coco (`write_coco`) or voc (`write_voc`).
        link: put images there as hard links where the disk can, which takes no room; else copy them.

    Raises:
        DataError: the folder is there, there is no room, an image cannot be read, or the format cannot hold a name.
    """
    folder = Path(folder)
    if to not in get_args(Format):
        raise DataError(f"data sets are not written as {to!r}; choose one of {', '.join(get_args(Format))}")
    for split in content.splits:
        if not re.fullmatch(r"[\w-][\w.-]*", split) or split in _RESERVED:
            raise DataError(f"a split cannot be named {split!r}; use letters, digits, - and _, such as train")
    losses = Losses()
    if to != "coco":
        losses[_CATEGORIES] = sum(given != new for new, given in enumerate(content.category_ids, start=1))
    with new_folder(folder) as partial:
        data = _WRITERS[to](partial, content, ImageFiles(link=link, losses=losses), losses).relative_to(partial)
    return Written(folder / data, {what: count for what, count in losses.items() if count})
