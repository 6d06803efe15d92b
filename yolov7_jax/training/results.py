"""results.csv of a run: a row for each epoch, from the rows of metrics.jsonl alone."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, NamedTuple

from yolov7_jax.training.log import NONFINITE, TRAIN, VAL, Row

FILE = "results.csv"

LOSSES = ("box", "obj", "cls", "total")
EVALUATION = (
    *(f"val_{name}" for name in LOSSES),
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    *("precision", "recall", "f1", "confidence"),
)
RATES = ("lr/weight", "lr/norm", "lr/bias")
COLUMNS = ("epoch", "step", *LOSSES, *EVALUATION, *RATES, "images_per_second", "waiting", "seconds")


def results_csv(rows: Sequence[Row]) -> str:
    """A line for each epoch with `COLUMNS`; empty is what is not known, such as of an epoch that was not evaluated.

    Losses are means over the steps of the epoch, or those so far, whose loss was finite; learning rates and seconds
    those of its last row; images a second and waiting over all of its steps.
    """
    parts: dict[int, list[_Part]] = {}
    for part in _parts(rows):
        parts.setdefault(part.row["epoch"], []).append(part)
    evaluations = {row["epoch"]: row for row in rows if row["kind"] == VAL}
    text = StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for epoch in sorted(parts.keys() | evaluations.keys()):
        evaluation = evaluations.get(epoch, {})
        found = {key: evaluation.get(key) for key in ("step", *EVALUATION)}
        table.writerow({"epoch": epoch, **found, **_training(parts.get(epoch, []))})
    return text.getvalue()


class _Part(NamedTuple):
    """A row of training, and the steps since the row before: all, and those whose loss was finite."""

    row: Row
    steps: int
    finite: int


def _parts(rows: Iterable[Row]) -> Iterator[_Part]:
    """Of rows of one step the last counts."""
    rows = list(rows)
    train = {row["step"]: row for row in rows if row["kind"] == TRAIN}
    skipped = sorted({row["step"] for row in rows if row["kind"] == NONFINITE})
    before = 0
    for step in sorted(train):
        lost = bisect_right(skipped, step) - bisect_right(skipped, before)
        yield _Part(train[step], step - before, step - before - lost)
        before = step


def _training(parts: Sequence[_Part]) -> dict[str, Any]:
    """What there is to say of the training of an epoch."""
    if not parts:
        return {}
    last = parts[-1].row
    values = {key: last.get(key) for key in ("step", *RATES, "seconds")}
    for key in LOSSES:
        values[key] = _mean((part.row.get(key), part.finite) for part in parts)
    timed = [part for part in parts if part.row.get("images_per_second")]
    spent = [part.steps / part.row["images_per_second"] for part in timed]  # in proportion to seconds
    values["images_per_second"] = sum(part.steps for part in timed) / sum(spent) if spent else None
    values["waiting"] = _mean((part.row.get("waiting"), share) for part, share in zip(timed, spent, strict=True))
    return values


def _mean(weighted: Iterable[tuple[float | None, float]]) -> float | None:
    """The mean of the values that are there, each with its weight."""
    there = [(value, weight) for value, weight in weighted if value is not None]
    total = sum(weight for _, weight in there)
    return sum(value * weight for value, weight in there) / total if total else None
