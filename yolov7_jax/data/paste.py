"""Objects with polygons cut out of images and put into others, or into their own again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.geometry import scale_and_shift, shift
from yolov7_jax.data.mosaic import Tile
from yolov7_jax.data.pieces import Floats, Piece, cut_out, shown, shown_polygons, visible_region, warp_points
from yolov7_jax.image import cv2
from yolov7_jax.ops.polygons import joined, of_object
from yolov7_jax.types import Sample

MOST_COVER = 0.3
"""An object is not put where it covers this share of another's box (YOLOv7's recipes, arXiv:2207.02696)."""

PASTE_IMAGES = 3
MOST_PASTED = 12
PASTE_SCALES = (0.25, 1.0)
"""Of objects put into a sample: how many images they come from, how many are tried, and how they are resized.

The published recipes have it without saying how; these are ours: a few objects, never enlarged.
"""

NEAREST = 1e-3
"""Points with a smaller third coordinate are too near to the horizon of a perspective to be drawn."""

_SUBPIXELS = 4  # a side: polygons are drawn this much larger, since OpenCV draws all pixels that they touch
_FRACTION_BITS = 4  # of coordinates given to OpenCV


def flipped_copies(rng: np.random.Generator, tiles: Sequence[Tile], share: float, *, canvas: int) -> list[Piece]:
    """Objects with polygons of a canvas to be put on it again, flipped left to right about its middle.

    Source: copy-paste, Ghiasi et al., arXiv:2012.07177, as YOLOv7's recipes have it.

    Args:
        rng: what the choice is drawn from.
        tiles: what lies on the canvas.
        share: the probability of each object; those that would cover too much of another's box are left out.
        canvas: side of the canvas in pixels.
    """
    pieces = [Piece(tile.sample, tile.part, shift(tile.x, tile.y), 1.0) for tile in tiles]
    objects = [(piece, index) for piece in pieces for index in range(len(piece.sample.class_ids))]
    boxes = shown(pieces, (canvas, canvas)).boxes_xyxy_px
    has_polygons = np.concatenate([np.isin(np.arange(len(s.class_ids)), s.polygons.owner) for s, *_ in pieces])
    chosen = (rng.random(len(objects)) < share) & has_polygons & (boxes[:, 2] > boxes[:, 0])
    flip = scale_and_shift(-1, 1, canvas, 0)
    copies = []
    for number in np.flatnonzero(chosen):
        x0, y0, x1, y1 = boxes[number]
        box = np.array([[canvas - x1, y0, canvas - x0, y1]])
        if not _covers_much(box[0], boxes):
            piece, index = objects[number]
            copies.append(piece._replace(sample=cut_out(piece.sample, index), matrix=flip @ piece.matrix))
            boxes = np.concatenate([boxes, box])
    return copies


def paste_in(
    rng: np.random.Generator, sample: Sample, others: Sequence[Sample], *, zoom: float, polygons: bool = False
) -> Sample:
    """A sample with objects that have polygons of other images in it, each at a random place, whole, and labeled.

    Some are chosen by chance; those that would cover too much of another's box, or be too small, are left out.

    Args:
        rng: what all of it is drawn from.
        sample: its image is drawn into.
        others: where the objects come from.
        zoom: the size of objects is a random one of `PASTE_SCALES`, times this.
        polygons: whether the result has the polygons of the objects too.
    """
    objects = [(other, int(index)) for other in others for index in np.unique(other.polygons.owner)]
    order = rng.permutation(len(objects))[:MOST_PASTED]
    draws = rng.random((MOST_PASTED, 3))
    if not len(order):
        return sample
    shape = sample.image.shape[:2]
    pieces = [
        _placed(cut_out(*objects[number]), draw, zoom, shape)
        for number, draw in zip(order, draws[: len(order)], strict=True)
    ]
    found = shown(pieces, shape)
    boxes, class_ids, pasted = sample.boxes_xyxy_px.astype(np.float64), sample.class_ids, []
    for piece, box, class_id, enough in zip(pieces, *found, strict=True):
        if enough and not _covers_much(box, boxes):
            paste(sample.image, piece, box)
            boxes, class_ids = np.concatenate([boxes, box[None]]), np.append(class_ids, class_id)
            pasted.append(piece)
    made = sample._replace(boxes_xyxy_px=boxes.astype(np.float32), class_ids=class_ids)
    if not polygons:
        return made
    added = shown_polygons(pasted, shape, np.ones(len(pasted), bool))
    return made._replace(polygons=joined([sample.polygons, added], [len(sample.class_ids), len(pasted)]))


def is_in_front(piece: Piece) -> bool:
    """Whether all of an object lies well in front of the horizon of its warp."""
    depth = piece.matrix[2]
    return bool((piece.sample.polygons.points_xy_px @ depth[:2] + depth[2] > NEAREST).all())


def paste(image: NDArray[np.uint8], piece: Piece, box_xyxy_px: Floats) -> None:
    """Draws an object with polygons into an image, in place: the pixels whose centers lie in its polygons, bilinear.

    Args:
        image: uint8 [h, w, 3].
        piece: a sample of one object, in front of the horizon.
        box_xyxy_px: [4], the box of what shows of it.
    """
    left, top, right, bottom = np.ceil(box_xyxy_px - 0.5).astype(int).tolist()  # pixels with their centers in the box
    if left >= right or top >= bottom:
        return
    to_window = shift(-left, -top) @ piece.matrix
    mask = _mask(piece, to_window, (bottom - top, right - left))
    x0, y0, x1, y1 = piece.part
    # OpenCV counts from the middle of the first pixel
    matrix = shift(-0.5, -0.5) @ to_window @ shift(x0 + 0.5, y0 + 0.5)
    source = piece.sample.image[y0:y1, x0:x1]
    warped = cv2.warpPerspective(
        source, matrix, mask.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    cv2.copyTo(warped, mask, image[top:bottom, left:right])


def _mask(piece: Piece, matrix: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Which pixels of a window an object covers, and the part of its image that shows: 255, else 0."""
    mask = np.zeros((shape[0] * _SUBPIXELS, shape[1] * _SUBPIXELS), np.uint8)
    for polygon in of_object(piece.sample.polygons, 0):
        cv2.fillPoly(mask, [_fixed_point(polygon.T, matrix)], 255, shift=_FRACTION_BITS)
    points, part = piece.sample.polygons.points_xy_px, np.reshape(piece.part, (2, 2))
    if not ((points >= part[0]) & (points <= part[1])).all():
        within = np.zeros_like(mask)
        corners = visible_region(piece.part, matrix, shape).corners_xy_px
        cv2.fillConvexPoly(within, _fixed_point(corners, matrix), 255, shift=_FRACTION_BITS)
        mask &= within
    return np.ascontiguousarray(mask[_SUBPIXELS // 2 :: _SUBPIXELS, _SUBPIXELS // 2 :: _SUBPIXELS])


def _fixed_point(points: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points [2, n] under a warp as OpenCV draws them, [n, 2]: the middle of a pixel is at half its subpixels."""
    return np.rint(warp_points(points, matrix).T * _SUBPIXELS * 2**_FRACTION_BITS).astype(np.int32)


def _placed(one: Sample, draw: Floats, zoom: float, shape: tuple[int, int]) -> Piece:
    """A sample of one object in an image of `shape`, where and as large as three numbers from 0 to 1 say."""
    smallest, largest = map(math.log, PASTE_SCALES)
    scale = zoom * math.exp(smallest + draw[0] * (largest - smallest))
    height, width = one.image.shape[:2]
    corners = np.stack([one.polygons.points_xy_px.min(axis=0), one.polygons.points_xy_px.max(axis=0)])
    low, high = scale * np.clip(corners, 0, (width, height)).astype(np.float64)
    x, y = draw[1:] * (shape[::-1] - (high - low)) - low
    return Piece(one, (0, 0, width, height), scale_and_shift(scale, scale, x, y), scale)


def _covers_much(box_xyxy_px: Floats, boxes_xyxy_px: Floats) -> bool:
    """Whether a box covers too much of any of some boxes [n, 4]."""
    low, high = np.maximum(box_xyxy_px[:2], boxes_xyxy_px[:, :2]), np.minimum(box_xyxy_px[2:], boxes_xyxy_px[:, 2:])
    covered = np.prod(np.maximum(high - low, 0), axis=1)
    whole = np.prod(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], axis=1)
    return bool(((covered >= MOST_COVER * whole) & (whole > 0)).any())
