"""A search for settings as one call: trial after trial, each a training run, until so many are done."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Unpack, get_args

from yolov7_jax.config import Config
from yolov7_jax.config_file import check_config, config_dict, read_config
from yolov7_jax.errors import GoneError, InputError
from yolov7_jax.experiment.artifacts import score
from yolov7_jax.experiment.beginning import CHECKPOINTS, CONFIG, differences
from yolov7_jax.experiment.setup import Given
from yolov7_jax.experiment.training import TrainingRun, resume, train, with_whole_paths
from yolov7_jax.experiment.tuning.report import BASE, SPACE, Tuning, write_report
from yolov7_jax.experiment.tuning.space import Space, read_space, setting, space_dict, with_settings
from yolov7_jax.experiment.tuning.study import (
    COMPLETE,
    DONE,
    FAIL,
    PRUNED,
    RUNNING,
    TRIALS,
    OwnTrial,
    Pruner,
    Sampler,
    SearchOptions,
    Study,
    TrialResult,
    best_of,
)
from yolov7_jax.files import write_atomically, yaml_text
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo, attempt, described
from yolov7_jax.training.cluster import refuse_several
from yolov7_jax.training.log import FILE as LOG
from yolov7_jax.training.log import VAL, read_log
from yolov7_jax.training.loop import DivergedError

DEFAULT_SPACE, DEFAULT_TRIALS = "evolve", 50
"""What is varied, and how often, where that is not said."""

_MOST_FAILURES = 3  # in a row, not by divergence, after which more trials would fail like them


def tune(
    config: Config,
    space: Path | str | Mapping[str, Any] = DEFAULT_SPACE,
    folder: Path | str = "runs/tune",
    *,
    trials: int = DEFAULT_TRIALS,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    seed: int = 0,
    keep_all: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
    **given: Unpack[Given],
) -> Tuning:
    """Searches for settings with which a run scores higher, by training runs with settings that Optuna proposes.

    The first trial has the configuration's own settings, so the best is never worse. The folder gets study.db (an
    Optuna study), trials/NUMBER (run folders) and after every trial what `tune_report` writes. A second call goes on
    to so many trials in all; trials that were broken off are resumed. Several processes with one folder share the
    trials. Weights and checkpoints of trials that are done and are not the best are deleted.

    Args:
        config: of every trial, but for what is varied; train.best_by says what a score is.
        space: what is varied: a name in configs/spaces, a YAML file, or {"optim.lr0": {"low": …, "high": …}, …}.
        folder: of the search, new or begun.
        trials: how many there are to be in the folder.
        sampler: how settings are proposed.
        pruner: which trials end before their last epoch, by their evaluations beside those of others.
        seed: of the sampler.
        keep_all: deletes nothing.
        callbacks: look on at every run.
        progress: shows the progress of evaluations.
        given: what every run is given in place of what the configuration names, see `train`.

    Raises:
        InputError: the space or the folder does not fit the configuration, what `train` raises in the first trial, or
            three trials in a row failed. InstallationError: Optuna is not installed.
    """
    refuse_several("a search")
    check_config(config, where="config")
    found = read_space(space, config)
    options = _options(config, sampler, pruner, seed, trials)
    folder = Path(folder)
    with closing(Study(folder)) as study:
        _keep(study, with_whole_paths(config), found, folder)
        search = _Search(study, config, found, folder, given, keep_all, tuple(callbacks), progress)
        signal, failures = None, 0
        while signal is None and (trial := study.take(found, trials, _defaults(config, found), options)) is not None:
            with closing(trial):
                search.callbacks.log(search.beginning(trial, trials))
                signal, failure = search.run(trial)
            failures = failures + 1 if failure else 0
            if signal is None:
                search.after(trial, trials)
            if failures == _MOST_FAILURES:
                raise InputError(f"{folder}: {failures} trials in a row failed, the last one: {failure}")
        return replace(write_report(study, folder, config, found), signal=signal)


def _options(config: Config, sampler: Sampler, pruner: Pruner, seed: int, trials: int) -> SearchOptions:
    for name, value, known in (("sampler", sampler, get_args(Sampler)), ("pruner", pruner, get_args(Pruner))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if trials < 1 or seed < 0:
        raise InputError(f"{trials} trials with seed {seed} were asked for; expected at least 1, and at least 0")
    if not config.train.val_every_epochs:
        raise InputError("train.val_every_epochs=0 leaves nothing to compare; leave it out")
    return SearchOptions(sampler, pruner, seed, config.train.epochs)


def _defaults(config: Config, space: Space) -> dict[str, Any]:
    return {key: setting(config, key) for key in space}


def _keep(study: Study, config: Config, space: Space, folder: Path) -> None:
    """Writes what the search is made with, or checks that it is what is there."""
    with study.locked():
        if not study.trials():
            write_atomically(folder / BASE, yaml_text(config_dict(config)))
            write_atomically(folder / SPACE, yaml_text(space_dict(space)))
            return
    elsewhere = "choose another folder for other settings: --output FOLDER"
    stored = read_config(folder / BASE)
    for key, there, value in differences(config, config_dict(stored)):
        raise InputError(f"{folder}: was made with {key}={there}, not {value}; {elsewhere}")
    if dict(read_space(folder / SPACE, stored)) != dict(space):
        raise InputError(f"{folder}: was made with another space, see {folder / SPACE}; {elsewhere}")


class _Reporter(Callback):
    """Tells the study of a trial's evaluations, and ends its run where the pruner would."""

    def __init__(self, trial: OwnTrial, best_by: str) -> None:
        self._trial, self._best_by = trial, best_by
        self.pruned = False

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`. A run that was broken off has evaluations that the study may not know."""
        self._run = run
        for row in read_log(run.folder / LOG):
            if row["kind"] == VAL:
                self._tell(row)

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:  # noqa: ARG002
        """See `Callback`."""
        self._tell(row)

    def _tell(self, row: Mapping[str, Any]) -> None:
        self._trial.report(score(self._best_by, row), row["epoch"])
        if row["step"] < self._run.steps and not self.pruned and self._trial.is_hopeless():
            self.pruned = True
            self._run.stop(f"trial {self._trial.number} is behind others (pruned in epoch {row['epoch']})")


@dataclass(frozen=True)
class _Search:
    """What all trials of a call share."""

    study: Study
    config: Config
    space: Space
    folder: Path
    given: Given
    keep_all: bool
    looking_on: tuple[Callback, ...]
    progress: ProgressBar

    @property
    def callbacks(self) -> Callbacks:
        """Those of the user as one."""
        return Callbacks(self.looking_on)

    def run_folder(self, number: int) -> Path:
        """Of a trial."""
        return self.folder / TRIALS / f"{number:03d}"

    def beginning(self, trial: OwnTrial, total: int) -> str:
        """A sentence for a trial that begins."""
        what = "the configuration's own settings" if trial.number == 0 else f"{len(trial.settings)} settings varied"
        return f"trial {trial.number} (of 0 to {total - 1}): {what}; see {self.run_folder(trial.number)}"

    def run(self, trial: OwnTrial) -> tuple[int | None, str]:
        """Trains a trial and tells the study; returns the signal that stopped it, or why it failed but by divergence.

        Raises:
            Exception: what the first trial raises, unless it diverges: the others would, too.
        """
        reporter = _Reporter(trial, self.config.train.best_by)
        try:
            done = self._train(trial, reporter)
        except GoneError:
            raise
        except Exception as error:
            if trial.number == 0 and not isinstance(error, DivergedError):
                if not (self.run_folder(0) / CONFIG).is_file():
                    self.study.forget()  # nothing was trained: other settings may come
                raise
            failure = described(error)
            trial.tell(FAIL, failure=failure)
            return None, "" if isinstance(error, DivergedError) else failure
        if done.signal is not None:
            return done.signal, ""
        if reporter.pruned:
            trial.tell(PRUNED)
        elif done.best_score is None:
            trial.tell(FAIL, failure="it has no evaluation")
        else:
            trial.tell(COMPLETE, done.best_score)
        return None, ""

    def _train(self, trial: OwnTrial, reporter: _Reporter) -> TrainingRun:
        folder = self.run_folder(trial.number)
        config = with_settings(self.config, trial.settings)
        options: dict[str, Any] = {"callbacks": [*self.looking_on, reporter], "progress": self.progress, **self.given}
        if (folder / CONFIG).is_file():
            return resume(folder, **options)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped before it had begun
        return train(config, folder, **options)

    def after(self, trial: OwnTrial, total: int) -> None:
        """Says what came of a trial; writes the report; deletes what is not kept."""
        results = self.study.trials()
        for line in _sentences(results, trial.number, total, self.config.train.best_by):
            self.callbacks.log(line)
        found = attempt("the report", self.callbacks, write_report, self.study, self.folder, self.config, self.space)
        if found is not None and not self.keep_all:
            self._delete(found)

    def _delete(self, found: Tuning) -> None:
        """Deletes weights and checkpoints of trials that are done and are not the best."""
        for trial in found.trials:
            if trial.state in DONE and (found.best is None or trial.number != found.best.number):
                folder = self.run_folder(trial.number)
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
                for file in folder.glob("*.safetensors"):
                    file.unlink(missing_ok=True)


def _sentences(results: Sequence[TrialResult], number: int, total: int, measure: str) -> list[str]:
    """What came of a trial, the best one so far, and how long the others may take."""
    own = results[number]
    done = [trial for trial in results if trial.state in DONE]
    text = f"trial {number}: {own.state}" + (f" ({own.failure})" if own.failure else "")
    text += "" if own.score is None else f", {measure} {own.score:.4f}"
    if (best := best_of(done)) is not None:
        text += f"; best so far {best.score:.4f} (trial {best.number})"
    left = total - len(done)
    if left <= 0:
        return [f"{text}; {len(done)} of {total} done"]
    processes = 1 + sum(trial.state == RUNNING for trial in results)
    seconds = median(trial.seconds or 0.0 for trial in done) * left / processes
    return [f"{text}; {len(done)} of {total} done, about {timedelta(seconds=round(seconds))} left"]
