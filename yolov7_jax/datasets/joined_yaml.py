"""Data YAML files that join data sets: which these are, for each split, and which classes are wanted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.datasets.data_yaml import SPLITS, class_names, read_data_yaml
from yolov7_jax.datasets.tfds_folder import PREFIX
from yolov7_jax.errors import DataError
from yolov7_jax.registry import SOURCES

_KEY = "datasets"
_EXPECTED = (
    "expected the name of a data set, a mapping with data and where needed images and split, or one with train, val or "
    "test, each of these"
)


class Part(NamedTuple):
    """A data set to be joined. data: its name. images: the folder of a COCO JSON's images, if it is given."""

    data: str
    split: str
    images: Path | None


def is_joined(file: Path) -> bool:
    """Whether a data YAML joins others.

    Raises:
        InputError: the file cannot be read.
    """
    return _KEY in read_data_yaml(file)


def read_joined_yaml(file: Path, split: str) -> tuple[list[Part], tuple[str, ...] | None]:
    """The data sets that a split is made of, and the names of its classes where they are listed.

    Raises:
        DataError: an entry is wrong, or none has the split; names the file and the entry. InputError: the file cannot
            be read.
    """
    content = read_data_yaml(file)
    entries = content[_KEY]
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{file}: {_KEY} is {entries!r}; expected a list of data sets")
    if beside := [key for key in (*SPLITS, "path") if key in content]:
        raise DataError(f"{file}: it has {beside[0]} beside {_KEY}; put it into a data YAML of its own and list that")
    found = [_part(entry, split, f"{file}: {_KEY}, entry {at}", file) for at, entry in enumerate(entries, start=1)]
    parts = [part for part in found if part is not None]
    if not parts:
        raise DataError(f"{file}: none of its {_KEY} has the split {split!r}; add it to an entry or choose another")
    return parts, class_names(content, file) if "names" in content else None


def _part(entry: Any, split: str, where: str, file: Path) -> Part | None:
    """The data set of an entry; none where it says those of other splits alone."""
    if isinstance(entry, dict) and entry and set(entry) <= set(SPLITS):
        if split not in entry:
            return None
        entry = entry[split]
    if isinstance(entry, str):
        entry = {"data": entry}
    is_known = isinstance(entry, dict) and set(entry) <= {"data", "images", "split"}
    if not is_known or not entry.get("data") or not all(isinstance(value, str) for value in entry.values()):
        raise DataError(f"{where} is {entry!r}; {_EXPECTED}")
    images = file.parent / Path(entry["images"]).expanduser() if "images" in entry else None
    return Part(_located(entry["data"], file.parent), entry.get("split", split), images)


def _located(data: str, folder: Path) -> str:
    """The name of a data set, relative places made relative to the folder."""
    if data.startswith(PREFIX):
        name = data.removeprefix(PREFIX)
        return f"{PREFIX}{(folder / name).absolute()}" if name.startswith(".") else data
    place = folder / Path(data).expanduser()
    name, _, rest = data.partition(":")
    if name not in SOURCES or place.exists():
        return str(place)
    inner = folder / Path(rest).expanduser()
    return f"{name}:{inner}" if inner.exists() else data
