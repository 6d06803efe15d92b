"""Curves of a training run, from the rows of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.viz.figure import FAINT, INK, new_figure, set_style

if TYPE_CHECKING:
    from yolov7_jax.viz.figure import Axes, Figure

LogRow = Mapping[str, Any]
Values = NDArray[np.float64]

LOSSES = {"box": "Box loss", "obj": "Objectness loss", "cls": "Class loss"}
PRECISIONS = ("AP50", "AP")
SMOOTHED_FROM = 100
"""Curves with so many points or more also get a line of moving means."""
_WINDOWS = 40  # moving means are over this part of a curve


def curves_figure(history: Sequence[LogRow]) -> Figure:
    """The three losses over iterations, and AP50 and AP over epochs; values that are not finite are gaps.

    Args:
        history: rows by `kind`: "train" with step, box, obj and cls; "val" with epoch, AP50 and AP (fractions). Of rows
            of one step the last counts: a run that was resumed repeats some.
    """
    figure = new_figure(10, 6.5, layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    train, val = _of_kind(history, "train"), _of_kind(history, "val")
    for axes, (key, title) in zip(panels, LOSSES.items(), strict=False):
        set_style(axes, title=title, xlabel="iteration")
        _draw_loss(axes, _values(train, "step"), _values(train, key))
    set_style(panels[-1], title="Average precision", xlabel="epoch")
    for key, color in zip(PRECISIONS, (INK, FAINT), strict=True):
        _draw_precision(panels[-1], _values(val, "epoch"), _values(val, key), name=key, color=color)
    for axes in panels:
        _finish(axes)
    return figure


def _draw_loss(axes: Axes, steps: Values, values: Values) -> None:
    if len(values) < SMOOTHED_FROM:
        _draw_line(axes, steps, values, color=INK, linewidth=1.4)
    else:
        _draw_line(axes, steps, values, color=FAINT, linewidth=0.6)
        axes.plot(steps, moving_mean(values, len(values) // _WINDOWS), color=INK, linewidth=1.6)


def _draw_precision(axes: Axes, epochs: Values, values: Values, *, name: str, color: str) -> None:
    axes.set_ylim(0, 1.02)
    if not np.isnan(values).all():
        label = f"{name}, best {np.nanmax(values):.3f}"
        _draw_line(axes, epochs, values, color=color, linewidth=1.8, label=label)
        axes.legend(loc="lower right", frameon=False)


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
