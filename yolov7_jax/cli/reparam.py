"""`yolov7-jax reparam WEIGHTS OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolov7_jax.cli.arguments import add_weights


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("output", type=Path, help="the .safetensors file to write")


def run(parsed: argparse.Namespace) -> int:
    """Folds, checks the outputs on a probe, writes."""
    from dataclasses import replace

    from yolov7_jax.convert.load import load
    from yolov7_jax.convert.weights_file import save
    from yolov7_jax.reparameterize import reparam

    weights = load(parsed.weights, model=parsed.model)
    if weights.graph.folded:
        print(f"{parsed.weights} is in inference form already; written as it is")
    graph, variables = reparam(weights.graph, weights.variables)
    save(parsed.output, replace(weights, graph=graph, variables=variables))
    print(f"wrote {parsed.output}: its outputs on a random image are the same, but for rounding to float32")
    return 0
