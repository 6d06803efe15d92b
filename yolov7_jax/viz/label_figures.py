"""Figures of what a labeled data set holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.curate.statistics import MEDIUM, SMALL, Statistics
from yolov7_jax.viz.figures import FAINT, GRID, INK, WARM, new_figure, set_style

if TYPE_CHECKING:
    from yolov7_jax.viz.figures import Axes, Figure

_LEVEL_COLORS = ("#d1602a", "#8a4fbf", "#2f9e62", "#c2388c", "#8c7a1f")
_MOST_BARS = 80  # of classes; more are shown from both ends
_MOST_WIDE_BARS = 60  # of images by objects; more share bars
_PIXEL_TICKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_MOST_LETTERS = 40  # of the name of a class


def label_figure(found: Statistics) -> Figure:
    """Six panels: sizes of boxes with the anchors, fit of the anchors, shapes, places, crowds, classes by rank."""
    figure = new_figure(15, 9.5, layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    drawers = (_draw_sizes, _draw_coverage, _draw_aspects, _draw_places, _draw_crowds, _draw_ranks)
    for axes, draw in zip(panels, drawers, strict=True):
        draw(axes, found)
    return figure


def class_figure(found: Statistics) -> Figure:
    """A bar for each class, the most common first; of many those that have objects, of very many both ends."""
    order = np.argsort(-np.array(found.class_objects), kind="stable")
    there = order[: np.count_nonzero(found.class_objects)]
    shown = order if len(order) <= _MOST_BARS else there
    title = f"Objects of {_classes(found)}"
    if len(shown) <= _MOST_BARS:
        figure = new_figure(9, 1.4 + 0.21 * len(shown), layout="constrained")
        _draw_classes(figure.subplots(), found, shown, title=title)
        return figure
    half = _MOST_BARS // 2
    figure = new_figure(15, 1.4 + 0.21 * half, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_classes(left, found, there[:half], title=f"{title}: the most common")
    _draw_classes(right, found, there[-half:], title="The rarest that have any")
    return figure


def _draw_sizes(axes: Axes, found: Statistics) -> None:
    set_style(axes, title=f"Boxes at {found.size} pixels, and anchors", xlabel="width in pixels")
    axes.set(ylabel="height in pixels", xscale="log", yscale="log")
    _draw_map(axes, np.array(found.sizes.counts), np.array(found.sizes.edges))
    for level, pairs in enumerate(found.anchors):
        width, height = np.array(pairs).T
        color = _LEVEL_COLORS[level % len(_LEVEL_COLORS)]
        axes.plot(width, height, "+", color=color, markersize=11, markeredgewidth=2.2, label=f"level {level + 1}")
    for side in (SMALL, MEDIUM):
        across = np.geomspace(1, found.size)
        label = f"{SMALL}² and {MEDIUM}² pixels" if side == SMALL else None
        axes.plot(across, side**2 / across, ":", color=INK, linewidth=0.9, label=label)
    axes.set(xlim=(1, found.size), ylim=(1, found.size))
    ticks = [tick for tick in _PIXEL_TICKS if tick <= found.size]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.legend(loc="lower right", frameon=False)


def _draw_coverage(axes: Axes, found: Statistics) -> None:
    set_style(axes, title="Boxes with an anchor near enough", xlabel="how many times larger or smaller the anchor is")
    cover = found.coverage
    recall = f"all anchors, {100 * found.anchor_fit.recall:.1f} % under {found.anchor_t:g}"
    axes.plot(cover.ratios, cover.all, color=INK, linewidth=2.6, label=recall)
    for level, curve in enumerate(cover.levels):
        color = _LEVEL_COLORS[level % len(_LEVEL_COLORS)]
        share = 100 * found.anchor_fit.level_recall[level]
        axes.plot(cover.ratios, curve, color=color, linewidth=1.4, label=f"level {level + 1}, {share:.1f} %")
    axes.axvline(found.anchor_t, color=INK, linewidth=0.9, linestyle=":")
    axes.set(xlim=(cover.ratios[0], cover.ratios[-1]), ylim=(0, 1.02), ylabel="fraction of boxes")
    axes.legend(loc="best", frameon=False)


def _draw_aspects(axes: Axes, found: Statistics) -> None:
    set_style(axes, title="Shapes of boxes", xlabel="width : height")
    edges = np.array(found.aspects.edges)
    axes.bar(edges[:-1], found.aspects.counts, width=np.diff(edges), align="edge", color=FAINT, edgecolor="white")
    ticks = range(round(edges[0]), round(edges[-1]) + 1)
    texts = [f"{2**tick}:1" if tick >= 0 else f"1:{2**-tick}" for tick in ticks]
    axes.set_xticks(ticks, [f"≤ {texts[0]}", *texts[1:-1], f"≥ {texts[-1]}"])
    axes.set(xlim=(edges[0], edges[-1]), ylabel="boxes")
    axes.locator_params(axis="y", integer=True)


def _draw_places(axes: Axes, found: Statistics) -> None:
    set_style(axes, title="Centers of boxes", xlabel="across the image")
    counts = np.array(found.places)
    _draw_map(axes, counts, np.linspace(0, 1, len(counts) + 1))
    axes.set(xlim=(0, 1), ylim=(1, 0), ylabel="down the image", aspect="equal")
    axes.grid(visible=False)


def _draw_crowds(axes: Axes, found: Statistics) -> None:
    counts = np.array(found.objects_of_images)
    mean = found.objects / found.images
    set_style(axes, title=f"Objects an image: {mean:.1f} in the mean, {len(counts) - 1} at most", xlabel="objects")
    together = -(-len(counts) // _MOST_WIDE_BARS)  # numbers that share a bar
    padded = np.pad(counts, (0, -len(counts) % together)).reshape(-1, together).sum(axis=1)
    starts = np.arange(len(padded)) * together - 0.5
    axes.bar(starts, padded, width=together, align="edge", color=FAINT, edgecolor="white", linewidth=0.5)
    axes.bar(starts[:1], counts[:1], width=1, align="edge", color=WARM, label=f"{counts[0]} without objects")
    axes.set(ylabel="images", xlim=(-0.75, max(starts[-1] + together + 0.5, 4.5)), ylim=(0, 1.18 * padded.max()))
    axes.locator_params(integer=True)
    axes.legend(loc="upper right", frameon=False)


def _draw_ranks(axes: Axes, found: Statistics) -> None:
    counts = np.sort(found.class_objects)[::-1]
    there = counts[counts > 0]
    set_style(axes, title=f"Objects of {_classes(found)}", xlabel="classes, the most common first")
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(there) <= _MOST_BARS else {}
    axes.plot(np.arange(1, len(there) + 1), there, color=INK, linewidth=1.6, **style)
    axes.set(yscale="log", ylabel="objects", xlim=(0.5, len(counts) + 0.5), ylim=(0.8, max(1.5 * there[0], 12)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)


def _draw_map(axes: Axes, counts: NDArray[np.int64], edges: NDArray[np.float64]) -> None:
    """Counts as shades of blue, white where there are none; roots keep single boxes visible beside crowds."""
    shown = np.where(counts > 0, np.sqrt(counts), np.nan)
    axes.pcolormesh(edges, edges, shown, cmap="Blues", vmin=-0.15 * np.sqrt(counts.max()), rasterized=True)


def _draw_classes(axes: Axes, found: Statistics, order: NDArray[np.int64], *, title: str) -> None:
    counts = [found.class_objects[k] for k in order]
    set_style(axes, title=title, xlabel="objects (images)")
    bars = axes.barh(range(len(order)), counts, color=FAINT, height=0.78)
    texts = [f"{found.class_objects[k]} ({found.class_images[k]})" for k in order]
    axes.bar_label(bars, texts, padding=3, color=INK, fontsize=8)
    # Names are text, not formulas: a $ in them means nothing.
    names = [_short(found.names[k]) for k in order]
    axes.set_yticks(range(len(order)), names, fontsize=9, parse_math=False)
    axes.set(ylim=(len(order) - 0.4, -0.6), xlim=(0, 1.18 * max(*counts, 1)))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(color=GRID, axis="x")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _classes(found: Statistics) -> str:
    """How many there are, and how many of them have no objects."""
    count, absent = len(found.names), found.class_objects.count(0)
    return f"{count} {'class' if count == 1 else 'classes'}" + (f", {absent} without any" if absent else "")
