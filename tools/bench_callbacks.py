"""Times training with all callbacks and loggers on beside training with none: steps a second, and CPU time of a step.

    pip install 'yolov7-jax[tensorboard,wandb,mlflow]'
    python tools/bench_callbacks.py
    python tools/bench_callbacks.py --rounds 0      # on a busy machine: what a row costs the CPU, and no more

First each logger gets rows, ten a second, of as many numbers as training has: CPU time of the thread that trains, and
of the whole process. A row comes each ten steps.

Runs of a small network on drawn scenes take turns, in one process with one compiled step; ratios are medians over the
rounds. A run's first steps and its end are not counted. Weights & Biases runs offline, MLflow with a database. CPU time
is that of this process and its threads; W&B has another process, of which the clock of a busy machine alone tells.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import jax

import yolov7_jax as yolo
from yolov7_jax.cli.console import TrainingConsole
from yolov7_jax.experiment.setup import make_loggers

LOGGERS = ["tensorboard", "wandb", "mlflow"]
IMAGES, FIRST = 160, 20  # of a data set; steps that are not counted


class Stopwatch(yolo.Callback):
    """Seconds, and those of the CPU, from one step on to the last."""

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """See `Callback`."""
        now = time.perf_counter(), time.process_time()
        if step == FIRST:
            self._began = now
        if step == steps:
            self.of_step = [(end - begin) / (steps - FIRST) for begin, end in zip(self._began, now, strict=True)]


def settings(data: Path, parsed: argparse.Namespace, *, loggers: bool) -> list[str]:
    """Of a run, over the configuration `debug`; none of the two evaluates."""
    epochs = parsed.steps * parsed.batch // IMAGES
    run = {
        "batch_size": parsed.batch,
        "size": parsed.size,
        "epochs": epochs,
        "val_every_epochs": 0,
        "checkpoint_every_steps": parsed.steps,
    }
    watched = {"loggers": LOGGERS, "time_limit": 100} if loggers else {}
    return [f"data.path={data}", *(f"train.{key}={value}" for key, value in {**run, **watched}.items())]


def seconds_of_step(data: Path, folder: Path, parsed: argparse.Namespace, *, everything: bool) -> list[float]:
    """Of one run: on the clock, and of the CPU."""
    stopwatch, console = Stopwatch(), [TrainingConsole()] if everything else []
    config = yolo.read_config("debug", settings(data, parsed, loggers=everything))
    yolo.train(config, folder, callbacks=[*console, stopwatch])
    return stopwatch.of_step


def cost_of_rows(name: str, folder: Path, rows: int = 200) -> tuple[float, float]:
    """CPU milliseconds a row that a logger takes on the calling thread, and in all threads until all is stored."""
    folder.mkdir(parents=True)
    (logger,) = make_loggers([name])
    logger.on_start(yolo.RunInfo(folder, yolo.Config(), 10 * rows, 0))
    numbers = {f"number-{number}": number / 7 for number in range(33)}
    of_thread, began = 0.0, time.process_time()
    for step in range(10, 10 * rows + 1, 10):
        before = time.thread_time()
        logger.on_row({"kind": "train", "step": step, "epoch": 1, **numbers})
        of_thread += time.thread_time() - before
        time.sleep(0.1)
    logger.on_end(10 * rows, finished=True)
    return 1000 * of_thread / rows, 1000 * (time.process_time() - began) / rows


def main() -> None:
    """Prints a line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help=f"of a run, beyond {FIRST}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        os.environ |= {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
        for name in LOGGERS:
            of_thread, of_all = cost_of_rows(name, home / "rows" / name)
            print(f"{name}: CPU ms a row {of_thread:.2f} on the thread that trains, {of_all:.2f} in all", flush=True)
        if not parsed.rounds:
            return
        data = yolo.write_scenes(home / "scenes", train=IMAGES, val=1, size=parsed.size)
        device = jax.devices()[0]
        print(f"{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, jax {jax.__version__}\n")
        print("| round | ms a step, none | all | ratio of steps/s | CPU ms a step, none | all | ratio |")
        print("|---|---|---|---|---|---|---|", flush=True)
        ratios = []
        for turn in range(parsed.rounds + 1):
            order = (False, True) if turn % 2 else (True, False)
            found = {
                everything: seconds_of_step(data, home / f"run-{turn}-{everything}", parsed, everything=everything)
                for everything in order
            }
            if turn:  # the first compiles
                ratios.append([none / all_ for none, all_ in zip(found[False], found[True], strict=True)])
                (wall, cpu), (wall_all, cpu_all) = ([1000 * s for s in found[key]] for key in (False, True))
                print(f"| {turn} | {wall:.2f} | {wall_all:.2f} | {wall / wall_all:.3f} ", end="")
                print(f"| {cpu:.2f} | {cpu_all:.2f} | {cpu_all / cpu:.3f} |", flush=True)
        of_rate, of_cpu = (median(ratio[part] for ratio in ratios) for part in (0, 1))
        print(
            f"\nmedians: {of_rate:.3f} of the steps a second, {1 / of_cpu:.3f} of the CPU time",
        )


if __name__ == "__main__":
    main()
