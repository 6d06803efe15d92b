"""Several data sets as one: classes of the same name are one class, image ids differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.data_yaml import SPLITS, class_names, read_data_yaml
from yolov7_jax.datasets.image_files import ReadSource
from yolov7_jax.datasets.tfds_files import PREFIX
from yolov7_jax.errors import DataError
from yolov7_jax.ops.polygons import select
from yolov7_jax.registry import SOURCES
from yolov7_jax.source import Source, SourceMixin, SourceView, complete
from yolov7_jax.types import Issue, Labels, OnError

ONE_CLASS = ("object",)
"""The names of the classes where all are one."""

_UNLISTED = -1  # in place of the class of an object that is left out


def open_joined(
    file: Path, split: str, open_part: Callable[[Part], SourceMixin], *, on_error: OnError = "stop"
) -> JoinedSource:
    """A split of the data sets that a YAML lists under datasets, joined.

    An entry is the name of a data set, relative to the YAML's folder, or a mapping {data: name, images: folder of a
    COCO JSON, split: another name of the split}, or {train: entry, val: entry, test: entry}: it is left out of splits
    that are not there. Classes are those of names, others' objects are left out and counted; without it all, in the
    order in which they are seen first.

    Args:
        file: the YAML.
        split: to open of each.
        open_part: opens one of them.
        on_error: which `open_part` uses.

    Raises:
        DataError: an entry is wrong or cannot be opened, no entry has the split, or a data set has none of the classes
            that are listed; names the file and the entry.
    """
    parts, wanted = read_joined_yaml(file, split)
    sources = tuple(open_part(part) for part in parts)
    names = wanted or tuple(dict.fromkeys(name for source in sources for name in source.names))
    for part, source in zip(parts, sources, strict=True):
        if not set(source.names) & set(names):
            raise DataError(
                f"{file}: names lists none of the classes of {part.data} ({', '.join(source.names)}); add some, or "
                "take the data set out"
            )
    return _joined(sources, names, range(1, len(names) + 1), files=(file,), on_error=on_error)


def with_names(source: SourceMixin, names: tuple[str, ...]) -> SourceMixin:
    """A source with its classes in the places of those of the same name, their categories as they were.

    Objects of other classes are left out.
    """
    if source.names == names:
        return source
    known = dict(zip(source.names, source.category_ids, strict=True))
    spare = count(max(source.category_ids) + 1)
    categories = [known[name] if name in known else next(spare) for name in names]
    return _joined((source,), names, categories, files=(), on_error=source.on_error)


def with_one_class(source: Source) -> SourceMixin:
    """A source with all its objects of one class, "object", ignored ones too; their boxes and polygons stay.

    Evaluation knows the class as category 1.
    """
    whole = complete(source)
    return _joined((whole,), ONE_CLASS, (1,), files=(), on_error=whole.on_error, one_class=True)


def _joined(
    sources: tuple[SourceMixin, ...],
    names: tuple[str, ...],
    categories: Iterable[int],
    *,
    files: tuple[Path, ...],
    on_error: OnError,
    one_class: bool = False,
) -> JoinedSource:
    return JoinedSource(
        names=names,
        category_ids=tuple(categories),
        image_ids=_image_ids(sources),
        on_error=on_error,
        own_files=files,
        parts=sources,
        places=tuple((at, index) for at, source in enumerate(sources) for index in range(len(source))),
        issues=tuple(issue for source in sources for issue in source.issues),
        one_class=one_class,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedSource(SourceView, ReadSource):
    """A source over others. places: of each image, which of the parts it is in, and its index there.

    own_files: what says how to join them. one_class: all classes of the parts are the only one here, whatever they are
    called.
    """

    category_ids: tuple[int, ...] = field()
    on_error: OnError
    own_files: tuple[Path, ...]
    parts: tuple[SourceMixin, ...]
    places: tuple[tuple[int, int], ...]
    issues: tuple[Issue, ...] = ()
    one_class: bool = False
    per_image: ClassVar[tuple[str, ...]] = ("image_ids", "places")

    @property
    def settings(self) -> tuple[Any, ...]:
        """Kinds, classes and settings of its parts, and whether all classes are one."""
        return (self.one_class, *((type(part).__name__, part.names, part.settings) for part in self.parts))

    def place(self, index: int) -> tuple[SourceMixin, int]:
        """The part that an image is in, and its index there."""
        at, inner = self.places[index]
        return self.parts[at], inner

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """What its part says, of the classes that are wanted."""
        part, inner = self.place(index)
        return _renamed(part.labels_for(inner, size) if size else part.labels(inner), self._classes(part))

    def files(self) -> list[Path]:
        """Those of all parts, and its own."""
        return [*self.own_files, *(file for part in self.parts for file in part.files())]

    def ground_truth(self) -> dict[str, Any]:
        """The ground truths of its parts joined; images and annotations in the order of the source."""
        wanted: dict[int, dict[int, int]] = defaultdict(dict)  # of each part, the id here of each index there
        for image_id, (at, inner) in zip(self.image_ids, self.places, strict=True):
            wanted[at].setdefault(inner, image_id)
        images: dict[int, dict[str, Any]] = {}
        annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for at, ids in wanted.items():
            part = self.parts[at].subset(list(ids))
            here = dict(zip(part.image_ids, ids.values(), strict=True))
            category = self._categories(part)
            truth = part.ground_truth()
            for row in truth["images"]:
                images[here[row["id"]]] = row | {"id": here[row["id"]]}
            for row in truth["annotations"]:
                if row["category_id"] in category:
                    image_id = here[row["image_id"]]
                    new = {"image_id": image_id, "category_id": category[row["category_id"]]}
                    annotations[image_id].append(row | new)
        order = list(dict.fromkeys(self.image_ids))
        rows = [row for image_id in order for row in annotations[image_id]]
        return {
            "images": [images[image_id] for image_id in order],
            "annotations": [row | {"id": number} for number, row in enumerate(rows, start=1)],
            "categories": [{"id": n, "name": name} for n, name in zip(self.category_ids, self.names, strict=True)],
        }

    def _classes(self, part: SourceMixin) -> NDArray[np.int32]:
        """The class here of each class of a part."""
        if self.one_class:
            return np.zeros(len(part.names), np.int32)
        index = {name: number for number, name in enumerate(self.names)}
        return np.array([index.get(name, _UNLISTED) for name in part.names], np.int32)

    def _categories(self, part: SourceMixin) -> dict[int, int]:
        """The category here of each category of a part that is wanted."""
        pairs = zip(part.category_ids, self._classes(part).tolist(), strict=True)
        return {there: self.category_ids[number] for there, number in pairs if number != _UNLISTED}


def _renamed(labels: Labels, classes: NDArray[np.int32]) -> Labels:
    class_ids, ignored_class_ids = classes[labels.class_ids], classes[labels.ignored_class_ids]
    kept, ignored = class_ids != _UNLISTED, ignored_class_ids != _UNLISTED
    return replace(
        labels,
        class_ids=class_ids[kept],
        boxes_xyxy_px=labels.boxes_xyxy_px[kept],
        polygons=select(labels.polygons, kept),
        ignored_class_ids=ignored_class_ids[ignored],
        ignored_boxes_xyxy_px=labels.ignored_boxes_xyxy_px[ignored],
        unlisted=labels.unlisted + int(np.sum(~kept)),
    )


def _image_ids(sources: Sequence[SourceMixin]) -> tuple[int, ...]:
    """The ids of the parts where no two are equal, else 1, 2, 3 ..."""
    ids = tuple(image_id for source in sources for image_id in source.image_ids)
    return ids if len(set(ids)) == len(ids) else tuple(range(1, len(ids) + 1))


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
