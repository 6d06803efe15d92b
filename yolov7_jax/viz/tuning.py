"""Figure of a search for settings: scores over trials, what matters, scores over the settings that matter most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from yolov7_jax.viz.figures import FAINT, GRID, INK, new_figure, set_style

if TYPE_CHECKING:
    from yolov7_jax.viz.figures import Axes, Figure

SHOWN = 4
"""Settings that have a panel."""
_BARS = 12  # settings that have a bar


class TrialPoint(NamedTuple):
    """A trial that has a score. pruned: it ended early, so its score is that of fewer epochs."""

    number: int
    score: float
    pruned: bool
    settings: Mapping[str, Any]


def tuning_figure(
    trials: Sequence[TrialPoint], importances: Mapping[str, float], by_logarithm: Collection[str], measure: str
) -> Figure:
    """Scores over trials with the best so far, importances, and scores over the most important settings.

    Args:
        trials: in order of their numbers.
        importances: of settings, in fractions of 1, the largest first; empty if they are not known yet, then the panels
            are those of the first settings.
        by_logarithm: settings whose axis is logarithmic.
        measure: what a score is.
    """
    figure = new_figure(12, 7, layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    history, bars = above.subplots(1, 2)
    _draw_history(history, trials, measure)
    _draw_importances(bars, importances)
    shown = (list(importances) or (list(trials[0].settings) if trials else []))[:SHOWN]
    if shown:
        for key, axes in zip(shown, below.subplots(1, len(shown), sharey=True, squeeze=False)[0], strict=True):
            _draw_setting(axes, trials, key, logarithmic=key in by_logarithm)
        below.axes[0].set_ylabel(measure)
    return figure


def _draw_history(axes: Axes, trials: Sequence[TrialPoint], measure: str) -> None:
    set_style(axes, title="Scores and the best so far", xlabel="trial")
    axes.set_ylabel(measure)
    if not trials:
        _say(axes, "no trial is done yet")
        return
    _draw_points(axes, [trial.number for trial in trials], trials)
    complete = [trial for trial in trials if not trial.pruned]
    best = list(accumulate((trial.score for trial in complete), max))
    axes.step([trial.number for trial in complete], best, where="post", color=INK, linewidth=1.6, label="best so far")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.legend(loc="best", frameon=False)


def _draw_points(axes: Axes, places: Sequence[Any], trials: Sequence[TrialPoint]) -> None:
    """A dot for each complete trial, a ring for each pruned one."""
    for pruned, name, inside in ((False, "complete", FAINT), (True, "pruned", "none")):
        shown = [(place, trial.score) for place, trial in zip(places, trials, strict=True) if trial.pruned == pruned]
        if shown:
            x, y = zip(*shown, strict=True)
            axes.scatter(x, y, s=22, label=name, zorder=3, facecolors=inside, edgecolors=FAINT)


def _draw_importances(axes: Axes, importances: Mapping[str, float]) -> None:
    set_style(axes, title="Importance", xlabel="fraction")
    if not importances:
        _say(axes, "too few trials are complete")
        return
    shown = dict(list(importances.items())[:_BARS])
    axes.barh(range(len(shown)), list(shown.values()), color=FAINT)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlim(left=0)


def _draw_setting(axes: Axes, trials: Sequence[TrialPoint], key: str, *, logarithmic: bool) -> None:
    """Scores over the values of a setting; choices, which have no order, beside each other."""
    set_style(axes, title=key, xlabel="")
    values = [trial.settings[key] for trial in trials]
    if any(isinstance(value, bool | str) for value in values):
        names = sorted({str(value) for value in values})
        _draw_points(axes, [names.index(str(value)) for value in values], trials)
        axes.set_xticks(range(len(names)), names, parse_math=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        _draw_points(axes, values, trials)
        if logarithmic:
            axes.set_xscale("log")
    if complete := [trial for trial in trials if not trial.pruned]:
        top = complete[int(np.argmax([trial.score for trial in complete]))]
        axes.axhline(top.score, color=GRID, linewidth=1.2, zorder=1)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
