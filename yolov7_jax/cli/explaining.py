"""`yolov7-jax detect … --explain`: what the detections rest on, drawn beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolov7_jax.config import Options
from yolov7_jax.errors import InputError

if TYPE_CHECKING:
    from yolov7_jax.inference.detector import Detector
    from yolov7_jax.prefetch import ProgressBar


def add_explaining(parser: argparse.ArgumentParser) -> None:
    """Whether and how detections are explained."""
    group = parser.add_argument_group("explanations", "heat maps of what detections rest on; see docs/detect.md")
    group.add_argument("--explain", action="store_true", help="draw them into OUTPUT/explanations")
    group.add_argument(
        "--layer",
        help="number or tag of the layer whose feature map is shown, counted as in its model file (default: what the "
        "head reads at the level of the detection)",
    )
    group.add_argument(
        "--method",
        choices=("gradcam", "eigencam"),
        help="by gradients of each detection's score (gradcam, the default), or what stands out in the feature map "
        "whatever was found (eigencam)",
    )


def check_explaining(parsed: argparse.Namespace, detector: Detector) -> None:
    """Refuses, before anything is detected, what cannot be explained and arguments that would do nothing.

    Raises:
        InputError: --layer or --method without --explain, or the detector is an artefact. GraphError: no such layer.
    """
    from yolov7_jax.inference.explain import layers_of_levels

    for name in ("layer", "method"):
        if getattr(parsed, name) is not None and not parsed.explain:
            raise InputError(f"--{name} says how to explain detections; give --explain too")
    if parsed.explain:
        layers_of_levels(detector, parsed.layer)


def explain_detected(
    parsed: argparse.Namespace,
    detector: Detector,
    images: Sequence[Path],
    folder: Path,
    options: Options,
    progress: ProgressBar,
) -> None:
    """Explains what is found in images, if that was asked for, in `folder`/explanations, and says so."""
    from yolov7_jax.experiment.explanations import explain_images
    from yolov7_jax.training.hosts import is_first

    if not parsed.explain:
        return
    done = explain_images(
        detector,
        images,
        folder / "explanations",
        layer=parsed.layer,
        method=parsed.method or "gradcam",
        options=options,
        progress=progress,
        shared=True,
    )
    if is_first():
        if done.nothing_found:
            print(f"{len(done.nothing_found)} images with nothing to explain: lower --confidence", file=sys.stderr)
        print(f"{len(done.files)} images explained; see {done.folder}")
