"""The door to matplotlib: figures of one look."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where used: it costs a second that other commands need not wait for
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#20262e", "#7aa6c2", "#e3e6ea"
_DOTS_PER_INCH = 150


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


def save_figure(figure: Figure, file: Path) -> None:
    """Writes a figure in the format of the file's ending; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, dpi=_DOTS_PER_INCH, bbox_inches="tight")
