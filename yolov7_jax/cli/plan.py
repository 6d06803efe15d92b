"""`yolov7-jax plan CONFIG [KEY=VALUE...] --on v5e:2x4`."""

from __future__ import annotations

import argparse
import json
import sys


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("config", help="name of a configuration, or a YAML file (yolov7-tiny-coco, mine.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as train.dtype=bfloat16")
    parser.add_argument(
        "--on",
        default="local",
        metavar="CHIPS",
        help="TPUs that need not be there, v5e, v5p or v6e, and how many along each axis: v5e:2x4, v5p:2x2x1 "
        "(needs the extra tpu); cpu, or local: the devices here (default local)",
    )
    parser.add_argument("--batch", type=int, help="images over all devices (default: train.batch_size)")
    parser.add_argument("--classes", type=int, help="number of classes (default: the network's own)")
    parser.add_argument(
        "--fit", action="store_true", help="find the largest batch that fits, by up to 3 more compilations"
    )
    parser.add_argument("--thorough", action="store_true", help="compile as for a run: twice as long, or more")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Compiles, and prints what the step takes."""
    from yolov7_jax.cli.console import Display
    from yolov7_jax.config_file import read_config
    from yolov7_jax.experiment import plan

    batch = [] if parsed.batch is None else [f"train.batch_size={parsed.batch}"]
    planned = plan(
        read_config(parsed.config, [*parsed.overrides, *batch]),
        parsed.on,
        num_classes=parsed.classes,
        fit=parsed.fit,
        thorough=parsed.thorough,
        report=Display().log,
    )
    if parsed.json:
        json.dump(planned.facts(), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(planned.lines()))
    return 0
