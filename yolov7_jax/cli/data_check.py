"""`yolov7-jax data check DATA`."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import add_data_sets, add_new_data, new_data_options, tell_written

if TYPE_CHECKING:
    from rich.table import Table

    from yolov7_jax.datasets.curate.check import Report

_MOST_WARNINGS = 5  # of a kind


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_data_sets(parser)
    parser.add_argument("--quick", action="store_true", help="check beginnings and ends of images, decode none")
    parser.add_argument("--all", action="store_true", help=f"list all warnings, not {_MOST_WARNINGS} of a kind")
    add_new_data(parser, "--fix", "write what can be used into this new folder")


def run(parsed: argparse.Namespace) -> int:
    """Checks; prints all errors, some warnings and the counts; returns 1 if there are errors."""
    from rich.console import Console

    from yolov7_jax.cli.console import progress
    from yolov7_jax.datasets.curate.check import check_data, fix_data

    report = check_data(
        parsed.data, splits=parsed.split, image_folder=parsed.images, decode=not parsed.quick, progress=progress
    )
    for line in _lines(report, most=None if parsed.all else _MOST_WARNINGS):
        print(line)
    if report.issues:
        Console().print(_table(report))
    images = ", ".join(f"{split} {count}" for split, count in report.images.items())
    print(
        f"{sum(report.images.values())} images ({images}): {len(report.errors)} errors, {len(report.warnings)} warnings"
    )
    if parsed.fix:
        tell_written(fix_data(parsed.data, parsed.fix, report, progress=progress, **new_data_options(parsed)))
    return 1 if report.errors else 0


def _lines(report: Report, *, most: int | None) -> list[str]:
    """A line for each error and for the first warnings of each kind."""
    lines = [f"{issue.kind}: {issue.message}" for issue in report.errors]
    shown: Counter[str] = Counter()
    for issue in report.warnings:
        shown[issue.kind] += 1
        if most is None or shown[issue.kind] <= most:
            lines.append(f"warning, {issue.kind}: {issue.message}")
    more = {kind: count - most for kind, count in shown.items() if most is not None and count > most}
    return lines + [f"warning, {kind}: and {count} more; --all lists them" for kind, count in more.items()]


def _table(report: Report) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind", overflow="fold")
    table.add_column("")
    counts = report.counts()
    severity = {issue.kind: issue.severity for issue in report.issues}
    splits = list(dict.fromkeys(split for row in counts.values() for split in row))
    for split in splits:
        table.add_column(split or "all", justify="right")
    for kind, row in counts.items():
        table.add_row(kind, severity[kind], *(str(row[split] or "") for split in splits))
    return table
