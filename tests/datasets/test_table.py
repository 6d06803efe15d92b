"""Labels of many images in few arrays, against the labels themselves."""

import io
import pickle
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.datasets.table import LabelTable
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Issue, Labels

small = st.integers(0, 5)
numbers = st.floats(-10, 10, width=32)


@st.composite
def labels(draw: st.DrawFn) -> Labels:
    count, ignored = draw(small), draw(small)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    outlines = [[rng.random((int(rng.integers(3, 6)), 2)) for _ in range(rng.integers(0, 3))] for _ in range(count)]
    text = st.text(max_size=4)
    return Labels(
        size=(draw(small), draw(small)),
        class_ids=rng.integers(0, 9, count, np.int32),
        boxes_xyxy_px=rng.normal(size=(count, 4)),
        polygons=as_polygons(outlines),
        ignored_class_ids=rng.integers(0, 9, ignored, np.int32),
        ignored_boxes_xyxy_px=rng.normal(size=(ignored, 4)),
        duplicates=draw(small),
        empty=draw(small),
        unlisted=draw(small),
        issues=tuple(draw(st.lists(st.builds(Issue, st.sampled_from(["error", "warning"]), text, text), max_size=2))),
        missing=draw(st.booleans()),
    )


def assert_same(one: Labels, other: Labels) -> None:
    for field in fields(Labels):
        value, expected = getattr(one, field.name), getattr(other, field.name)
        if field.name == "polygons":
            for array, wanted in zip(value, expected, strict=True):
                np.testing.assert_array_equal(array, wanted, strict=True)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected, strict=True)
        else:
            assert (value, type(value)) == (expected, type(expected))


def through_a_file(table: LabelTable) -> LabelTable:
    file = io.BytesIO()
    np.savez(file, **table.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return LabelTable.from_arrays(dict(arrays))


@pytest.mark.parametrize("copied", [lambda table: table, through_a_file, lambda it: pickle.loads(pickle.dumps(it))])
@given(rows=st.lists(labels(), max_size=4))
def test_labels_come_back(copied: Callable[[LabelTable], LabelTable], rows: list[Labels]):
    table = copied(LabelTable.of(rows))
    assert len(table) == len(rows)
    for index in range(-len(rows), len(rows)):
        assert_same(table.labels(index), rows[index])
    for beyond in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            table.labels(beyond)


@given(data=st.data(), rows=st.lists(labels(), min_size=1, max_size=4))
def test_a_subset_is_these_images(data: st.DataObject, rows: list[Labels]):
    indices = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=6))
    part = through_a_file(LabelTable.of(rows).subset(indices))
    assert len(part) == len(indices)
    for place, index in enumerate(indices):
        assert_same(part.labels(place), rows[index])
