"""The runs of an ablation: each is trained or evaluated once, resumed if interrupted, and checked for its settings."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from yolov7_jax.config import Config
from yolov7_jax.config_file import config_dict, read_config
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.ablations.tables import AblationRow
from yolov7_jax.experiment.artifacts import AP_OF_CLASS, evaluation_options
from yolov7_jax.experiment.beginning import CHECKPOINTS, CONFIG, differences
from yolov7_jax.experiment.training import resume, train, with_whole_paths
from yolov7_jax.experiment.validation import validate
from yolov7_jax.files import write_json
from yolov7_jax.inference.detector import Detector
from yolov7_jax.prefetch import ProgressBar
from yolov7_jax.training.callbacks import Callback, Callbacks
from yolov7_jax.training.log import FILE, VAL, read_log

RESULT = "result.json"
"""In the folder of an evaluation: its settings and numbers."""

_PRECISION, _RECALL = "AP", "AR"


class Job(NamedTuple):
    """A row for one seed: what it is made with, whether it is trained or evaluated, and where it is kept."""

    row: AblationRow
    seed: int
    config: Config
    trains: bool
    folder: Path


def run_job(job: Job, callbacks: Sequence[Callback], progress: ProgressBar) -> int | None:
    """Trains, resumes training, or evaluates; returns the signal that stopped it."""
    if not job.trains:
        _evaluate(job, callbacks, progress)
        return None
    if (job.folder / CONFIG).is_file():
        return resume(job.folder, callbacks=callbacks, progress=progress).signal
    shutil.rmtree(job.folder, ignore_errors=True)  # of a run that was stopped before it had begun
    return train(job.config, job.folder, callbacks=callbacks, progress=progress).signal


def numbers_of(job: Job) -> dict[str, float] | None:
    """The numbers of the last evaluation, as fractions by name, NaN where there was nothing to find.

    None unless the job is done.

    Raises:
        InputError: it was made with other settings.
    """
    return _trained_numbers(job) if job.trains else _evaluated_numbers(job)


def _trained_numbers(job: Job) -> dict[str, float] | None:
    if not (job.folder / CONFIG).is_file():
        return None
    _check_same(job, config_dict(read_config(job.folder / CONFIG)))
    last = next((row for row in reversed(read_log(job.folder / FILE)) if row["kind"] == VAL), None)
    if last is None or last["epoch"] < job.config.train.epochs:
        return None
    saved = (job.folder / CHECKPOINTS / str(last["step"])).is_dir()  # which is the last thing that a run does
    return _numbers(last) if saved else None


def _evaluated_numbers(job: Job) -> dict[str, float] | None:
    file = job.folder / RESULT
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    _check_same(job, content["config"])
    return _numbers(content["numbers"])


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    wanted = {key: value for key, value in row.items() if key.startswith((_PRECISION, _RECALL)) and key != AP_OF_CLASS}
    return {key: math.nan if value is None else float(value) for key, value in wanted.items()}


def _check_same(job: Job, stored: dict[str, dict[str, Any]]) -> None:
    for key, there, value in differences(with_whole_paths(job.config), stored):
        raise InputError(
            f"{job.folder}: was made with {key}={there}, not {value}; choose another folder for other settings: "
            "--output FOLDER"
        )


def _evaluate(job: Job, callbacks: Sequence[Callback], progress: ProgressBar) -> None:
    """COCO average precision of given weights with the row's settings, into the row's folder."""
    config, data = job.config, job.config.data
    images = data.val_images or data.images
    source = open_source(data.val_path or data.path, data.val_split, image_folder=Path(images) if images else None)
    detector = Detector.load(
        config.model.weights,
        size=config.train.size,
        dtype=jnp.dtype(config.train.dtype),
        report=Callbacks(callbacks).log,
        devices=jax.local_devices(),
    )
    options, one = evaluation_options(config), data.single_class
    numbers = validate(detector, source, options=options, progress=progress, single_class=one).result.numbers()
    write_json(job.folder / RESULT, {"config": config_dict(with_whole_paths(config)), "numbers": numbers})
