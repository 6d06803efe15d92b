"""Detection in large images by overlapping tiles, beside the image as a whole, whose detections become one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.errors import DataError
from yolov7_jax.inference.inputs import ImageLike, as_image, path_of, reader
from yolov7_jax.inference.results import ImageDetections, Result
from yolov7_jax.prefetch import prefetch

Window = tuple[int, int, int, int]
"""Of a tile: left, top, right, bottom in pixels of the image."""

_AT_EDGE_PX = 2.0  # so near the edge of a tile a box may be cut by it


class _Source(NamedTuple):
    """An image, where its tiles lie, and what was found in those that are done."""

    position: int
    given: ImageLike
    image: NDArray[np.uint8]
    windows: list[Window]
    results: dict[int, Result]


def tile_windows(size: tuple[int, int], tile: int, overlap: float) -> list[Window]:
    """Tiles of an image of size (h, w) that cover it, evenly laid, and the whole image as the last one.

    Neighbors share at least `overlap` of a tile. An image that one tile covers has one window: itself.
    """
    height, width = size
    rows, columns = (_starts(side, tile, overlap) for side in size)
    tiles = [(x, y, min(x + tile, width), min(y + tile, height)) for y in rows for x in columns]
    whole = (0, 0, width, height)
    return tiles if tiles == [whole] else [*tiles, whole]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    spare = max(side - tile, 0)
    step = max(int(tile * (1 - overlap)), 1)
    return np.rint(np.linspace(0, spare, ceil(spare / step) + 1)).astype(int).tolist()


def detect_tiled(
    detect: Callable[[Iterable[ImageLike]], Iterator[Result]], images: Iterable[ImageLike], options: Options
) -> Iterator[Result]:
    """Results of images that are cut into tiles of `options.tiles` pixels.

    detect: gives results of a stream of images, of any order: each tile is one to it.
    """
    pending: dict[int, tuple[_Source, int]] = {}  # by the place of the tile in the stream
    failed: dict[int, Result] = {}
    read = prefetch(partial(_read, options), enumerate(images), workers=options.workers, ahead=options.workers + 1)

    def pieces() -> Iterator[ImageLike]:
        place = 0
        for source in read:
            if isinstance(source, Result):
                failed[place] = source
                yield partial(_raise, source.error)
                place += 1
                continue
            for number, (left, top, right, bottom) in enumerate(source.windows):
                pending[place] = source, number
                yield source.image[top:bottom, left:right]
                place += 1

    for result in detect(pieces()):
        if result.position in failed:
            yield failed.pop(result.position)
            continue
        source, number = pending.pop(result.position)
        source.results[number] = result
        if len(source.results) == len(source.windows):
            yield _merged(source, options)


def _read(options: Options, item: tuple[int, ImageLike]) -> _Source | Result:
    position, given = item
    assert options.tiles is not None
    try:
        image = as_image(given, options)
    except DataError as error:
        return Result(position, error=error)
    return _Source(position, given, image, tile_windows(image.shape[:2], options.tiles, options.overlap), {})


def _raise(error: DataError | None) -> Any:
    assert error is not None
    raise error


def _merged(source: _Source, options: Options) -> Result:
    """What was found in all tiles of an image, as one result."""
    results = [source.results[number] for number in range(len(source.windows))]
    parts: list[Any] = [result.detections for result in results]
    found = parts[0] if len(parts) == 1 else merge_tiles(parts, source.windows, options)
    size = source.image.shape[:2]
    read = reader(source.given, source.image, options)
    seconds = {stage: sum((result.seconds or {})[stage] for result in results) for stage in results[0].seconds or {}}
    found = replace(found, size=size, path=path_of(source.given), read=read)
    return Result(source.position, source.image, found, seconds=seconds)


def merge_tiles(parts: list[ImageDetections], windows: list[Window], options: Options) -> ImageDetections:
    """Detections of the tiles of an image, the last of which is the image as a whole, as one list in its pixels.

    Greedy, as non-maximum suppression is: of two boxes of one class (any, if agnostic) whose overlap by
    `options.merge` is over `options.iou`, the better goes on. A box that an inner edge of its tile may have cut is
    worse than any that is whole; else the score decides.
    """
    size = windows[-1][3], windows[-1][2]
    pairs = list(zip(parts, windows, strict=True))
    boxes = np.concatenate([part.boxes_xyxy_px + np.array(window[:2] * 2, np.float32) for part, window in pairs])
    cut = np.concatenate([_is_cut(part, window, size) for part, window in pairs])
    scores, class_ids = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "class_ids"))
    kept = _greedy(boxes, class_ids, np.lexsort((-scores, cut)), options)
    kept = kept[np.argsort(-scores[kept], kind="stable")][: options.max_detections]
    chosen: dict[str, Any] = {"boxes_xyxy_px": boxes[kept], "scores": scores[kept], "class_ids": class_ids[kept]}
    return replace(parts[-1], **chosen, overflow=sum(part.overflow for part in parts))


def _is_cut(part: ImageDetections, window: Window, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes of a tile touch an edge of it that is none of the image's."""
    left, top, right, bottom = window
    height, width = size
    inner = np.array([left > 0, top > 0, right < width, bottom < height])
    away = np.abs(part.boxes_xyxy_px - np.array([0, 0, right - left, bottom - top], np.float32))
    touching: NDArray[np.bool_] = ((away < _AT_EDGE_PX) & inner).any(axis=1)
    return touching


def _greedy(
    boxes: NDArray[np.float32], class_ids: NDArray[np.int32], order: NDArray[np.intp], options: Options
) -> NDArray[np.intp]:
    """Which boxes no better one suppresses, best first."""
    kept = []
    while order.size:
        best, others = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[others, :2]), np.minimum(boxes[best, 2:], boxes[others, 2:])
        common = np.prod((high - low).clip(0), axis=1)
        own, other = (np.prod(boxes[which, 2:] - boxes[which, :2], axis=-1) for which in (best, others))
        whole = np.minimum(own, other) if options.merge == "ios" else own + other - common
        overlaps = common > options.iou * whole
        order = others[~(overlaps & (options.agnostic | (class_ids[others] == class_ids[best])))]
    return np.array(kept, np.intp)
