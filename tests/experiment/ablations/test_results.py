import csv
import io
from dataclasses import replace

import pytest

from yolov7_jax.experiment.ablations.results import Results, RowResult, csv_text, figure, markdown
from yolov7_jax.experiment.ablations.tables import AblationRow, Size, Table, tables

BASE = AblationRow("plain | base", "c", ("model.name=yolov7",), (51.2, 69.7, 55.5), Size(36.9, 104.7))
OTHER = AblationRow("other", "c", ("model.name=yolov7x", "loss.top_k=5"), (52.9, 71.1, 57.5), base=BASE.name)
TABLE = Table(42, "A title", "section 0", ("AP", "AP50", "AP75"), (BASE, OTHER), notes=("A note.",))
NAN = float("nan")


def numbers(*values: float) -> dict[int, dict[str, float]]:
    return {seed: {"AP": value, "AP50": value * 1.5, "AP75": NAN} for seed, value in enumerate(values)}


def results(base: dict, other: dict, table: Table = TABLE) -> Results:
    sizes = Size(36.905, 104.53), Size(71.33, 189.74)
    rows = [
        RowResult(row, size, None, scores) for row, size, scores in zip(table.rows, sizes, (base, other), strict=True)
    ]
    return Results(table, tuple(rows), "Made so.", (0, 1, 2))


def test_before_training_the_page_has_sizes_and_what_is_published() -> None:
    assert markdown(results({}, {})).splitlines() == [
        "# Table 42: A title (YOLOv7, section 0)",
        "",
        "| row | network | parameters M | GFLOPs | published AP, AP50, AP75 |",
        "| --- | --- | --- | --- | --- |",
        r"| plain \| base | yolov7 | 36.9 (36.9) | 104.5 (104.7) | 51.2 69.7 55.5 |",
        "| other | yolov7x | 71.3 | 189.7 | 52.9 71.1 57.5 |",
        "",
        "Made so.",
        "",
        "A note.",
    ]


@pytest.mark.parametrize(
    ("other", "cells"),
    [
        ((), ["", "", "", "0 of 3", ""]),
        ((0.32,), ["32.00", "48.00", "", "1 of 3", "+2.00, one seed: no spread to hold it against"]),
        # differences 0.02, 0.03, 0.04: deviation 0.01, ± 4.303 · 0.01 / √3 = 0.02484
        ((0.32, 0.43, 0.54), ["43.00 ± 11.00", "64.50 ± 16.50", "", "3 of 3", "+3.00 ± 2.48, larger"]),
        ((0.28, 0.37, 0.46), ["37.00 ± 9.00", "55.50 ± 13.50", "", "3 of 3", "-3.00 ± 2.48, smaller"]),
        ((0.31, 0.42, 0.53), ["42.00 ± 11.00", "63.00 ± 16.50", "", "3 of 3", None]),
    ],
)
def test_what_is_said_of_a_row(other: tuple[float, ...], cells: list[str | None]) -> None:
    page = results(numbers(0.30, 0.40, 0.50), numbers(*other))
    head, base, row = page.columns(TABLE.measures)
    assert head[-5:] == ["AP", "AP50", "AP75", "seeds", "AP beside the base's"]
    assert base[-2:] == ["3 of 3", "base"]
    # differences 0.01, 0.02, 0.03: the same deviation, and a mean of 0.02, within it
    expected = "+2.00 ± 2.48, not distinguishable with 3 seeds"
    assert row[-5:] == [expected if cell is None else cell for cell in cells]
    assert "not distinguishable" in markdown(page)  # the rule is told


def test_an_evaluation_has_no_seeds_to_speak_of() -> None:
    table = replace(tables()[10], rows=tables()[10].rows[:2])
    page = results({0: {"AP": 0.529}}, {0: {"AP": 0.5305}}, table)
    assert page.columns(table.measures)[2][-1] == "+0.15"
    assert "An evaluation has no seeds" in markdown(page)


def test_csv_has_a_line_for_every_seed() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(results(numbers(0.30, 0.40), {})))))
    assert [(row["row"], row["seed"], row["AP"], row["AP75"]) for row in rows] == [
        ("plain | base", "0", "0.300000", ""),
        ("plain | base", "1", "0.400000", ""),
        ("other", "", "", ""),
    ]
    assert rows[2]["settings"] == "model.name=yolov7x loss.top_k=5"
    assert rows[2]["paper_parameters_m"] == ""
    assert (rows[0]["parameters_m"], rows[0]["paper_gflops"], rows[0]["paper_AP"]) == ("36.905000", "104.7", "0.5120")


def test_the_figure_has_a_dot_for_every_seed_and_a_bar_for_every_mean() -> None:
    (axes,) = figure(results(numbers(0.30, 0.40), numbers(0.35))).axes
    dots = [list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "o"]
    bars = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() != "o"]
    assert dots == [pytest.approx([30, 40]), pytest.approx([35])]
    assert bars == pytest.approx([35, 35, 35])  # the base's, its line, and the other's
    assert [label.get_text() for label in axes.get_yticklabels()] == ["plain | base", "other"]
