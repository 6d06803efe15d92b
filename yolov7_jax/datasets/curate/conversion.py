"""All splits of a data set, and the data set written anew in another format."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from yolov7_jax.datasets.coco import coco_splits
from yolov7_jax.datasets.content import Content, Item
from yolov7_jax.datasets.data_yaml import SPLITS, read_data_yaml
from yolov7_jax.datasets.joined import Part, read_joined_yaml
from yolov7_jax.datasets.opening import locate, open_source
from yolov7_jax.datasets.voc import VocSource, voc_splits
from yolov7_jax.datasets.writers import Format, Written, write_data
from yolov7_jax.datasets.yolo import YoloSource
from yolov7_jax.errors import DataError
from yolov7_jax.prefetch import ProgressBar, no_progress, of_each
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import OnError


def split_names(data: Path | str) -> tuple[str, ...]:
    """The splits that a data set names: of train, val and test those that are there, else all.

    A COCO annotation file is one split, called by the one of these words that its name has in it, else train; so are
    formats that do not name their splits.

    Raises:
        InputError: the data set cannot be read, or names no split.
    """
    format_name, place = locate(data)
    folder = Path(place)
    if format_name == "coco" and folder.is_dir():
        known = coco_splits(folder)
    elif format_name == "voc":
        known = voc_splits(folder)
    elif format_name == "joined":
        known = [name for name in SPLITS if _is_joined_split(folder, name)]
    elif format_name == "yolo":
        known = [name for name, places in read_data_yaml(folder).items() if name in SPLITS and places]
    else:
        return (next((name for name in SPLITS if name in folder.stem), SPLITS[0]),)
    if not known:
        raise DataError(f"{data}: names no split; expected one or more of {', '.join(SPLITS)}")
    return tuple(name for name in SPLITS if name in known) or tuple(known)


def _is_joined_split(file: Path, split: str) -> bool:
    """Whether any of joined data sets has a split; those that are one split by themselves are for train and val."""
    try:
        parts, _ = read_joined_yaml(file, split)
    except DataError:  # none of the entries is for this split
        return False

    def has(part: Part) -> bool:
        if part.split != split:
            return True
        format_name, place = locate(part.data)
        names_splits = format_name in {"yolo", "joined", "voc"} or (format_name == "coco" and Path(place).is_dir())
        return split in (split_names(part.data) if names_splits else SPLITS[:2])

    return any(map(has, parts))


def open_splits(
    data: Path | str,
    splits: Sequence[str] | None = None,
    *,
    image_folder: Path | None = None,
    on_error: OnError = "stop",
) -> dict[str, SourceMixin]:
    """The sources of these splits of a data set, by default of all that it names.

    Raises:
        InputError: the data set or one of the splits cannot be used.
    """
    chosen = dict.fromkeys(splits or split_names(data))
    return {split: open_source(data, split, image_folder=image_folder, on_error=on_error) for split in chosen}


def format_of(data: Path | str) -> Format:
    """The format in which to write what is made from a data set: its own if it can be written."""
    formats: dict[str, Format] = {"voc": "voc", "yolo": "yolo", "joined": "yolo"}
    return formats.get(locate(data).format, "coco")


def convert_data(
    data: Path | str,
    folder: Path | str,
    *,
    to: Format,
    splits: Sequence[str] | None = None,
    image_folder: Path | None = None,
    link: bool = True,
    progress: ProgressBar = no_progress,
) -> Written:
    """Writes a data set into a new folder in another format (or the same); what it was is left as it is.

    Args:
        data: what `open_source` opens.
        folder: a new one.
        to: yolo, coco or voc.
        splits: which to write; by default all that the data set names.
        image_folder: where the images of a COCO annotation file are.
        link: hard links of images where the disk can have them, else copies.
        progress: a display of progress.

    Raises:
        InputError: the data cannot be used or written, or is wrong; names the file, and the line or id.
    """
    sources = open_splits(data, splits, image_folder=image_folder)
    content = content_of({split: [source] for split, source in sources.items()}, progress=progress)
    return write_data(folder, content, to=to, link=link)


def content_of(
    parts: Mapping[str, Sequence[SourceMixin]], *, saved_anew: Container[Path] = (), progress: ProgressBar = no_progress
) -> Content:
    """What sources of the same classes hold, for a writer; read as it is written.

    Args:
        parts: of each split.
        saved_anew: which images are to be saved anew from their pixels.
        progress: a display of progress, of each part.
    """
    first = next(iter(parts.values()))[0]
    splits = {
        split: chain.from_iterable(_items(source, saved_anew, progress) for source in sources if len(source))
        for split, sources in parts.items()
    }
    has_ids = not isinstance(first, YoloSource | VocSource)
    return Content(first.names, first.category_ids, splits, has_ids=has_ids)


def _items(source: SourceMixin, saved_anew: Container[Path], progress: ProgressBar) -> Iterator[Item]:
    def item(index: int) -> Item:
        path, labels = source.path(index), source.labels_for(index, source.check_image(index))
        has_file = path.is_file() and path not in saved_anew
        return Item(path, source.image_ids[index], labels, None if has_file else partial(source.read, index))

    return of_each(item, range(len(source)), progress=progress)
