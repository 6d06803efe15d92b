"""`yolov7-jax convert IN OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolov7_jax.cli.arguments import add_weights


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--naming",
        choices=("tree", "torch"),
        default="tree",
        help="tree: for this package; torch: names and layouts for load_state_dict in PyTorch (default tree)",
    )


def run(parsed: argparse.Namespace) -> int:
    """Reads, maps every tensor, writes."""
    from yolov7_jax.convert.identify import identify
    from yolov7_jax.convert.load import load_with_report
    from yolov7_jax.convert.weights_file import save

    weights, report = load_with_report(parsed.weights, model=parsed.model)
    save(parsed.output, weights, naming=parsed.naming)
    print(f"{parsed.weights}: {weights.graph.num_classes} classes, {report}")
    print(identify(weights.graph))
    print(f"wrote {parsed.output}")
    return 0
