"""The study of a search (the door to Optuna): its trials in an SQLite file that several processes share.

A trial belongs to the process that holds its claim, a lock that the system gives back when the process ends, however
it ends. A trial that is running and nobody's is taken up by whoever asks next, with its number and its settings.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.experiment.tuning.space import Choices, Interval, Space, Value

FILE, CLAIMS, TRIALS = "study.db", "claims", "trials"
"""In the folder of a search: the study, its locks, the run folders of its trials."""

COMPLETE, PRUNED, FAIL, RUNNING, WAITING = "complete", "pruned", "fail", "running", "waiting"
"""States of a trial."""

DONE = (COMPLETE, PRUNED, FAIL)
"""Those of trials that have ended."""

_NAME, _FAILURE = "tune", "failure"
_PATIENCE_S = 60.0  # for others, who hold the study for less than a second at a time

_LEAST_TRIALS = 5
"""Complete ones from which importances follow, and of the best that settings are important for."""
_MOST, _LEAST = 0.5, 0.1  # fraction of the trials that are the best ones


@dataclass(frozen=True)
class TrialResult:
    """A trial of a search.

    score: of its best evaluation, of a pruned trial of its last one, None where there was none. values: scores by
    epoch. seconds: from its beginning to its end. failure: why it has no score.
    """

    number: int
    state: str
    score: float | None
    settings: Mapping[str, Value]
    values: Mapping[int, float]
    seconds: float | None
    failure: str = ""


def best_of(trials: Iterable[TrialResult]) -> TrialResult | None:
    """The complete trial with the highest score, the first of equals."""
    complete = [trial for trial in trials if trial.state == COMPLETE and trial.score is not None]
    return max(complete, key=lambda trial: (trial.score, -trial.number), default=None)


class OwnTrial:
    """A trial that belongs to this process until it is closed."""

    def __init__(self, trial: Any, claim: sqlite3.Connection, space: Space) -> None:
        self._trial, self._claim = trial, claim
        self.number: int = trial.number
        self.settings = {key: _suggested(trial, key, domain) for key, domain in space.items()}
        self._reported = set(trial.study.get_trials(deepcopy=False)[self.number].intermediate_values)

    def report(self, score: float, epoch: int) -> None:
        """Adds the score of an epoch, unless it is there."""
        if epoch not in self._reported:
            self._trial.report(score, epoch)
            self._reported.add(epoch)

    def is_hopeless(self) -> bool:
        """Whether the pruner would end it, which the first trial is safe from: others are held against it."""
        return self.number > 0 and bool(self._trial.should_prune())

    def tell(self, state: str, score: float | None = None, failure: str = "") -> None:
        """Ends it."""
        states = _optuna().trial.TrialState
        if failure:
            self._trial.set_user_attr(_FAILURE, failure)
        self._trial.study.tell(self._trial, score, states[state.upper()])

    def close(self) -> None:
        """Gives it back; one that has not ended can be taken up."""
        self._claim.close()


def _suggested(trial: Any, key: str, domain: Interval | Choices) -> Value:
    if isinstance(domain, Choices):
        choice: Value = trial.suggest_categorical(key, domain.values)
        return choice
    if isinstance(domain.low, int):
        whole: int = trial.suggest_int(key, domain.low, domain.high, step=domain.step or 1, log=domain.log)
        return whole
    number: float = trial.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)
    return number


class Study:
    """The trials of a search in its folder."""

    def __init__(self, folder: Path) -> None:
        """Opens a study, or begins one.

        Raises:
            InstallationError: Optuna is not installed. InputError: the file is no study, or cannot be locked.
        """
        optuna = _optuna()
        self._folder = folder
        (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        with self.locked():  # two would make the same tables
            try:
                self._storage = optuna.storages.RDBStorage(
                    f"sqlite:///{(folder / FILE).absolute()}",
                    engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}},
                )
                self._study = optuna.create_study(
                    storage=self._storage, study_name=_NAME, direction="maximize", load_if_exists=True
                )
            except Exception as error:  # of SQLAlchemy, which says it in many lines
                first = str(error).partition("\n")[0]
                raise InputError(f"{folder / FILE}: is no study ({first}); choose another folder") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process adds, takes up or deletes anything meanwhile."""
        lock = _claim(self._folder / CLAIMS / "study", _PATIENCE_S)
        if lock is None:
            raise InputError(f"{self._folder}: another process has kept it locked for {_PATIENCE_S:g} s; try again")
        with closing(lock):
            yield

    def take(self, space: Space, total: int, defaults: Mapping[str, Value], options: SearchOptions) -> OwnTrial | None:
        """A trial: one that was broken off, else a new one; None where `total` have begun. The first has the defaults.

        Settings follow from the seed, the number of the trial and the trials before it.
        """
        with self.locked():
            self._study.pruner = options.make_pruner()
            trials = self.trials()
            for trial in trials:
                if trial.state == RUNNING and (claim := self._claimed(trial.number)) is not None:
                    return OwnTrial(self._trial(trial.number), claim, space)
            begun = sum(trial.state != WAITING for trial in trials)
            if begun >= total:
                return None
            if not trials:
                self._study.enqueue_trial(dict(defaults))
            self._study.sampler = options.make_sampler(begun)
            asked = self._study.ask()
            claim = self._claimed(asked.number)
            assert claim is not None
            return OwnTrial(asked, claim, space)

    def _claimed(self, number: int) -> sqlite3.Connection | None:
        return _claim(self._folder / CLAIMS / f"{number:03d}")

    def _trial(self, number: int) -> Any:
        """A trial that has begun."""
        study = self._storage.get_study_id_from_name(_NAME)
        identity = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return _optuna().trial.Trial(self._study, identity)

    def forget(self) -> None:
        """Forgets the only trial, as if it had never begun."""
        with self.locked():
            if len(self.trials()) == 1:
                optuna = _optuna()
                optuna.delete_study(study_name=_NAME, storage=self._storage)
                self._study = optuna.create_study(storage=self._storage, study_name=_NAME, direction="maximize")

    def trials(self) -> tuple[TrialResult, ...]:
        """All, in order of their numbers."""
        return tuple(map(_result, self._study.get_trials(deepcopy=False)))

    def importances(self) -> dict[str, float]:
        """How much each setting tells the best complete trials from all, in fractions of 1; most important first.

        By PED-ANOVA (Watanabe and others, IJCAI 2023), of the best tenth, but no fewer than five and no more than half.
        Empty where fewer than five are complete.
        """
        optuna = _optuna()
        count = sum(trial.state == COMPLETE for trial in self.trials())
        if count < _LEAST_TRIALS:
            return {}
        fraction = min(_MOST, max(_LEAST, _LEAST_TRIALS / count))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=fraction)
        return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))

    def close(self) -> None:
        """Closes the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()


Sampler = Literal["tpe", "random", "qmc", "cmaes"]
Pruner = Literal["median", "hyperband", "none"]


@dataclass(frozen=True)
class SearchOptions:
    """How new trials get their settings, and which are ended early. epochs: of a trial."""

    sampler: Sampler
    pruner: Pruner
    seed: int
    epochs: int

    def make_sampler(self, number: int) -> Any:
        """The sampler of a trial. Each has its own, so that what it draws depends on no process."""
        samplers = _optuna().samplers
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        makers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: samplers.TPESampler(seed=seed),
            "random": lambda: samplers.RandomSampler(seed=seed),
            "qmc": lambda: samplers.QMCSampler(seed=self.seed, scramble=True, warn_independent_sampling=False),
            "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", _optuna().exceptions.ExperimentalWarning)
            return makers[self.sampler]()

    def make_pruner(self) -> Any:
        """The pruner of all trials."""
        pruners = _optuna().pruners
        makers: dict[str, Callable[[], Any]] = {
            "median": lambda: pruners.MedianPruner(),
            "hyperband": lambda: pruners.HyperbandPruner(min_resource=1, max_resource=self.epochs),
            "none": lambda: pruners.NopPruner(),
        }
        return makers[self.pruner]()


def _result(trial: Any) -> TrialResult:
    """From Optuna's form."""
    duration = trial.duration
    return TrialResult(
        trial.number,
        trial.state.name.lower(),
        None if trial.values is None else trial.value,
        dict(trial.params),
        dict(trial.intermediate_values),
        None if duration is None else duration.total_seconds(),
        trial.user_attrs.get(_FAILURE, ""),
    )


def _claim(file: Path, patience_s: float = 0.0) -> sqlite3.Connection | None:
    """A lock until it is closed or the process ends; None if another has it. SQLite's, which all systems have."""
    connection = sqlite3.connect(file, timeout=patience_s, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error) and "protocol" not in str(error):
            return None
        raise InputError(f"{file}: cannot be locked ({error}); choose a folder on a local disk") from error
    return connection


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InstallationError("tune needs Optuna; install it: pip install 'yolov7-jax[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
