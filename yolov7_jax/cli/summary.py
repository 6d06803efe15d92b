"""`yolov7-jax summary MODEL` and `yolov7-jax summary --all`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from yolov7_jax.graph.spec import Graph
    from yolov7_jax.nn.summary import Row, Summary

MODEL_WIDTH = 110  # columns, so that the table is the same wherever it is written to
ALL_WIDTH = 90


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("model", nargs="?", help="zoo name, model YAML, or weights file")
    parser.add_argument("--all", action="store_true", help="one row for each network of the zoo, in place of MODEL")
    parser.add_argument("--size", type=int, help="side of the image in pixels (default 640, or 1280 with stride 64)")
    parser.add_argument("--classes", type=int, help="number of classes of a zoo name or YAML (default: its own)")


def run(parsed: argparse.Namespace) -> int:
    """Prints training form and inference form side by side, or a row for each network."""
    from rich.console import Console

    from yolov7_jax.errors import InputError

    if (parsed.model is None) != parsed.all:
        raise InputError("summary takes either a MODEL or --all: name one network, or ask for all of the zoo")
    if parsed.all:
        Console(width=ALL_WIDTH).print(_all(parsed.size, parsed.classes))
    else:
        Console(width=MODEL_WIDTH).print(_one(parsed.model, parsed.size, parsed.classes))
    return 0


def _one(model: str, size: int | None, classes: int | None) -> Table:
    from yolov7_jax.convert.load import resolve
    from yolov7_jax.graph.rewrite import inference_form
    from yolov7_jax.nn.summary import summarize

    graph = resolve(model, num_classes=classes)
    side = graph.default_size if size is None else size
    return _layers(
        None if graph.folded else summarize(graph, image_size=(side, side)),
        summarize(inference_form(graph), image_size=(side, side)),
        f"{model}: {graph.num_classes} classes, {side} × {side} pixels, strides {graph.strides}",
    )


def _all(size: int | None, classes: int | None) -> Table:
    """A row for each network of the zoo; shows on standard error how far it is."""
    from yolov7_jax.cli.console import new_table, progress
    from yolov7_jax.convert.load import resolve
    from yolov7_jax.graph.zoo import zoo_names

    numbers = ("size", "layers", "training\nparameters", "inference\nparameters", "inference\nGFLOPs")
    table = new_table("network", "strides", numbers=numbers)
    graphs = {name: resolve(name, num_classes=classes) for name in zoo_names()}
    sides = {name: graph.default_size if size is None else size for name, graph in graphs.items()}
    for name, graph in graphs.items():
        graph.check_side(sides[name])
    for name, graph in progress(graphs.items(), len(graphs), what="networks"):
        table.add_row(name, *_network(graph, sides[name]))
    return table


def _network(graph: Graph, side: int) -> tuple[str, ...]:
    from yolov7_jax.graph.rewrite import inference_form
    from yolov7_jax.nn.summary import summarize

    training = summarize(graph, image_size=(side, side))
    inference = summarize(inference_form(graph), image_size=(side, side))
    parameters, gflops = _cells(inference)
    strides = ", ".join(map(str, graph.strides))
    return strides, str(side), str(len(training.rows)), f"{training.parameters:,}", parameters, gflops


def _layers(training: Summary | None, inference: Summary, title: str) -> Table:
    """Both forms; a layer that one lacks has dashes there."""
    from yolov7_jax.cli.console import new_table

    numbers = ("training\nparameters", "GFLOPs", "inference\nparameters", "GFLOPs")
    table = new_table("layer", "kind", "from", "output", numbers=numbers, title=title)
    folded = {row.name: row for row in inference.rows}
    whole = training or inference
    for row in whole.rows:
        table.add_row(
            row.name,
            row.op if row.repeat == 1 else f"{row.op} × {row.repeat}",
            ", ".join(row.src),
            " × ".join(map(str, row.shape)) if row.shape else "",
            *_cells(row if training else None),
            *_cells(folded.get(row.name)),
        )
    table.add_section()
    table.add_row("sum", f"{len(whole.rows)} layers", "", "", *_cells(training), *_cells(inference), style="bold")
    return table


def _cells(counted: Row | Summary | None) -> tuple[str, str]:
    return (f"{counted.parameters:,}", f"{counted.flops / 1e9:.3f}") if counted else ("-", "-")
