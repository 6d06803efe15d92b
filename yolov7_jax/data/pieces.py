"""Samples, or objects cut out of them, in an image that they are put into: what is left of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.geometry import MIN_AREA, MIN_AREA_POLYGON, Matrix, still_labels, warp_boxes
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import as_polygons, joined, of_object, select
from yolov7_jax.types import Polygons, Sample


class Piece(NamedTuple):
    """A sample in an image. part: the xyxy part of its pixels that shows. matrix: from its pixels to the image's.

    scale: of the matrix, for judging how much of a box is left.
    """

    sample: Sample
    part: tuple[int, int, int, int]
    matrix: Matrix
    scale: float


class Shown(NamedTuple):
    """The objects of pieces in their image, all in a row. boxes_xyxy_px: float64 [n, 4]; zero where nothing shows.

    class_ids: int32 [n]. enough: bool [n], whether what shows of each is enough to be a label.
    """

    boxes_xyxy_px: NDArray[np.float64]
    class_ids: NDArray[np.int32]
    enough: NDArray[np.bool_]


def shown(pieces: Sequence[Piece], shape: tuple[int, int]) -> Shown:
    """What an image of `shape` (h, w) shows of the objects of pieces, at least one.

    The box of an object that has polygons is the box of what shows of them; that of another is around what
    shows of its box.
    """
    counts = [len(piece.sample.class_ids) for piece in pieces]
    boxes = np.concatenate([piece.sample.boxes_xyxy_px for piece in pieces]).astype(np.float64)
    parts = np.repeat([piece.part for piece in pieces], counts, axis=0)  # [n, 4]
    showing = np.clip(boxes, parts[:, [0, 1, 0, 1]], parts[:, [2, 3, 2, 3]])  # [n, 4] in source pixels
    warped = clip_boxes(warp_boxes(showing, np.repeat([piece.matrix for piece in pieces], counts, axis=0)), shape)
    least = np.full(len(boxes), MIN_AREA)
    polygons = joined([piece.sample.polygons for piece in pieces], counts)
    shows = np.all(warped[:, 2:] > warped[:, :2], axis=1)  # [n]
    visible = select(polygons, shows)
    if len(visible.owner):
        place = np.repeat(np.arange(len(pieces)), counts)[shows][visible.owner]
        regions = [visible_region(piece.part, piece.matrix, shape) for piece in pieces]
        with_polygons, exact = visible_boxes(visible, place, regions)
        with_polygons = np.flatnonzero(shows)[with_polygons]
        warped[with_polygons], least[with_polygons] = clip_boxes(exact, shape), MIN_AREA_POLYGON
    scales = np.repeat([piece.scale for piece in pieces], counts)
    class_ids = np.concatenate([piece.sample.class_ids for piece in pieces]).astype(np.int32)
    return Shown(warped, class_ids, still_labels(showing, warped, scales, least=least))


def shown_polygons(pieces: Sequence[Piece], shape: tuple[int, int], keep: NDArray[np.bool_]) -> Polygons:
    """What an image of `shape` (h, w) shows of the polygons of objects of pieces, in its pixels.

    keep: bool [n], of the objects of all pieces; the others are left out. A polygon that the border cuts into several
    parts stays one, with edges along the border.
    """
    objects: list[list[NDArray[np.float64]]] = []
    for piece in pieces:
        region = visible_region(piece.part, piece.matrix, shape)
        for index in range(len(piece.sample.class_ids)):
            polygons = of_object(piece.sample.polygons, index) if keep[len(objects)] else []
            objects.append([part for polygon in polygons if len(part := _visible(polygon, region)) > 2])
    return select(as_polygons(objects), keep)


def _visible(polygon: NDArray[np.floating], region: Region) -> Floats:
    """What shows of a polygon [corners, 2], in the pixels of the region's image."""
    corners = [(x, y) for x, y in polygon.tolist()]
    for side in region.sides.tolist():
        corners = _cut(corners, side)
    return warp_points(np.array(corners).T, region.matrix).T if corners else np.zeros((0, 2))


def cut_out(sample: Sample, index: int) -> Sample:
    """One object of a sample that has polygons: its box, class and polygons alone, in the same image."""
    chosen = np.arange(len(sample.class_ids)) == index
    return sample._replace(
        boxes_xyxy_px=sample.boxes_xyxy_px[chosen],
        class_ids=sample.class_ids[chosen],
        polygons=select(sample.polygons, chosen),
    )


Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]


class Region(NamedTuple):
    """What of a source image shows in another image: a convex part of it.

    matrix: [3, 3], from source pixels to the image's. sides: [s, 3]; a source point (x, y) shows where no row's product
    with (x, y, 1) is negative. corners_xy_px: [2, c] in source pixels, in order around it; none where nothing shows.
    """

    matrix: Matrix
    sides: Floats
    corners_xy_px: Floats


def visible_region(part: tuple[int, int, int, int], matrix: Matrix, shape: tuple[int, int]) -> Region:
    """What shows of a part (xyxy) of a source image in an image of `shape` (h, w) under a warp.

    It is found in the source, where the horizon of the warp is a line like any other and nothing is infinite.
    """
    across, down, depth = matrix.tolist()
    height, width = shape
    x0, y0, x1, y1 = map(float, part)
    borders: list[Sequence[float]] = []
    if across[1] == down[0] == depth[0] == depth[1] == 0 != across[0] * down[1]:  # a rectangle: half the work
        low, high = sorted((-across[2] / across[0], (width - across[2]) / across[0]))
        x0, x1 = max(x0, low), min(x1, high)
        low, high = sorted((-down[2] / down[1], (height - down[2]) / down[1]))
        y0, y1 = max(y0, low), min(y1, high)
    else:  # in homogeneous coordinates; what they hold lies before the horizon, since 0 <= x <= width · w
        beyond = [[width * w - x for x, w in zip(across, depth, strict=True)]]
        beyond += [[height * w - y for y, w in zip(down, depth, strict=True)]]
        borders = [across, down, *beyond]
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)] if x0 < x1 and y0 < y1 else []
    for border in borders:
        corners = _cut(corners, border)
    sides = np.array([(1, 0, -x0), (-1, 0, x1), (0, 1, -y0), (0, -1, y1), *borders])
    return Region(matrix, sides, np.array(corners, np.float64).reshape(-1, 2).T)


def warp_points(points: NDArray[np.floating], matrix: Matrix) -> Floats:
    """Points [2, n], x above y, under a warp; they must lie in front of its horizon."""
    x, y, w = matrix[:, :2] @ points + matrix[:, 2:]
    return np.stack([x / w, y / w])


def visible_boxes(polygons: Polygons, place: Ints, regions: Sequence[Region]) -> tuple[Ints, Floats]:
    """The smallest upright boxes around what shows of objects with polygons; zero where nothing does.

    What shows of a polygon is bounded by what shows of its edges, and by parts of the region's border, which end there
    or at corners of the region that lie in the polygon.

    Args:
        polygons: of objects in any number of source images, at least one.
        place: int [k], which of the regions each polygon is in, ascending.
        regions: what shows of each source image.

    Returns:
        int [m], the objects that have polygons, ascending; [m, 4] xyxy in pixels of the image of the regions.
    """
    owners, first_polygon = np.unique(polygons.owner, return_index=True)
    start = polygons.points_xy_px.T.astype(np.float64)  # [2, e], one edge a corner
    after = _edge_after(polygons.corners)  # [e]
    first_edge = (np.cumsum(polygons.corners) - polygons.corners)[first_polygon]
    place_of_edge = np.repeat(place, polygons.corners)
    sides, corners, matrices = _stacked(regions)
    along, down, from_origin = sides.take(place_of_edge, -1)  # unlike indexing, it keeps edges side by side in memory
    heights = along * start[0] + down * start[1] + from_origin  # [s, e]
    shares = _visible_shares(heights, heights.take(after, -1))  # [2, e]
    ends = start[:, None] + shares * (start.take(after, -1) - start)[:, None]  # [2, 2, e], x and y of beginning and end
    image = _warped(ends, matrices.take(place_of_edge, -1))  # [2, 2, e]
    low = np.fmin.reduceat(np.fmin(image[:, 0], image[:, 1]), first_edge, axis=1)  # [2, m]
    high = np.fmax.reduceat(np.fmax(image[:, 0], image[:, 1]), first_edge, axis=1)

    cut = np.flatnonzero(np.logical_or.reduceat((heights < 0).any(axis=0), first_edge))  # the others hold no corner
    if len(cut):
        where = place[first_polygon[cut]]
        spots = corners.take(where, -1)
        held = _holds(polygons, owners[cut], spots)  # [c, cut]
        image = np.where(held, _warped(spots, matrices.take(where, -1)), np.nan)
        low[:, cut] = np.fmin(low[:, cut], np.fmin.reduce(image, axis=1))
        high[:, cut] = np.fmax(high[:, cut], np.fmax.reduce(image, axis=1))
    return owners, np.nan_to_num(np.concatenate([low, high]).T)


def _stacked(regions: Sequence[Region]) -> tuple[Floats, Floats, Floats]:
    """Sides [3, s, r], corners [2, c, r], matrices [3, 3, r] of regions; 0 or NaN where one has fewer than another."""
    sides = np.zeros((3, max(len(each.sides) for each in regions), len(regions)))
    most = max(1, *(each.corners_xy_px.shape[1] for each in regions))
    corners = np.full((2, most, len(regions)), np.nan)
    for at, each in enumerate(regions):
        sides[:, : len(each.sides), at] = each.sides.T
        corners[:, : each.corners_xy_px.shape[1], at] = each.corners_xy_px
    return sides, corners, np.stack([each.matrix for each in regions], axis=-1)


def _warped(points: Floats, matrices: Floats) -> Floats:
    """Points [2, n, e], x above y, under a warp for each of the last axis [3, 3, e]."""
    x, y, w = (along * points[0] + down * points[1] + start for along, down, start in matrices)
    return np.stack([x / w, y / w])


def _edge_after(corners: Ints) -> Ints:
    """Which edge begins where each ends, [e], in polygons of so many corners."""
    last = np.cumsum(corners) - 1
    after = np.arange(1, int(corners.sum()) + 1)
    after[last] = last + 1 - corners
    return after


def _visible_shares(here: Floats, there: Floats) -> Floats:
    """From where to where edges lie in their region, as shares of their length, [2, e]; NaN where they do not.

    Of an edge that shows to its end, what is given may be its beginning alone: its end begins another.

    Args:
        here: [sides, e], how far inside each side of the region an edge begins (not negative: it is inside).
        there: where it ends.
    """
    beyond, beyond_after = here < 0, there < 0
    out, out_after = beyond.any(axis=0), beyond_after.any(axis=0)
    shares = np.where(out, np.nan, np.zeros((2, 1)))
    partly = np.flatnonzero((out | out_after) & ~(beyond & beyond_after).any(axis=0))
    here, there = here.take(partly, -1), there.take(partly, -1)
    crosses = (here < 0) != (there < 0)
    along = here / np.where(crosses, here - there, 1)
    low = np.where(crosses & (here < 0), along, 0).max(axis=0, initial=0)
    high = np.where(crosses & (there < 0), along, 1).min(axis=0, initial=1)
    shares[:, partly] = np.where(low <= high, [low, high], np.nan)
    return shares


def _holds(polygons: Polygons, owners: Ints, points: Floats) -> Bools:
    """Whether objects, given by their numbers [m], hold points, [c, m], by how many edges lie to the right of each.

    points: [2, c, m], of each object.
    """
    chosen = np.isin(polygons.owner, owners)
    corners, owner = polygons.corners[chosen], polygons.owner[chosen]
    x, y = polygons.points_xy_px[np.repeat(chosen, polygons.corners)].T.astype(np.float64)
    after = _edge_after(corners)
    right, level = np.repeat(points[..., np.searchsorted(owners, owner)], corners, axis=-1)
    slope = (x[after] - x) / np.where(y[after] == y, 1, y[after] - y)
    crossed = ((y > level) != (y[after] > level)) & (right < x + slope * (level - y))
    by_polygon = np.logical_xor.reduceat(crossed, np.cumsum(corners) - corners, axis=1)
    return np.logical_or.reduceat(by_polygon, np.searchsorted(owner, owners), axis=1)


def _cut(corners: list[tuple[float, float]], side: Sequence[float]) -> list[tuple[float, float]]:
    """The part of a convex polygon that lies on one side of a line (Sutherland and Hodgman, 1974)."""
    heights = [side[0] * x + side[1] * y + side[2] for x, y in corners]
    if not heights or min(heights) >= 0:
        return corners
    kept = []
    for at, ((x, y), height) in enumerate(zip(corners, heights, strict=True)):
        (from_x, from_y), before = corners[at - 1], heights[at - 1]
        if (height < 0) != (before < 0):
            share = before / (before - height)
            kept.append((from_x + share * (x - from_x), from_y + share * (y - from_y)))
        if height >= 0:
            kept.append((x, y))
    return kept
