"""`yolov7-jax data split IN OUT`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import add_data_sets, add_new_data, new_data_options, tell_written

if TYPE_CHECKING:
    from rich.table import Table

    from yolov7_jax.datasets.curate.split import SplitResult


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_data_sets(parser)
    add_new_data(parser)
    parser.add_argument("--fractions", type=_fractions, default="0.8,0.1,0.1", help="of images (default 0.8,0.1,0.1)")
    parser.add_argument("--names", default="train,val,test", help="of the splits (default train,val,test)")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another split (default 0)")
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help="images of whose names the part in parentheses is the same stay together: '^(scene[0-9]+)_'",
    )


def run(parsed: argparse.Namespace) -> int:
    """Splits, and prints the table of classes by split."""
    from rich.console import Console

    from yolov7_jax.cli.console import progress
    from yolov7_jax.datasets.curate.split import split_data

    result = split_data(
        parsed.data,
        parsed.output,
        fractions=parsed.fractions,
        names=parsed.names.split(","),
        seed=parsed.seed,
        group=parsed.group,
        splits=parsed.split,
        progress=progress,
        **new_data_options(parsed),
    )
    Console().print(_table(result))
    tell_written(result.written)
    return 0


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} are no fractions; expected numbers such as 0.8,0.1,0.1") from error


def _table(result: SplitResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    rows = [("images", [*result.images.values()])]
    rows += [(name, result.objects[:, number].tolist()) for number, name in enumerate(result.names)]
    for split in result.images:
        table.add_column(split, justify="right")
        table.add_column("%", justify="right")
    for name, counts in rows:
        shares = [f"{100 * count / max(sum(counts), 1):.1f}" for count in counts]
        cells = [cell for count, share in zip(counts, shares, strict=True) for cell in (str(count), share)]
        table.add_row(Text(name), *cells, style="bold" if name == "images" else None)
    return table
