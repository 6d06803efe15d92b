"""Tiles of a canvas warped straight into the image that shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.geometry import Matrix, is_upright, scale_and_shift, shift
from yolov7_jax.data.letterbox import GRAY
from yolov7_jax.data.mosaic import Tile
from yolov7_jax.data.paste import is_in_front, paste
from yolov7_jax.data.pieces import Piece, shown, shown_polygons
from yolov7_jax.image import cv2
from yolov7_jax.types import Sample

STRIP = 64
"""Rows that a warp makes at once."""

NOWHERE = -1e9
"""Left of any tile."""


def render(
    tiles: Sequence[Tile],
    warp: Matrix,
    scale: float,
    *,
    size: tuple[int, int],
    copies: Sequence[Piece] = (),
    polygons: bool = False,
) -> Sample:
    """What a warp of the canvas shows in an image: uint8 [h, w, 3] and the boxes worth keeping.

    Where no tile lies is gray. Each pixel belongs to the tile in which its center falls, and its color is bilinear
    among the pixels of that tile which show, so tiles do not run into each other. Where the warp only scales and
    shifts, it is adjusted for each tile by half a pixel of the tile or of the image at most, so that whole pixels come
    to lie on whole pixels and the tile is a plain resizing, three times as fast; its boxes go exactly with it.

    Args:
        tiles: what lies on the canvas, at least one; the result has the id of the first.
        warp: from canvas to image.
        scale: of the warp, for judging how much of a box is left.
        size: height and width of the image.
        copies: objects put on the canvas over the tiles, in this order; those that reach behind the horizon
            of the warp are left out.
        polygons: whether the result has what shows of the polygons.
    """
    image = np.full((*size, 3), GRAY, np.uint8)
    matrices = _resize_into(image, tiles, warp) if is_upright(warp) else _remap_into(image, tiles, warp)
    pieces = [Piece(tile.sample, tile.part, matrix, scale) for tile, matrix in zip(tiles, matrices, strict=True)]
    warped = [copy._replace(matrix=warp @ copy.matrix, scale=scale * copy.scale) for copy in copies]
    pasted = [copy for copy in warped if is_in_front(copy)]
    boxes_xyxy_px, class_ids, keep = shown([*pieces, *pasted], size)
    for copy, box in zip(pasted, boxes_xyxy_px[len(boxes_xyxy_px) - len(pasted) :], strict=True):
        paste(image, copy, box)
    made = Sample(image, boxes_xyxy_px[keep].astype(np.float32), class_ids[keep], tiles[0].sample.id)
    return made._replace(polygons=shown_polygons([*pieces, *pasted], size, keep)) if polygons else made


def _resize_into(image: NDArray[np.uint8], tiles: Sequence[Tile], warp: Matrix) -> list[Matrix]:
    """Paints tiles of a warp that only scales and shifts; returns what became of it for each, from source pixels."""
    (zoom_x, _, origin_x), (_, zoom_y, origin_y), _ = warp.tolist()
    matrices = []
    for tile in tiles:
        x0, y0, x1, y1 = tile.part
        left, right, from_x, to_x = _whole_pixels(x0, x1, zoom_x, origin_x, tile.x, image.shape[1])
        top, bottom, from_y, to_y = _whole_pixels(y0, y1, zoom_y, origin_y, tile.y, image.shape[0])
        if left < right and top < bottom:
            target = image[top:bottom, left:right]
            source = tile.sample.image[from_y:to_y, from_x:to_x]
            cv2.resize(source, (right - left, bottom - top), dst=target, interpolation=cv2.INTER_LINEAR)
        across, down = (right - left) / (to_x - from_x), (bottom - top) / (to_y - from_y)
        matrices.append(scale_and_shift(across, down, left - across * from_x, top - down * from_y))
    return matrices


def _whole_pixels(low: int, high: int, zoom: float, origin: float, offset: int, size: int) -> tuple[int, int, int, int]:
    """The range of pixels that an axis of a tile fills in the image, and the range of source pixels that fills it.

    Source pixel x lies at zoom · (x + offset) + origin: computed in this order, neighbors agree on their seam.
    """
    first, last = (min(max(round(zoom * (edge + offset) + origin), 0), size) for edge in (low, high))
    start, stop = ((edge - origin) / zoom - offset for edge in (first, last))
    begin = min(max(round(start), low), high - 1)
    return first, last, begin, max(min(round(stop), high), begin + 1)


def _remap_into(image: NDArray[np.uint8], tiles: Sequence[Tile], warp: Matrix) -> list[Matrix]:
    """Paints tiles of any warp, each through the mask of its quadrilateral; returns the warp of each tile's pixels."""
    back: Matrix = np.linalg.inv(warp).astype(np.float64)
    for top in range(0, len(image), STRIP):  # what is made for a strip stays in the processor's cache
        strip = image[top : top + STRIP]
        x, y = _canvas_of_pixels(back, top, strip.shape[:2])
        for tile in tiles:
            _remap_tile(strip, tile, x, y)
    return [warp @ shift(tile.x, tile.y) for tile in tiles]


def _remap_tile(image: NDArray[np.uint8], tile: Tile, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Paints the pixels of an image whose places on the canvas, x and y [h, w], lie where a tile shows."""
    x0, y0, x1, y1 = tile.part
    left, top, right, bottom = (np.float32(n) for n in (tile.x + x0, tile.y + y0, tile.x + x1, tile.y + y1))
    mask = ((x >= left) & (x < right) & (y >= top) & (y < bottom)).view(np.uint8)
    from_column, from_row, width, height = cv2.boundingRect(mask)
    if not width:
        return
    area = np.s_[from_row : from_row + height, from_column : from_column + width]
    # OpenCV counts from the middle of the first pixel
    from_x, from_y = x[area] - (left + np.float32(0.5)), y[area] - (top + np.float32(0.5))
    source = tile.sample.image[y0:y1, x0:x1]
    warped = cv2.remap(source, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(warped, mask[area], image[area])


def _canvas_of_pixels(
    back: Matrix, top: int, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where on the canvas the centers of rows of an image lie, from row `top` on: x and y [h, w].

    `back` is the matrix from image to canvas. What would lie behind the horizon is put beyond any tile.
    """
    rows, columns = np.arange(top, top + shape[0])[:, None] + 0.5, np.arange(shape[1]) + 0.5
    x, y, w = (
        (along * columns).astype(np.float32) + (down * rows + start).astype(np.float32) for along, down, start in back
    )
    if (w <= 0).any():
        x[w <= 0] = NOWHERE
        w[w <= 0] = 1
    return x / w, y / w
