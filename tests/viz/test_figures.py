import dataclasses
import itertools
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from yolov7_jax.types import CONFIDENCES, ClassResult, CocoResult
from yolov7_jax.viz.figures import (
    LOSSES,
    SMOOTHED_FROM,
    confidence_figure,
    confusion_figure,
    curves_figure,
    moving_mean,
    precision_recall_figure,
    save_figure,
)


def train_row(step: int, **losses: float | None) -> dict:
    return {"kind": "train", "step": step, "epoch": step // 10, "box": 0.1, "obj": 0.2, "cls": 0.3} | losses


def val_row(epoch: int, **precisions: float | None) -> dict:
    return {"kind": "val", "step": 10 * epoch + 9, "epoch": epoch, "AP": 0.4, "AP50": 0.6} | precisions


def lines_of(figure, panel: int) -> list[tuple[list[float], list[float]]]:
    return [tuple(np.asarray(data).tolist() for data in line.get_data()) for line in figure.axes[panel].get_lines()]


def words_of(figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_lines_are_the_history():
    rng = np.random.default_rng(0)
    losses = rng.random((30, 3)).tolist()
    history = [train_row(step, **dict(zip(LOSSES, row, strict=True))) for step, row in enumerate(losses)]
    history[10:10] = [val_row(0, AP=0.1, AP50=0.3)]
    history += [val_row(1, AP=0.2, AP50=0.5), val_row(2, AP=0.15, AP50=0.45)]
    figure = curves_figure(history)
    for panel, values in enumerate(zip(*losses, strict=True)):
        assert lines_of(figure, panel) == [(list(range(30)), list(values))]
    assert lines_of(figure, 3) == [([0, 1, 2], [0.3, 0.5, 0.45]), ([0, 1, 2], [0.1, 0.2, 0.15])]
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == list(LOSSES.values())
    legend = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert legend == ["AP50, best 0.500", "AP, best 0.200"]
    assert words_of(figure) == [[], [], [], [], ["no values yet"], ["no values yet"]]


def test_what_is_not_finite_is_a_gap():
    history = [
        train_row(0),
        train_row(1, box=None),
        train_row(2),
        train_row(3, box=math.inf),
        train_row(4, box=math.nan),
    ]
    history += [train_row(5, box=0.7), {"kind": "train", "step": 6, "epoch": 0}, val_row(0, AP=None)]
    figure = curves_figure(history)
    ((steps, losses),) = lines_of(figure, 0)
    assert steps == list(range(7))
    np.testing.assert_array_equal(losses, [0.1, math.nan, 0.1, math.nan, math.nan, 0.7, math.nan])
    assert figure.axes[0].get_lines()[0].get_markevery() == [0, 2, 5]  # between gaps a line alone would not be seen
    assert lines_of(figure, 3) == [([0], [0.6])]


@pytest.mark.parametrize("count", [0, 1, 2, 10_000])
def test_any_length_is_drawn(count: int, tmp_path: Path):
    history = [row for step in range(count) for row in (train_row(step), val_row(step))]
    figure = curves_figure(history)
    save_figure(figure, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 500
    for panel in range(4):
        lines = lines_of(figure, panel)
        assert all(len(x) == count for x, _ in lines)
        assert words_of(figure)[panel] == ([] if count else ["no values yet"])
    if count:
        ticks = [tick for tick in figure.axes[0].get_xticks() if 0 <= tick < count]
        assert len(ticks) <= 12
        assert all(tick == round(tick) for tick in ticks)
        assert figure.axes[0].get_ylim()[0] == 0


def test_long_curves_also_get_their_mean():
    values = np.random.default_rng(0).random(SMOOTHED_FROM).tolist()
    figure = curves_figure([train_row(step, box=value) for step, value in enumerate(values)])
    (_, raw), (steps, mean) = lines_of(figure, 0)
    assert raw == values
    assert steps == list(range(SMOOTHED_FROM))
    assert np.std(mean) < 0.6 * np.std(values)


def test_of_steps_that_a_resumed_run_repeats_the_last_count():
    history = [train_row(step, box=0.5) for step in range(4)] + [train_row(step, box=0.25) for step in (2, 3, 4)]
    history += [val_row(1, AP50=0.2), val_row(0, AP50=0.1), val_row(1, AP50=0.3)]
    figure = curves_figure(history)
    assert lines_of(figure, 0) == [([0, 1, 2, 3, 4], [0.5, 0.5, 0.25, 0.25, 0.25])]
    assert lines_of(figure, 3)[0] == ([0, 1], [0.1, 0.3])


@given(st.lists(st.floats(0, 100) | st.just(math.nan), max_size=30), st.integers(0, 12))
def test_moving_mean_is_the_mean_of_what_is_there(values: list[float], window: int):
    def mean_around(place: int) -> float:
        near = [value for value in values[max(place - window, 0) : place + window + 1] if not math.isnan(value)]
        return math.nan if math.isnan(values[place]) else math.fsum(near) / len(near)

    expected = [mean_around(place) for place in range(len(values))]
    # Differences of sums of at most 3000 in double precision.
    np.testing.assert_allclose(moving_mean(np.array(values, float), window), expected, rtol=0, atol=1e-11)


def result_of(values: list[float], names: list[str] | None = None) -> CocoResult:
    """A result whose class k has a level curve at values[k]; NaN is a class without boxes."""
    names = names or [f"class {k}" for k in range(len(values))]
    per_class = tuple(ClassResult(n, v, v, 0 if math.isnan(v) else 4) for n, v in zip(names, values, strict=True))
    there = [value for value in values if not math.isnan(value)]
    mean = sum(there) / len(there) if there else math.nan
    twelve = [mean, mean, mean, math.nan, *[mean] * 8]
    return CocoResult(
        *twelve,
        *[0.5] * 4,
        per_class=per_class,
        precision_over_recall=np.tile(np.array(values), (10, 101, 1)),
        by_confidence=np.tile(np.array(values), (3, len(CONFIDENCES), 1)),
    )


def legend_of(figure, panel: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_legend().get_texts()]


def test_losses_of_both_images_rates_and_what_is_at_the_best_f1():
    rates = {"lr/weight": 0.01, "lr/norm": 0.02, "lr/bias": 0.1}
    history = [train_row(step, **rates) for step in range(20)]
    history += [val_row(e, val_box=0.3 - e / 10, f1=0.1 * e, precision=0.2 * e, recall=None) for e in range(3)]
    figure = curves_figure(history)
    assert lines_of(figure, 0)[1] == ([9, 19, 29], pytest.approx([0.3, 0.2, 0.1]))
    assert [len(lines_of(figure, panel)) for panel in range(6)] == [2, 1, 1, 2, 2, 3]
    assert legend_of(figure, 0) == ["validation"]
    assert legend_of(figure, 4) == ["F1, best 0.200", "precision, best 0.400"]
    assert legend_of(figure, 5) == ["weights", "normalization", "biases"]
    assert [lines_of(figure, 5)[n][1][0] for n in range(3)] == [0.01, 0.02, 0.1]


def test_curves_over_the_confidence():
    result = result_of([0.2, math.nan, 0.6])
    figure = confidence_figure(dataclasses.replace(result, f1=0.61, confidence=0.333))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["best mean F1 0.61 at 0.333", "Precision", "Recall"]
    for axes in figure.axes:
        mean, first, second, best = axes.get_lines()
        assert [line.get_ydata()[0] for line in (mean, first, second)] == pytest.approx([0.4, 0.2, 0.6])
        assert best.get_xdata() == [0.333, 0.333]
    assert legend_of(figure, 2) == ["all 2 classes", "class 0", "class 2"]
    assert words_of(confidence_figure(result_of([math.nan]))) == [["the ground truth has no boxes"]] * 3


def test_panels_over_the_confidence_are_f1_precision_and_recall():
    curves = np.stack([np.full((len(CONFIDENCES), 1), value) for value in (0.7, 0.5, 0.6)])
    figure = confidence_figure(dataclasses.replace(result_of([0.5]), by_confidence=curves))
    assert [axes.get_lines()[0].get_ydata()[0] for axes in figure.axes] == [0.6, 0.7, 0.5]


def test_a_curve_for_each_class_with_boxes_and_one_for_all():
    figure = precision_recall_figure(result_of([0.2, math.nan, 0.6]))
    lines = figure.axes[0].get_lines()
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([0.4, 0.2, 0.6])
    assert lines[0].get_linewidth() > 2 * lines[1].get_linewidth()
    assert legend_of(figure) == ["all 2 classes  0.400", "class 0  0.200", "class 2  0.600"]


def test_one_class_has_one_curve():
    assert legend_of(precision_recall_figure(result_of([0.25, math.nan]))) == ["class 0  0.250"]


def test_many_classes_share_one_line_of_the_legend():
    figure = precision_recall_figure(result_of([0.5] * 80))
    assert legend_of(figure) == ["all 80 classes  0.500", "one class"]
    assert len(figure.axes[0].get_lines()) == 82


def test_no_boxes_at_all_is_said_in_the_figure():
    figure = precision_recall_figure(result_of([math.nan, math.nan]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["the ground truth has no boxes"]


def test_confusion_is_in_fractions_of_columns():
    matrix = np.array([[3, 0, 2], [1, 0, 2], [0, 0, 0]])
    figure = confusion_figure(matrix, ["cat", "dog"])
    shown = figure.axes[0].get_images()[0].get_array().filled(-1)
    np.testing.assert_array_equal(shown, [[0.75, -1, 0.5], [0.25, -1, 0.5], [-1, -1, -1]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.75", "0.50", "0.25", "0.50"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["cat", "dog", "background"]
    assert figure.axes[0].get_ylabel() == "detected class"


@pytest.mark.parametrize("count", [1, 7, 80, 300])
def test_names_of_classes_keep_apart(count: int):
    figure = confusion_figure(np.eye(count + 1, dtype=np.int64), [f"class {k}" for k in range(count)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


@pytest.mark.parametrize("names", [["$x", "a$b$"], ["猫", "собака"], ["a_{", "$\\frac$"]])
def test_any_name_can_be_drawn(names: list[str], tmp_path: Path):
    save_figure(precision_recall_figure(result_of([0.5, 0.5], names)), tmp_path / "new" / "curves.png")
    save_figure(confusion_figure(np.eye(3, dtype=np.int64), names), tmp_path / "new" / "confusion.png")
    with Image.open(tmp_path / "new" / "confusion.png") as picture:
        assert min(picture.size) > 400


def test_global_settings_of_matplotlib_stay(tmp_path: Path):
    before = dict(matplotlib.rcParams)
    save_figure(confusion_figure(np.eye(3, dtype=np.int64), ["a", "b"]), tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before
