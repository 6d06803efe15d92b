"""The report of a search: its trials as a file for programs, the best settings as a configuration, a figure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from yolov7_jax.config import Config
from yolov7_jax.config_file import read_config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.tuning.space import Interval, Space, Value, read_space
from yolov7_jax.experiment.tuning.study import FILE, PRUNED, Study, TrialResult, best_of
from yolov7_jax.files import write_atomically, yaml_text
from yolov7_jax.viz.figures import save_figure
from yolov7_jax.viz.tuning import TrialPoint, tuning_figure

BASE, SPACE = "config.yaml", "space.yaml"
"""In the folder of a search: the configuration that it varies, and what of it."""

BEST, TABLE, FIGURE = "best.yaml", "trials.csv", "report.png"
"""Beside them: the configuration with the best settings, all trials, the figure."""


@dataclass(frozen=True)
class Tuning:
    """What came of a search so far.

    folder: of the search. measure: what a score is (train.best_by). space: what is varied. importances: by setting, in
    fractions of 1, the largest first; none before five trials are complete. signal: what stopped it, if anything.
    """

    folder: Path
    measure: str
    space: Space
    trials: tuple[TrialResult, ...]
    importances: Mapping[str, float]
    signal: int | None = None

    @property
    def best(self) -> TrialResult | None:
        """The complete trial with the highest score, the first of equals."""
        return best_of(self.trials)

    @property
    def score(self) -> float | None:
        """Of the best trial."""
        return None if self.best is None else self.best.score

    @property
    def settings(self) -> Mapping[str, Value]:
        """Of the best trial, such as {"optim.lr0": 0.02}."""
        return {} if self.best is None else self.best.settings

    @property
    def counts(self) -> Mapping[str, int]:
        """How many trials are in each state: complete, pruned, fail, running."""
        return Counter(trial.state for trial in self.trials)

    def ranked(self) -> list[str]:
        """The settings, the most important first, others in the order of the space."""
        return sorted(self.space, key=lambda key: -self.importances.get(key, 0.0))


def tune_report(folder: Path | str) -> Tuning:
    """The results of a search, which may go on meanwhile; writes its report anew.

    The folder gets best.yaml (a configuration for `train`, based on the config.yaml beside it), trials.csv and
    report.png: scores over trials, importances of settings, scores over the most important of them.

    Args:
        folder: of the search.

    Raises:
        InputError: it is not that of a search, or cannot be written to. InstallationError: Optuna is not installed.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file() or not (folder / SPACE).is_file():
        raise InputError(f"{folder}: has no {FILE}; expected the folder of a search (yolov7-jax tune)")
    config = read_config(folder / BASE)
    with closing(Study(folder)) as study:
        return write_report(study, folder, config, read_space(folder / SPACE, config))


def write_report(study: Study, folder: Path, config: Config, space: Space) -> Tuning:
    """The results of a study, written to its folder; the last of several processes that do so knows most."""
    with study.locked():
        found = Tuning(folder, config.train.best_by, space, study.trials(), study.importances())
        write_atomically(folder / TABLE, _csv_text(found))
        if found.best is not None:
            write_atomically(folder / BEST, _best_text(found))
        points = [
            TrialPoint(trial.number, trial.score, trial.state == PRUNED, trial.settings)
            for trial in found.trials
            if trial.score is not None
        ]
        by_logarithm = {key for key, domain in space.items() if isinstance(domain, Interval) and domain.log}
        save_figure(tuning_figure(points, found.importances, by_logarithm, found.measure), folder / FIGURE)
    return found


def _best_text(found: Tuning) -> str:
    """The best settings as a configuration that is based on that of the search."""
    best = found.best
    assert best is not None
    sections: dict[str, dict[str, Value]] = {}
    for key, value in best.settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    head = (
        f"# Trial {best.number} of {len(found.trials)}, {found.measure} {best.score:.4f}.\n"
        f"#   yolov7-jax train {found.folder / BEST}\n"
    )
    return head + yaml_text({"base": BASE, **sections})


def _csv_text(found: Tuning) -> str:
    """A line for each trial, for programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", found.measure, "seconds", *found.space, "failure"])
    for trial in found.trials:
        settings = [trial.settings.get(key, "") for key in found.space]
        score, seconds = ("" if number is None else number for number in (trial.score, trial.seconds))
        writer.writerow([trial.number, trial.state, score, seconds, *settings, trial.failure])
    return text.getvalue()
