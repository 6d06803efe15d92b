"""The paper's ablations as one call: every row of a table for every seed, and the table written."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from yolov7_jax.config import Config
from yolov7_jax.config_file import read_config
from yolov7_jax.datasets import open_source
from yolov7_jax.demo.scenes import SCENE_NAMES, write_scenes
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.ablations.jobs import Job, numbers_of, run_job
from yolov7_jax.experiment.ablations.results import Results, RowResult, csv_text, figure, markdown
from yolov7_jax.experiment.ablations.tables import AP, AblationRow, Size, Table, find_table, network_size
from yolov7_jax.files import write_atomically
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training.callbacks import Callback, Callbacks
from yolov7_jax.training.cluster import refuse_several
from yolov7_jax.viz.figures import save_figure

Scale = Literal["small", "paper"]

SEEDS: dict[str, int] = {"small": 3, "paper": 1}
"""How many, where that is not said."""

TRAIN_IMAGES, VAL_IMAGES = 512, 128
"""Drawn images of the small scale."""

RUNS, SCENES, TABLE = "runs", "scenes", "table"
"""In the folder of an ablation: its runs, drawn images, and the name of the files with the results."""

_SEED, _WEIGHTS = "train.seed", "model.weights"


class _Ablation(NamedTuple):
    """What is asked for."""

    table: Table
    scale: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]

    @property
    def small(self) -> bool:
        """Whether networks are narrowed."""
        return self.scale == "small" and self.table.trains

    def config(self, row: AblationRow, seed: int = 0) -> Config:
        """The settings of a row's run."""
        source = self.table.small if self.small else row.config
        return read_config(source, [*row.overrides, *self.overrides, f"{_SEED}={seed}"])

    def jobs(self, folder: Path) -> list[Job]:
        """All runs, row by row: the seeds of a row share what is compiled."""
        place = folder / RUNS
        return [
            Job(row, seed, self.config(row, seed), self.table.trains, place / row.slug / f"seed-{seed}")
            for row in self.table.rows
            for seed in self.seeds
        ]


def ablate(
    table: int | str,
    folder: Path | str | None = None,
    *,
    scale: Scale = "small",
    rows: Sequence[str] = (),
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    share: tuple[int, int] = (0, 1),
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
) -> Results:
    """Trains or evaluates the rows of an ablation table of the paper, with seeds 0, 1 …, and writes the table.

    The folder gets table.md, table.csv and table.png after every run, runs/ROW/seed-N (run folders) and, on the small
    scale unless overrides name data, scenes (drawn images). A second call repeats nothing that is finished and resumes
    what was interrupted; it may have more seeds or other rows. If a signal stops it, it returns the results so far.

    Several processes, on one machine or more, share the runs and the folder: each takes every n-th run, trains it by
    itself, on the devices that it sees, and writes the table of what all have finished. They are not joined, so one
    that ends ends no other.

    Args:
        table: its number in the paper, one of `ablations.tables.tables`.
        folder: without one nothing runs: the results have sizes and published numbers alone.
        scale: "small" is minutes a run on a CPU, "paper" the recipes of the paper on data that overrides name.
        rows: names of those to run; without any, all.
        seeds: how many, by default `SEEDS` of the scale.
        overrides: settings of all rows, such as "loss.top_k=5".
        share: the number of this process, and of all that share the runs.
        callbacks: follow every run.
        progress: shows the progress of evaluations.

    Raises:
        InputError: no such table, row or share, an override that is wrong or of something that rows differ in, runs in
            the folder that were made with other settings, or what `train` raises.
    """
    ablation = _checked(find_table(table), scale, seeds, overrides)
    chosen = [ablation.table.row(name) for name in rows] or ablation.table.rows
    if folder is None:
        return _results(ablation, [])
    refuse_several("an ablation")
    number, processes = share
    if not 0 <= number < processes:
        raise InputError(f"process {number} of {processes} was asked for; expected a number from 0 to {processes - 1}")
    ablation = _with_data(ablation, Path(folder))
    jobs = ablation.jobs(Path(folder))
    own = [job for job in jobs if job.row in chosen][number::processes]
    return _run(ablation, jobs, own, Path(folder), callbacks, progress)


def _run(
    ablation: _Ablation,
    jobs: Sequence[Job],
    wanted: Sequence[Job],
    folder: Path,
    callbacks: Sequence[Callback],
    progress: ProgressBar,
) -> Results:
    """Runs what is not finished of some jobs, until a signal stops it; writes the table of all after each run."""
    results = _results(ablation, jobs)  # refuses other settings before anything begins
    for number, job in enumerate(wanted, start=1):
        if results.signal is None and numbers_of(job) is None:
            place = f"table {ablation.table.number}: {job.row.name}, seed {job.seed}"
            Callbacks(callbacks).log(f"{place} ({number} of {len(wanted)})")
            signal = run_job(job, callbacks, progress)
            results = replace(_write(ablation, jobs, folder), signal=signal)
    return replace(_write(ablation, jobs, folder), signal=results.signal)


def _checked(table: Table, scale: str, seeds: int | None, overrides: Sequence[str]) -> _Ablation:
    """The ablation that is asked for, after checks of all its settings."""
    if scale not in SEEDS:
        raise InputError(f"scale is {scale!r}; expected one of {', '.join(SEEDS)}")
    count = (SEEDS[scale] if seeds is None else seeds) if table.trains else 1
    if count < 1:
        raise InputError(f"{count} seeds were asked for; expected at least 1")
    ablation = _Ablation(table, scale, tuple(range(count)), tuple(overrides))
    settings = [ablation.config(row) for row in table.rows]  # whatever is wrong with an override is said here
    given = {text.lstrip("-").partition("=")[0] for text in overrides}
    for key in sorted(given & {*table.varied, _SEED, *((_WEIGHTS,) if table.trains else ())}):
        reason = "is what --seeds is for" if key == _SEED else f"belongs to the rows of table {table.number}"
        raise InputError(f"{key} {reason}; leave it out")
    if table.trains and not all(config.train.val_every_epochs for config in settings):
        raise InputError("train.val_every_epochs=0 leaves nothing to compare; leave it out")
    return ablation


def _with_data(ablation: _Ablation, folder: Path) -> _Ablation:
    """The ablation with data, which are drawn if no setting names some."""
    config = ablation.config(ablation.table.rows[0])
    if not ablation.table.trains and not config.model.weights:
        raise InputError(
            f"table {ablation.table.number} evaluates weights of YOLOv7-X and trains nothing; name them: "
            f"{_WEIGHTS}=yolov7x.pt"
        )
    if config.data.path:
        return ablation
    if not ablation.small:
        raise InputError("data.path is not set; name the data, for the numbers of the paper COCO: data.path=coco.yaml")
    data = _scenes(folder / SCENES, config.train.size)
    return ablation._replace(overrides=(*ablation.overrides, f"data.path={data}"))


def _scenes(folder: Path, size: int) -> Path:
    """The data YAML of drawn images; draws them if they are not there whole, as other processes may do just now."""
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}.part")
        write_scenes(part, train=TRAIN_IMAGES, val=VAL_IMAGES, size=size)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder.absolute() / "data.yaml"


def _results(ablation: _Ablation, jobs: Sequence[Job]) -> Results:
    """The sizes of all rows, and the scores of finished jobs."""
    scores: dict[str, dict[int, dict[str, float]]] = {row.name: {} for row in ablation.table.rows}
    for job in jobs:
        if (numbers := numbers_of(job)) is not None:
            scores[job.row.name][job.seed] = numbers
    rows = tuple(
        RowResult(row, network_size(row.network), _trained_size(ablation, row), scores[row.name])
        for row in ablation.table.rows
    )
    return Results(ablation.table, rows, _setting(ablation), ablation.seeds)


def _trained_size(ablation: _Ablation, row: AblationRow) -> Size | None:
    """The size of the network trained here, None if it is the paper's."""
    if not ablation.small:
        return None
    config = ablation.config(row)
    classes = 1 if config.data.single_class else _classes(config.data.path, config.data.train_split)
    return network_size(row.network, classes=classes, width=config.model.width, side=config.train.size)


@lru_cache
def _classes(path: str, split: str) -> int:
    return len(open_source(path, split).names) if path else len(SCENE_NAMES)


def _setting(ablation: _Ablation) -> str:
    """What a table was made with, in words."""
    table, config = ablation.table, ablation.config(ablation.table.rows[0])
    names = [table.small] if ablation.small else dict.fromkeys(row.config for row in table.rows)
    given = ", ".join(f"`{text}`" for text in ablation.overrides) or "none"
    base = f"Configuration {', '.join(f'`{name}`' for name in names)}; settings given beside it: {given}."
    if not table.trains:
        return base
    return (
        f"{base} Trained for {config.train.epochs} epochs. AP is that of the averaged weights after the last epoch, in "
        "per cent, mean ± standard deviation over the seeds. Parameters and GFLOPs are those of the paper's network in "
        "inference form, in brackets as published; published AP is on COCO val2017."
    )


def _write(ablation: _Ablation, jobs: Sequence[Job], folder: Path) -> Results:
    """Writes the table of all that is finished as Markdown, CSV and a figure.

    Again, if a run was finished meanwhile: the process that finished it may have written its table before this one.
    """
    written = ""
    while (text := markdown(results := _results(ablation, jobs))) != written:
        write_atomically(folder / f"{TABLE}.md", text)
        write_atomically(folder / f"{TABLE}.csv", csv_text(results))
        if any(result.values(AP) for result in results.rows):
            save_figure(figure(results), folder / f"{TABLE}.png")
        written = text
    return results
