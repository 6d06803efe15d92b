import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from yolov7_jax.datasets.curate.statistics import Objects, Statistics, statistics
from yolov7_jax.graph.zoo.anchors import P6, YOLOV3
from yolov7_jax.viz.figures import save_figure
from yolov7_jax.viz.label_figures import class_figure, label_figure

SIZES, COVERAGE, SHAPES, PLACES, CROWDS, RANKS = range(6)


def counted(class_ids: list[int], names: list[str], *, size: int = 640, anchors: tuple = YOLOV3) -> Statistics:
    """Boxes of 64 × 32 pixels and more, three an image; one image has none."""
    n = len(class_ids)
    left_top = np.linspace(0, 300, n)[:, None].repeat(2, axis=1)
    boxes = np.concatenate([left_top, left_top + np.linspace(1, 4, n)[:, None] * (64, 32)], axis=1)
    image = np.arange(n) // 3
    return statistics(
        Objects(image, np.array(class_ids, np.int32), boxes, np.full((image[-1] + 2, 2), 640)),
        names,
        size=size,
        anchors=anchors,
    )


def names_of(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def bars_of(axes: object) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def test_boxes_and_anchors_are_where_their_sizes_are() -> None:
    axes = label_figure(counted([0] * 7, ["ant"])).axes[SIZES]
    crosses = [np.array(line.get_data()).T.tolist() for line in axes.get_lines()[:3]]
    assert crosses == [[list(pair) for pair in level] for level in YOLOV3]
    (mesh,) = axes.collections
    columns = mesh.get_coordinates()[0, :, 0]
    rows, widths = np.nonzero(~np.ma.getmaskarray(mesh.get_array()))
    assert columns[widths.min()] <= 64 < columns[widths.min() + 1]
    assert columns[rows.min()] <= 32 < columns[rows.min() + 1]
    assert columns[widths.max()] <= 256 <= columns[widths.max() + 1]


def test_recall_is_written_beside_its_curve() -> None:
    found = counted([0] * 7, ["ant"], anchors=P6, size=1280)
    axes = label_figure(found).axes[COVERAGE]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0] == f"all anchors, {100 * found.anchor_fit.recall:.1f} % under 4"
    assert len(texts) == 5
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), found.coverage.all)


def test_images_by_their_number_of_objects() -> None:
    axes = label_figure(counted([0] * 7, ["ant"])).axes[CROWDS]
    assert axes.get_title(loc="left") == "Objects an image: 1.8 in the mean, 3 at most"
    assert [bar.get_height() for bar in axes.patches] == [1, 1, 0, 2, 1]  # none, 1, 2, 3; then none once more
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1 without objects"]


def test_numbers_of_objects_share_bars_where_they_are_many() -> None:
    found = statistics(
        Objects(np.zeros(500, int), np.zeros(500, np.int32), np.tile([1.0, 1, 9, 9], (500, 1)), np.array([[10, 10]])),
        ["ant"],
        size=640,
        anchors=YOLOV3,
    )
    *bars, _ = label_figure(found).axes[CROWDS].patches
    assert len(bars) <= 60
    (full,) = [bar for bar in bars if bar.get_height()]
    assert full.get_x() < 500 < full.get_x() + full.get_width()


def test_all_of_few_classes_are_named_the_most_common_first() -> None:
    axes = class_figure(counted([2, 0, 2, 2, 0], ["$x", "b", "c_{"])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c_{", "$x", "b"]
    assert bars_of(axes) == [3, 2, 0]
    assert [text.get_text() for text in axes.texts] == ["3 (2)", "2 (2)", "0 (0)"]
    assert axes.get_title(loc="left") == "Objects of 3 classes, 1 without any"


def test_of_very_many_classes_both_ends_are_shown() -> None:
    ids = [k for k in range(300) for _ in range(300 - k)]
    left, right = class_figure(counted(ids, names_of(1000))).axes
    assert bars_of(left) == list(range(300, 260, -1))
    assert bars_of(right) == list(range(40, 0, -1))
    assert right.get_yticklabels()[-1].get_text() == "class 299"
    assert left.get_title(loc="left") == "Objects of 1000 classes, 700 without any: the most common"


def test_of_many_classes_those_with_objects_are_shown() -> None:
    (axes,) = class_figure(counted([0, 500, 500], names_of(1000))).axes
    assert bars_of(axes) == [2, 1]


@pytest.mark.parametrize("count", [1, 2, 80, 81, 1000])
def test_names_of_classes_keep_apart(count: int) -> None:
    figure = class_figure(counted(list(range(count)), names_of(count)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_any_number_of_classes_can_be_drawn(count: int, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    found = counted(list(range(count)), ["猫 $\\frac$"] * count)
    save_figure(label_figure(found), tmp_path / "labels.png")
    save_figure(class_figure(found), tmp_path / "classes.png")
    with Image.open(tmp_path / "labels.png") as picture:
        assert min(picture.size) > 1000
    assert dict(matplotlib.rcParams) == before
