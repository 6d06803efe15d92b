"""`yolov7-jax summary MODEL`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from yolov7_jax.nn.summary import Row, Summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("model", help="zoo name, model YAML, or weights file")
    parser.add_argument("--size", type=int, help="side of the image in pixels (default 640, or 1280 with stride 64)")
    parser.add_argument("--classes", type=int, help="number of classes of a zoo name or YAML (default: its own)")


def run(parsed: argparse.Namespace) -> int:
    """Prints training form and inference form side by side."""
    from rich.console import Console

    from yolov7_jax.convert.load import resolve
    from yolov7_jax.graph.rewrite import inference_form
    from yolov7_jax.nn.summary import summarize

    graph = resolve(parsed.model, num_classes=parsed.classes)
    side = graph.default_size if parsed.size is None else parsed.size
    inference = inference_form(graph)
    Console(width=110).print(
        _table(
            None if graph.folded else summarize(graph, image_size=(side, side)),
            summarize(inference, image_size=(side, side)),
            f"{parsed.model}: {graph.num_classes} classes, {side} × {side} pixels, strides {graph.strides}",
        )
    )
    return 0


def _table(training: Summary | None, inference: Summary, title: str) -> Table:
    """Both forms; a layer that one lacks has dashes there."""
    from rich.table import Table

    table = Table(title=title, box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind", "from", "output"):
        table.add_column(heading)
    for form in ("training", "inference"):
        table.add_column(f"{form}\nparameters", justify="right")
        table.add_column("GFLOPs", justify="right")
    folded = {row.name: row for row in inference.rows}
    for row in (training or inference).rows:
        shape = " × ".join(map(str, row.shape)) if row.shape else ""
        table.add_row(
            row.name,
            row.op,
            ", ".join(row.src),
            shape,
            *_cells(row if training else None),
            *_cells(folded.get(row.name)),
        )
    table.add_section()
    table.add_row("sum", f"{len(inference.rows)} layers", "", "", *_cells(training), *_cells(inference), style="bold")
    return table


def _cells(counted: Row | Summary | None) -> tuple[str, str]:
    return (f"{counted.parameters:,}", f"{counted.flops / 1e9:.3f}") if counted else ("-", "-")
