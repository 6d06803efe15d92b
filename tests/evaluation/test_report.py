import io
import itertools
import json
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from yolov7_jax.evaluation.report import class_table, metrics_json, write_json
from yolov7_jax.types import ClassResult, CocoResult
from yolov7_jax.viz.evaluation_figures import confusion_figure, precision_recall_figure
from yolov7_jax.viz.figure import save_figure


def result_of(values: list[float], names: list[str] | None = None) -> CocoResult:
    """A result whose class k has a level curve at values[k]; NaN is a class without boxes."""
    names = names or [f"class {k}" for k in range(len(values))]
    per_class = tuple(ClassResult(n, v, v, 0 if math.isnan(v) else 4) for n, v in zip(names, values, strict=True))
    there = [value for value in values if not math.isnan(value)]
    mean = sum(there) / len(there) if there else math.nan
    twelve = [mean, mean, mean, math.nan, *[mean] * 8]
    return CocoResult(*twelve, per_class=per_class, precision=np.tile(np.array(values), (10, 101, 1)))


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


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


def test_table_of_classes():
    console = Console(file=io.StringIO(), width=60)
    console.print(class_table(result_of([0.25, math.nan], ["[red]cat[/red]", "dog"])))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines == [
        ["class", "boxes", "AP50", "AP"],
        ["all", "4", "0.250", "0.250"],
        ["[red]cat[/red]", "4", "0.250", "0.250"],
        ["dog", "0", "-", "-"],
    ]


def test_metrics_are_json_with_null_for_nothing_to_find(tmp_path: Path):
    settings = {"data": Path("data.yaml"), "size": (640, np.int64(640)), "iou": np.float32(0.5), "rect": True}
    metrics = metrics_json(result_of([0.25, math.nan], ["cat", "犬"]), speed={"network": 1.5}, settings=settings)
    write_json(tmp_path / "run" / "metrics.json", metrics)
    text = (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=pytest.fail)
    assert read == metrics
    assert "犬" in text
    assert (read["AP"], read["AP50"], read["AP_small"], read["AR_100"]) == (0.25, 0.25, None, 0.25)
    assert read["per_class"][1] == {"name": "犬", "AP": None, "AP50": None, "boxes": 0}
    assert read["speed_ms"] == {"network": 1.5}
    assert read["settings"] == {"data": "data.yaml", "size": [640, 640], "iou": 0.5, "rect": True}
    assert "precision" not in read


@pytest.mark.parametrize("rows", [[], [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [1, 2, 3, 4]}]])
def test_lists_are_written_with_a_row_on_each_line(tmp_path: Path, rows: list):
    write_json(tmp_path / "detections.json", rows)
    text = (tmp_path / "detections.json").read_text(encoding="utf-8")
    assert json.loads(text) == rows
    assert len(text.splitlines()) == max(len(rows), 1) + 2
