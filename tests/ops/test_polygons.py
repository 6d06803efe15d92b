"""Outlines against lists of lists, one object and one polygon at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.ops.polygons import as_polygons, joined, of_object, scaled, select
from yolov7_jax.types import NO_POLYGONS, Polygons

Objects = list[list[list[tuple[float, float]]]]  # of each object the polygons, of each of those the corners

numbers = st.floats(-1000, 1000, width=32)
polygon = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=6)
some_objects = st.lists(st.lists(polygon, max_size=3), max_size=5)


def made(objects: Objects) -> Polygons:
    return as_polygons([[np.array(corners) for corners in polygons] for polygons in objects])


def as_lists(polygons: Polygons, count: int) -> Objects:
    """The definition, read corner by corner."""
    objects: Objects = [[] for _ in range(count)]
    at = 0
    for corners, owner in zip(polygons.corners.tolist(), polygons.owner.tolist(), strict=True):
        objects[owner].append([(x, y) for x, y in polygons.points_xy_px[at : at + corners].tolist()])
        at += corners
    assert at == len(polygons.points_xy_px)
    return objects


def check_form(polygons: Polygons) -> None:
    assert [array.dtype for array in polygons] == [np.float32, np.int32, np.int32]
    assert polygons.points_xy_px.shape == (polygons.corners.sum(), 2)
    assert polygons.owner.tolist() == sorted(polygons.owner.tolist())


@given(objects=some_objects)
def test_polygons_are_those_of_their_objects(objects: Objects):
    polygons = made(objects)
    check_form(polygons)
    assert as_lists(polygons, len(objects)) == objects
    for index, expected in enumerate(objects):
        assert [part.tolist() for part in of_object(polygons, index)] == [list(map(list, part)) for part in expected]


def test_nothing_has_the_form_of_something():
    for nothing in (as_polygons([]), as_polygons([[], []]), joined([], []), joined([NO_POLYGONS] * 2, [3, 0])):
        check_form(nothing)
        assert of_object(nothing, 0) == []


@given(data=st.data(), objects=some_objects)
def test_objects_that_are_kept_are_counted_anew(data: st.DataObject, objects: Objects):
    keep = data.draw(st.lists(st.booleans(), min_size=len(objects), max_size=len(objects)))
    kept = select(made(objects), np.array(keep, bool))
    check_form(kept)
    expected = [polygons for polygons, is_kept in zip(objects, keep, strict=True) if is_kept]
    assert as_lists(kept, len(expected)) == expected


@given(lists=st.lists(some_objects, max_size=4))
def test_lists_of_objects_one_after_another(lists: list[Objects]):
    together = joined([made(objects) for objects in lists], [len(objects) for objects in lists])
    check_form(together)
    expected = [polygons for objects in lists for polygons in objects]
    assert as_lists(together, len(expected)) == expected


@given(objects=some_objects)
def test_corners_move_with_the_size_of_their_image(objects: Objects):
    polygons = made(objects)
    larger = scaled(polygons, 2, 0.25)
    check_form(larger)
    # Powers of two: exact but where numbers come near the smallest of float32.
    expected = [[[(2 * x, 0.25 * y) for x, y in corners] for corners in parts] for parts in objects]
    for one, other in zip(as_lists(larger, len(objects)), expected, strict=True):
        for part, wanted in zip(one, other, strict=True):
            np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-44)
    assert as_lists(polygons, len(objects)) == objects
