"""Exports weights to every format and compares source and artefacts: AP, milliseconds, seconds to a first result, size.

    python tools/bench_export.py yolov5n.pt --data coco128/data.yaml

Each measurement has a process of its own, one at a time, on one core and on two: formats take turns, and figures are
the medians over the rounds. An image is a photograph from pixels to detections, letterbox and all. The first result
counts from the start of the process, with compiled programs kept from an earlier one (`--cold`: none are).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

CORES = (1, 2)
IMAGES = 15  # of one measurement


def measured(weights: str, size: int, cores: int, *, cold: bool) -> dict[str, float]:
    """Of one process."""
    began = time.perf_counter()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # before libraries count the cores
    from yolov7_jax.compilation_cache import enable_compilation_cache
    from yolov7_jax.experiment.exporting import PHOTOGRAPHS
    from yolov7_jax.image import read_image

    enable_compilation_cache("off" if cold else None)
    detector, photograph = square(weights, size), read_image(PHOTOGRAPHS / "coffee.jpg")
    detector([photograph])
    first = time.perf_counter() - began
    times = []
    for _ in range(IMAGES):
        before = time.perf_counter()
        detector([photograph])
        times.append(time.perf_counter() - before)
    return {"first": first, "ms": 1000 * median(times)}


def square(weights: Path | str, size: int) -> Any:
    """The detector of a file, of images of one shape."""
    import yolov7_jax as yolo

    detector = yolo.Detector.load(weights, size=size)
    detector.shape = size, size
    return detector


def average_precision(weights: Path | str, data: Path, size: int) -> dict[str, float]:
    """AP and AP50 of a detector."""
    import yolov7_jax as yolo

    numbers = yolo.validate(square(weights, size), yolo.open_source(str(data), "val")).result.numbers()
    return {"AP": numbers["AP"], "AP50": numbers["AP50"]}


def in_a_process(*arguments: object) -> dict[str, float]:
    """What `measured` finds in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exported(weights: Path, folder: Path, size: int) -> dict[str, tuple[Path, float]]:
    """Files by what they are, and the seconds that each took, with its proof."""
    import yolov7_jax as yolo

    files = {"source": (weights, 0.0)}
    for name, file, dtype in (
        ("StableHLO", "best.shlo.zip", "float32"),
        ("ONNX", "best.onnx", "float32"),
        ("ONNX, float16", "half.onnx", "float16"),
        ("OpenVINO", "best.xml", "float32"),
    ):
        began = time.perf_counter()
        yolo.export(weights, folder / file, size=size, dtype=dtype)
        files[name] = folder / file, time.perf_counter() - began
    return files


def megabytes(file: Path) -> float:
    """Of a file and of the weights beside it."""
    parts = [file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return sum(part.stat().st_size for part in parts) / 1e6


def table(
    files: Mapping[str, tuple[Path, float]], times: Mapping[Any, list[dict[str, float]]], ap: Mapping[str, Any]
) -> None:
    """Prints a row of Markdown for each."""
    print("| | AP | AP50 | ms an image, 1 core | 2 cores | first result, s | export, s | MB |")
    print("|---" * 8 + "|")
    for name, (file, seconds) in files.items():
        one, two = (median(each["ms"] for each in times[name, cores]) for cores in CORES)
        first = median(each["first"] for each in times[name, CORES[-1]])
        numbers = f"{ap[name]['AP']:.4f} | {ap[name]['AP50']:.4f}" if name in ap else " | "
        made = f"{seconds:.0f}" if seconds else ""
        print(
            f"| {name} | {numbers} | {one:.0f} | {two:.0f} | {first:.1f} | {made} | {megabytes(file):.1f} |", flush=True
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, help="labeled images to measure AP on; none, and AP is left out")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="keep no compiled programs")
    parser.add_argument("--measure", type=int, metavar="CORES", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.measure:
        print(json.dumps(measured(str(parsed.weights), parsed.size, parsed.measure, cold=parsed.cold)))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = exported(parsed.weights, Path(folder), parsed.size)
        ap = {}
        if parsed.data:
            ap = {name: average_precision(file, parsed.data, parsed.size) for name, (file, _) in files.items()}
        times: dict[Any, list[dict[str, float]]] = defaultdict(list)
        options = ["--size", parsed.size, *(["--cold"] if parsed.cold else [])]
        for turn in range(parsed.rounds + 1):
            for name, (file, _) in files.items():
                for cores in CORES:
                    found = in_a_process(file, "--measure", cores, *options)
                    if turn:  # the first compiles
                        times[name, cores].append(found)
        table(files, times, ap)


if __name__ == "__main__":
    main()
