"""Figures of one look (the door to matplotlib): of a training run from its log, and of an evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.files import write_atomically
from yolov7_jax.types import CONFIDENCES, RECALL_THRESHOLDS, CocoResult

if TYPE_CHECKING:  # imported where used: it costs a second that other commands need not wait for
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID, WARM = "#20262e", "#7aa6c2", "#e3e6ea", "#d1602a"
_DOTS_PER_INCH = 150

LogRow = Mapping[str, Any]
Values = NDArray[np.float64]

LOSSES = {"box": "Box loss", "obj": "Objectness loss", "cls": "Class loss"}
PRECISIONS = {"AP50": "AP50", "AP": "AP"}
AT_BEST_F1 = {"f1": "F1", "precision": "precision", "recall": "recall"}
RATES = {"lr/weight": "weights", "lr/norm": "normalization", "lr/bias": "biases"}
SMOOTHED_FROM = 100
"""Curves with so many points or more also get a line of moving means."""
_WINDOWS = 40  # moving means are over this part of a curve

_MOST_NAMED_CURVES = 10  # more classes than these get one faint color
_MOST_NUMBERED_CLASSES = 25  # more classes than these leave no room for numbers in the cells
_LEAST_SHOWN = 0.005  # smaller fractions would read 0.00


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of a size in inches, which no window and no global state knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def set_style(axes: Axes, *, title: str, xlabel: str) -> None:
    """Gives axes a title, a label and the look that all curves share."""
    axes.set_title(title, loc="left", color=INK)
    axes.set_xlabel(xlabel)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, file: Path, *, trim: bool = True) -> None:
    """Writes a figure in the format of the file's ending; folders are made.

    trim: leave as much margin as labels and legends need, which has the figure drawn twice.

    Raises:
        InputError: it cannot be written.
    """
    drawn = BytesIO()
    with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(
            drawn, format=file.suffix.removeprefix("."), dpi=_DOTS_PER_INCH, bbox_inches="tight" if trim else None
        )
    write_atomically(file, drawn.getvalue())


def curves_figure(history: Sequence[LogRow]) -> Figure:
    """Losses and learning rates over iterations; AP, precision, recall and F1 over epochs; not finite values are gaps.

    Args:
        history: rows by `kind`: "train" with step, box, obj, cls and lr/weight …; "val" with step, epoch, AP50, AP,
            precision, recall, f1 (fractions) and, if measured, val_box …. Of rows of one step the last counts: a run
            that was resumed repeats some.
    """
    figure = new_figure(15, 6.5)
    figure.subplots_adjust(left=0.04, right=0.99, top=0.95, bottom=0.08, hspace=0.35, wspace=0.15)
    panels = figure.subplots(2, 3).ravel()
    train, val = _of_kind(history, "train"), _of_kind(history, "val")
    for axes, (key, title) in zip(panels, LOSSES.items(), strict=False):
        set_style(axes, title=title, xlabel="iteration")
        _draw_loss(axes, _values(train, "step"), _values(train, key))
        _draw_named(axes, _values(val, "step"), val, {f"val_{key}": "validation"}, WARM)
    set_style(panels[3], title="Average precision", xlabel="epoch")
    _draw_precisions(panels[3], val, PRECISIONS)
    set_style(panels[4], title="At the confidence of the best F1", xlabel="epoch")
    _draw_precisions(panels[4], val, AT_BEST_F1)
    set_style(panels[5], title="Learning rates", xlabel="iteration")
    _draw_named(panels[5], _values(train, "step"), train, RATES, INK, FAINT, WARM)
    for axes in panels:
        _finish(axes)
    return figure


def _draw_precisions(axes: Axes, val: Sequence[LogRow], names: Mapping[str, str]) -> None:
    """Fractions over epochs, with the best of each."""
    axes.set_ylim(0, 1.02)
    labels = {key: f"{name}, best {np.nanmax(_values(val, key)):.3f}" for key, name in names.items() if _any(val, key)}
    _draw_named(axes, _values(val, "epoch"), val, labels, INK, FAINT, WARM, corner="lower right")


def _draw_named(
    axes: Axes,
    x: Values,
    rows: Sequence[LogRow],
    labels: Mapping[str, str],
    *colors: str,
    corner: Literal["upper right", "lower right"] = "upper right",
) -> None:
    """A line for each key that has values, and a legend."""
    for (key, label), color in zip(labels.items(), colors, strict=False):
        if _any(rows, key):
            _draw_line(axes, x, _values(rows, key), color=color, linewidth=1.8, label=label)
            axes.legend(loc=corner, frameon=False)


def _any(rows: Sequence[LogRow], key: str) -> bool:
    return not np.isnan(_values(rows, key)).all()


def _draw_loss(axes: Axes, steps: Values, values: Values) -> None:
    if len(values) < SMOOTHED_FROM:
        _draw_line(axes, steps, values, color=INK, linewidth=1.4)
    else:
        _draw_line(axes, steps, values, color=FAINT, linewidth=0.6)
        axes.plot(steps, moving_mean(values, len(values) // _WINDOWS), color=INK, linewidth=1.6)


def _finish(axes: Axes) -> None:
    """Whole numbers below, zero at the bottom; words where there is nothing to see."""
    if all(np.isnan(np.asarray(line.get_ydata())).all() for line in axes.get_lines()):
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", color=INK, transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylim(bottom=0)


def _draw_line(axes: Axes, x: Values, y: Values, **style: Any) -> None:
    """A line with gaps where values are missing, and a dot for each value between two gaps."""
    there = np.pad(~np.isnan(y), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    axes.plot(x, y, marker="o", markersize=4, markevery=np.flatnonzero(alone).tolist(), **style)


def moving_mean(values: Values, window: int) -> Values:
    """The mean of the values that are not NaN among up to `window` before each and as many after; NaN stays NaN."""
    there = ~np.isnan(values)
    sums, counts = (np.concatenate([[0], np.cumsum(part)]) for part in (np.where(there, values, 0), there))
    low = np.maximum(np.arange(len(values)) - window, 0)
    high = np.minimum(np.arange(len(values)) + window + 1, len(values))
    return np.where(there, (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1), np.nan)


def _of_kind(history: Sequence[LogRow], kind: str) -> list[LogRow]:
    """The rows of a kind by step, the last of each."""
    rows = {row["step"]: row for row in history if row["kind"] == kind}
    return [rows[step] for step in sorted(rows)]


def _values(rows: Sequence[LogRow], key: str) -> Values:
    """The finite values of a key; NaN where there is none."""
    numbers = (row.get(key) for row in rows)
    return np.array([math.nan if value is None or not math.isfinite(value) else value for value in numbers], np.float64)


def precision_recall_figure(result: CocoResult) -> Figure:
    """Precision over recall at IoU 0.50: a thin line for each class that has boxes, a thick one for their mean."""
    figure = new_figure(7, 5.5)
    axes = figure.add_subplot()
    set_style(axes, title="Precision and recall at IoU 0.50", xlabel="recall")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="precision")
    if shown := _with_boxes(axes, result):
        curves = result.precision_over_recall[0][:, shown]  # [R, classes shown], at IoU 0.50
        names = [result.per_class[k].name for k in shown]
        AP50 = [result.AP50, *(result.per_class[k].AP50 for k in shown)]
        _draw_curves(axes, RECALL_THRESHOLDS, curves, names, [f"  {value:.3f}" for value in AP50])
        _draw_legend(axes, title="AP50")
    return figure


def confidence_figure(result: CocoResult) -> Figure:
    """F1, precision and recall at IoU 0.50 over the confidence, classes and their mean; a line where F1 is best."""
    figure = new_figure(15, 4.8)
    panels = figure.subplots(1, 3)
    best = f"best mean F1 {result.f1:.2f} at {result.confidence:.3f}"
    for axes, name, kind in zip(panels, (best, "Precision", "Recall"), (2, 0, 1), strict=True):
        set_style(axes, title=name, xlabel="confidence")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        if shown := _with_boxes(axes, result):
            names = [result.per_class[k].name for k in shown]
            _draw_curves(axes, CONFIDENCES, result.by_confidence[kind][:, shown], names, [""] * (len(shown) + 1))
            axes.axvline(result.confidence, color=INK, linewidth=0.9, linestyle=":")
    if shown:
        _draw_legend(panels[-1])
    return figure


def _with_boxes(axes: Axes, result: CocoResult) -> list[int]:
    """The classes that have boxes; words if none has."""
    shown = [k for k, row in enumerate(result.per_class) if not math.isnan(row.AP50)]
    if not shown:
        axes.text(0.5, 0.5, "the ground truth has no boxes", ha="center", va="center", color=INK)
    return shown


def _draw_curves(axes: Axes, x: Values, curves: Values, names: Sequence[str], numbers: Sequence[str]) -> None:
    """A thin line for each class, a thick one for their mean. curves: [x, classes]. numbers: of the mean, of each."""
    first = _plain_text(names[0]) if len(names) == 1 else f"all {len(names)} classes"
    axes.plot(x, curves.mean(axis=1), linewidth=2.8, color=INK, label=f"{first}{numbers[0]}", zorder=3)
    if len(names) > _MOST_NAMED_CURVES:
        axes.plot(x, curves, linewidth=0.7, color=FAINT, alpha=0.5)
        axes.plot([], [], linewidth=0.7, color=FAINT, label="one class")
    elif len(names) > 1:
        for curve, name, number in zip(curves.T, names, numbers[1:], strict=True):
            axes.plot(x, curve, linewidth=1.3, label=f"{_plain_text(name)}{number}")


def _draw_legend(axes: Axes, **options: Any) -> None:
    """Beside the curves, which may go anywhere."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, alignment="left", **options)


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The confusion matrix [C + 1, C + 1] in fractions of each column: of all objects of a class, detected as what.

    The last row is what was missed, the last column which classes were detected where there was nothing.
    """
    count = len(matrix)
    fractions = np.where(matrix > 0, matrix / np.maximum(matrix.sum(axis=0), 1), np.nan)
    side = float(np.clip(2 + 0.17 * count, 4.5, 26))  # inches
    cell = 72 * side / count  # points
    figure = new_figure(side, side)
    axes = figure.add_axes((0, 0, 1, 1))
    shown = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    large = float(np.clip(2 * side, 10, 24))
    axes.set_title("Confusion of classes, in fractions of each true class", loc="left", color=INK, fontsize=large)
    axes.set_xlabel("true class", fontsize=large)
    axes.set_ylabel("detected class", fontsize=large)
    axes.spines[:].set_color(GRID)
    _label_classes(axes, [*names, "background"], letter_size=float(np.clip(0.7 * cell, 4, 10)))
    if count <= _MOST_NUMBERED_CLASSES + 1:
        _write_cells(axes, fractions, letter_size=float(np.clip(cell / 3, 5, 10)))
    else:
        figure.colorbar(shown, cax=axes.inset_axes((1.02, 0, 0.015, 0.3))).ax.tick_params(labelsize=0.7 * large)
    return figure


def _label_classes(axes: Axes, names: list[str], *, letter_size: float) -> None:
    positions = range(len(names))
    # Names are text, not formulas: a $ in them means nothing.
    axes.set_xticks(positions, names, rotation=90, fontsize=letter_size, parse_math=False)
    axes.set_yticks(positions, names, fontsize=letter_size, parse_math=False)
    axes.tick_params(length=0)
    edges, end = np.arange(0.5, len(names) - 1), len(names) - 0.5
    style: dict[str, Any] = {"color": GRID, "linewidth": min(0.8, letter_size / 12)}
    axes.hlines(edges, -0.5, end, **style)
    axes.vlines(edges, -0.5, end, **style)


def _write_cells(axes: Axes, fractions: NDArray[np.float64], *, letter_size: float) -> None:
    for row, column in np.argwhere(fractions >= _LEAST_SHOWN):
        value = fractions[row, column]
        color = "white" if value > 0.5 else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=letter_size)


def _plain_text(name: str) -> str:
    return name.replace("$", r"\$")
