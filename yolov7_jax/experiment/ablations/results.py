"""Results of an ablation: a table as Markdown, CSV and a figure, with a verdict on each row."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from yolov7_jax.experiment.ablations.tables import AP, AblationRow, Size, Table
from yolov7_jax.viz.figures import FAINT, INK, new_figure, set_style

if TYPE_CHECKING:
    from yolov7_jax.viz.figures import Axes, Figure

Scores = Mapping[int, Mapping[str, float]]
"""Average precisions, fractions by name, of every seed that is finished."""

_PER_CENT = 100
CONFIDENCE = 0.95
"""Of the interval around a mean difference."""

RULE = (
    "Rows are compared with their base by AP, seed by seed: runs of one seed have one random key and see the same "
    "images in the same order with the same augmentation. A difference is called larger or smaller where the mean of "
    f"the seeds' differences is farther from 0 than its ±: Student's t for {CONFIDENCE:.0%} times its standard "
    "error; else it is not distinguishable. Each row is tested by itself: of twenty rows that do not "
    "differ, one would be called different."
)
_EXACT = (
    "An evaluation has no seeds: it gives the same numbers every time, and the differences are those of one network."
)


class Difference(NamedTuple):
    """How a row differs from its base, over the seeds that both have.

    mean: of the differences. margin: half the width of its confidence interval, None with fewer than two seeds.
    seeds: how many.
    """

    mean: float
    margin: float | None
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.margin is not None and abs(self.mean) > self.margin


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """The difference of values by seed, None where no seed is in both.

    Runs of one seed see the same images in the same order, so what they have in common cancels. The margin is the
    standard error of the mean difference times Student's t for one degree of freedom fewer than seeds.
    """
    shared = sorted(values.keys() & base.keys())
    if not shared:
        return None
    differences = [values[seed] - base[seed] for seed in shared]
    count = len(differences)
    if count < 2:
        return Difference(differences[0], None, count)
    from scipy import stats  # slow to import

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Difference(fmean(differences), quantile * stdev(differences) / math.sqrt(count), count)


@dataclass(frozen=True)
class RowResult:
    """A row of a table with what was found out about it.

    size: of its network at the paper's scale in inference form. trained: so of what is trained here, where that is
    another. scores: of the last evaluation of every seed's run that is finished.
    """

    row: AblationRow
    size: Size
    trained: Size | None = None
    scores: Scores = field(default_factory=dict)

    def values(self, measure: str) -> dict[int, float]:
        """A measure by seed, where there is something to find."""
        found = {seed: numbers[measure] for seed, numbers in self.scores.items()}
        return {seed: value for seed, value in sorted(found.items()) if not math.isnan(value)}


@dataclass(frozen=True)
class Results:
    """A table with its results.

    setting: what it was made with, in words. seeds: all that are wanted. signal: what stopped the runs, if anything.
    """

    table: Table
    rows: tuple[RowResult, ...]
    setting: str
    seeds: tuple[int, ...]
    signal: int | None = None

    def difference(self, result: RowResult) -> Difference | None:
        """How a row's AP differs from its base; None for a base, and where there is nothing to compare yet."""
        if not result.row.base:
            return None
        base = next(other for other in self.rows if other.row.name == result.row.base)
        return paired_difference(result.values(AP), base.values(AP))

    def verdict(self, result: RowResult) -> str:
        """The difference in words."""
        difference = self.difference(result)
        if difference is None:
            return "" if result.row.base else "base"
        change = f"{_PER_CENT * difference.mean:+.2f}"
        if not self.table.trains:
            return change
        if difference.margin is None:
            return f"{change}, one seed: no spread to hold it against"
        change += f" ± {_PER_CENT * difference.margin:.2f}"
        if not difference.distinguishable:
            return f"{change}, not distinguishable with {difference.seeds} seeds"
        return f"{change}, {'larger' if difference.mean > 0 else 'smaller'}"

    @property
    def heading(self) -> str:
        """Number, title and place of the table."""
        return f"Table {self.table.number}: {self.table.title} (YOLOv7, {self.table.section})"

    def columns(self, measures: Sequence[str]) -> list[list[str]]:
        """The cells of all rows, beginning with the headings: what is known before training, then what came of it."""
        compared = any(result.scores for result in self.rows)
        trained = any(result.trained for result in self.rows)
        head = ["row", "network", "parameters M", "GFLOPs"]
        head += ["M, as trained", "GFLOPs, as trained"] if trained else []
        head += [f"published {', '.join(measures)}"]
        head += [*measures, "seeds", "AP beside the base's"] if compared else []
        return [head, *(self._cells(result, measures, trained, compared) for result in self.rows)]

    def _cells(self, result: RowResult, measures: Sequence[str], trained: bool, compared: bool) -> list[str]:
        row = result.row
        cells = [row.name, row.network, *map(_beside, result.size, row.size or (None, None))]
        if trained:
            cells += [f"{number:.3f}" for number in result.trained or result.size]
        published = dict(zip(self.table.measures, row.precision, strict=True))
        cells += [" ".join(f"{published[measure]:.{self.table.decimals}f}" for measure in measures)]
        if compared:
            cells += [_spread_text(list(result.values(measure).values())) for measure in measures]
            cells += [f"{len(result.scores)} of {len(self.seeds)}", self.verdict(result)]
        return cells

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the table should know."""
        rule = RULE if self.table.trains else _EXACT
        return (self.setting, *self.table.notes, *((rule,) if any(result.scores for result in self.rows) else ()))


def _beside(ours: float, published: float | None) -> str:
    return f"{ours:.1f}" if published is None else f"{ours:.1f} ({published:.1f})"


def _spread_text(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    if not values:
        return ""
    middle = f"{_PER_CENT * fmean(values):.2f}"
    return middle if len(values) < 2 else f"{middle} ± {_PER_CENT * stdev(values):.2f}"


def markdown(results: Results) -> str:
    """The table with its remarks as a page of Markdown; AP in per cent, mean ± standard deviation of the seeds."""
    head, *rows = [[cell.replace("|", r"\|") for cell in cells] for cells in results.columns(results.table.measures)]
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n\n".join([f"# {results.heading}", "\n".join(lines), *results.remarks]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def csv_text(results: Results) -> str:
    """A line for every row and finished seed, AP as fractions, for programs; rows without any have a line too."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measures = results.table.measures
    sizes = ("parameters_m", "gflops")
    published = [f"paper_{key}" for key in (*sizes, *measures)]
    writer.writerow(["table", "row", "base", "network", "settings", *sizes, *published, "seed", *measures])
    for result in results.rows:
        row = result.row
        known = [results.table.number, row.name, row.base, row.network, " ".join(row.overrides)]
        known += [f"{number:.6f}" for number in result.size]
        known += [*(row.size or ("", "")), *(f"{value / _PER_CENT:.4f}" for value in row.precision)]
        if not result.scores:
            writer.writerow([*known, "", *("" for _ in measures)])
        for seed, numbers in sorted(result.scores.items()):
            writer.writerow([*known, seed, *(_number(numbers[measure]) for measure in measures)])
    return stream.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def figure(results: Results) -> Figure:
    """AP of every row: a dot for each seed, a bar at their mean; the base's mean is a thin line too."""
    drawn = [result for result in results.rows if result.values(AP)]
    drawing = new_figure(7.5, 1.6 + 0.55 * len(drawn))
    axes = drawing.add_subplot()
    set_style(
        axes,
        title=results.heading.replace(" (", "\n("),
        xlabel="AP in per cent; a dot for each seed, a bar at their mean",
    )
    for place, result in enumerate(drawn):
        _draw_row(axes, place, [_PER_CENT * value for value in result.values(AP).values()], base=not result.row.base)
    axes.set_yticks(range(len(drawn)), [result.row.name for result in drawn], parse_math=False)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    return drawing


def _draw_row(axes: Axes, place: int, values: Sequence[float], *, base: bool) -> None:
    middle = fmean(values)
    if base:
        axes.axvline(middle, color=FAINT, linewidth=1, zorder=1)
    axes.plot(values, [place] * len(values), "o", color=FAINT, markersize=6, zorder=2)
    axes.plot([middle, middle], [place - 0.25, place + 0.25], color=INK, linewidth=2.4, zorder=3)
