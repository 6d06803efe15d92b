"""Figures of an evaluation: precision over recall, the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.types import RECALL_THRESHOLDS, CocoResult
from yolov7_jax.viz.figure import FAINT, GRID, INK, new_figure, set_style

if TYPE_CHECKING:
    from yolov7_jax.viz.figure import Axes, Figure

_MOST_NAMED_CURVES = 10  # more classes than these get one faint color
_MOST_NUMBERED_CLASSES = 25  # more classes than these leave no room for numbers in the cells
_LEAST_SHOWN = 0.005  # smaller fractions would read 0.00


def precision_recall_figure(result: CocoResult) -> Figure:
    """Precision over recall at IoU 0.50: a thin line for each class that has boxes, a thick one for their mean."""
    figure = new_figure(7, 5.5)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="precision")
    set_style(axes, title="Precision and recall at IoU 0.50", xlabel="recall")
    shown = [k for k, row in enumerate(result.per_class) if not math.isnan(row.AP50)]
    if not shown:
        axes.text(0.5, 0.5, "the ground truth has no boxes", ha="center", va="center", color=INK)
        return figure
    _draw_curves(axes, result, shown)
    return figure


def _draw_curves(axes: Axes, result: CocoResult, shown: list[int]) -> None:
    curves = result.precision[0][:, shown]  # at IoU 0.50: recalls x classes
    first = _plain_text(result.per_class[shown[0]].name)
    label = f"{first if len(shown) == 1 else f'all {len(shown)} classes'}  {result.AP50:.3f}"
    axes.plot(RECALL_THRESHOLDS, curves.mean(axis=1), linewidth=2.8, color=INK, label=label, zorder=3)
    if len(shown) > _MOST_NAMED_CURVES:
        axes.plot(RECALL_THRESHOLDS, curves, linewidth=0.7, color=FAINT, alpha=0.5)
        axes.plot([], [], linewidth=0.7, color=FAINT, label="one class")
    elif len(shown) > 1:
        for curve, k in zip(curves.T, shown, strict=True):
            row = result.per_class[k]
            axes.plot(RECALL_THRESHOLDS, curve, linewidth=1.3, label=f"{_plain_text(row.name)}  {row.AP50:.3f}")
    # Beside the curves, which may go anywhere.
    axes.legend(title="AP50", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, alignment="left")


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
