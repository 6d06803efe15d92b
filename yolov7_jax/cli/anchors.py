"""`yolov7-jax anchors DATA`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import add_labeled, labeled_options, tell_left_out

if TYPE_CHECKING:
    from rich.table import Table

    from yolov7_jax.datasets.curate.anchors import AnchorFit
    from yolov7_jax.graph.spec import Anchors


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_labeled(parser)
    parser.add_argument("--generations", type=int, default=1000, help="rounds of the search (default 1000)")
    parser.add_argument("--population", type=int, default=4, help="mutations tried in a round (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("anchors.yaml"), help="configuration to train with (default anchors.yaml)"
    )


def run(parsed: argparse.Namespace) -> int:
    """Prints how the network's anchors and the new ones fit."""
    from rich.console import Console

    from yolov7_jax.cli.console import progress
    from yolov7_jax.datasets.curate.anchors import ENOUGH, TINY
    from yolov7_jax.experiment import fit_anchors

    done = fit_anchors(
        parsed.data,
        output=parsed.output,
        generations=parsed.generations,
        population=parsed.population,
        seed=parsed.seed,
        progress=progress,
        **labeled_options(parsed),
    )
    found, strides = done.found, done.graph.strides
    tell_left_out(done.issues)
    print(f"{found.given.boxes} boxes of {done.images} images, whose longer side becomes {done.size} pixels")
    if found.tiny:
        print(f"{found.tiny} of them have a side under {TINY:g} pixels then; new anchors are not made for those")
    console = Console(highlight=False, width=_WIDTH)
    console.print(_table("the network's own", done.graph.anchors, strides, found.given))
    if done.file is None:
        print("No better anchors were found: keep the network's own.")
        return 0
    console.print(_table("new", found.anchors, strides, found.fit))
    if found.given.recall >= ENOUGH:
        print(f"The network's own fit {100 * ENOUGH:g} % or more of the boxes, which is enough for most data.")
    print(f"see {done.file}, or train with the new ones: yolov7-jax train {done.file}")
    return 0


_WIDTH = 90  # columns, so that the table is the same wherever it is written to


def _table(title: str, anchors: Anchors, strides: tuple[int, ...], fitted: AnchorFit) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title)
    table.add_column("anchors in pixels")
    table.add_column("boxes they fit", justify="right")
    table.add_column("of them fit a box", justify="right")
    rows = zip(strides, anchors, fitted.level_recall, fitted.level_fitting, strict=True)
    for stride, level, recall, fitting in rows:
        pairs = "  ".join(f"{width:g}×{height:g}" for width, height in level)
        table.add_row(f"stride {stride}", pairs, f"{100 * recall:.2f} %", f"{fitting:.2f}")
    total = (f"fitness {fitted.fitness:.4f}", f"{100 * fitted.recall:.2f} %", f"{fitted.fitting:.2f}")
    table.add_row("all", *total, style="bold", end_section=True)
    return table
