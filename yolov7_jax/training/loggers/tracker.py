"""What loggers have in common: the library that one needs, and runs that a library knows by an id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from yolov7_jax.config_file import config_dict
from yolov7_jax.errors import InstallationError
from yolov7_jax.files import write_atomically
from yolov7_jax.training.callbacks import Callback, RunInfo
from yolov7_jax.training.log import scalars

Settings = dict[str, dict[str, Any]]
"""Of a run, by section and key."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports in it need this extra of the package.

    Raises:
        InstallationError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise InstallationError(
            f"train.loggers: {name} cannot be imported ({error}); install it: pip install 'yolov7-jax[{name}]'"
        ) from error


class Tracker(Callback):
    """Hands a run on to a library that keeps runs; a resumed run is the same one there. Override the abstract methods.

    name: of the library, and of the file with the run's id in its folder. run_id: "" where the library could not
    begin; then nothing is handed on.
    """

    name: ClassVar[str]
    run_id = ""

    @abstractmethod
    def begin(self, folder: Path, settings: Settings, run_id: str | None) -> str:
        """Begins a run, or goes on with the one of this id, and returns its id; folder is a whole path."""

    @abstractmethod
    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a row by name (`scalars`)."""

    @abstractmethod
    def set_best(self, step: int, numbers: Mapping[str, float]) -> None:
        """Notes the best evaluation so far: best/AP and so on."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Waits until all is stored. status: finished, killed (it can be resumed) or failed."""

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`."""
        file = run.folder / f"{self.name}.id"
        known = file.read_text(encoding="utf-8").strip() if file.is_file() else None
        run_id = self.begin(run.folder.resolve(), config_dict(run.config), known)
        write_atomically(file, run_id + "\n")
        self.run_id = run_id

    def on_row(self, row: Mapping[str, Any]) -> None:
        """See `Callback`."""
        if self.run_id:
            self.add(row["step"], scalars(row))

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:
        """See `Callback`."""
        if self.run_id and best:
            self.set_best(row["step"], scalars({**row, "kind": "best"}))

    def on_end(self, step: int, *, finished: bool) -> None:  # noqa: ARG002
        """See `Callback`."""
        if self.run_id:
            self.end("finished" if finished else "killed")

    def on_fault(self, error: BaseException) -> None:  # noqa: ARG002
        """See `Callback`."""
        if self.run_id:
            self.end("failed")
