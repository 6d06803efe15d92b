"""A data set written anew in another format."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from yolov7_jax.datasets.curate.splits import open_splits
from yolov7_jax.datasets.voc import VocSource
from yolov7_jax.datasets.writers import Content, Format, Item, Written, write_data
from yolov7_jax.datasets.yolo import YoloSource
from yolov7_jax.prefetch import prefetch
from yolov7_jax.source import Source

_THREADS = 8  # they wait for the disk
_AHEAD = 64

ProgressBar = Callable[[Iterable[Any], int], Iterable[Any]]


def convert_data(
    data: Path | str,
    folder: Path | str,
    *,
    to: Format,
    splits: Sequence[str] | None = None,
    image_folder: Path | None = None,
    link: bool = True,
    progress: ProgressBar = lambda items, _: items,
) -> Written:
    """Writes a data set into a new folder in another format (or the same); what it was is left as it is.

    Args:
        data: what `open_source` opens.
        folder: a new one.
        to: yolo, coco or voc.
        splits: which to write; by default all that the data set names.
        image_folder: where the images of a COCO annotation file are.
        link: hard links of images where the disk can have them, else copies.
        progress: is given what is gone through and its length, and hands it on; for a display of progress.

    Raises:
        InputError: the data cannot be used, is faulty, or cannot be written; names the file, and the line or id.
    """
    sources = open_splits(data, splits, image_folder=image_folder)
    return write_data(folder, content_of(sources, progress=progress), to=to, link=link)


def content_of(
    sources: Mapping[str, Source],
    *,
    redrawn: Mapping[str, Container[int]] | None = None,
    progress: ProgressBar = lambda items, _: items,
) -> Content:
    """What sources of the same classes hold, for a writer; read as it is written.

    Args:
        sources: by the name of their split.
        redrawn: which images of each are to be saved anew from their pixels.
        progress: as in `convert_data`.
    """
    first = next(iter(sources.values()))
    splits = {
        split: items_of(source, (redrawn or {}).get(split, ()), progress=progress) for split, source in sources.items()
    }
    return Content(first.names, first.category_ids, splits, has_ids=has_ids(first))


def has_ids(source: Source) -> bool:
    """Whether the ids of images are in the files of a source, and do not follow from the order or names of images."""
    return not isinstance(source, YoloSource | VocSource)


def items_of(
    source: Source, redrawn: Container[int] = (), *, progress: ProgressBar = lambda items, _: items
) -> Iterator[Item]:
    """The images of a source for a writer; see `content_of`."""
    item = partial(_item, source, redrawn=redrawn)
    with closing(prefetch(item, range(len(source)), workers=_THREADS, ahead=_AHEAD)) as items:
        yield from progress(items, len(source))


def _item(source: Source, index: int, *, redrawn: Container[int]) -> Item:
    path, labels = source.path(index), source.labels(index, source.check_image(index))
    has_file = path.is_file() and index not in redrawn
    return Item(path, source.image_ids[index], labels, None if has_file else partial(source.read, index))
