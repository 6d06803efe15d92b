"""What a run says while it runs: rows of metrics.jsonl, and TensorBoard events where wanted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.files import write_atomically

FILE, EVENTS = "metrics.jsonl", "tensorboard"
TRAIN, VAL, NONFINITE = "train", "val", "nonfinite"
"""Kinds of rows: means over some iterations, an evaluation, a batch that was skipped."""

TIMES = ("seconds", "images_per_second", "waiting")
"""Keys of a row that are not the same when the run is repeated: since the run began or was resumed (of an evaluation:
that it took), over the device's steps of this row, as a fraction of their time in which no batch was ready."""

Row = dict[str, Any]


class Log:
    """Appends rows to metrics.jsonl in a run folder. Rows are JSON objects with at least kind, step and epoch.

    Rows that cannot be written now (a full disk) are kept and written with the next.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False, writes: bool = True) -> None:
        """Opens the log of a run, new or begun.

        writes: this process does; of several, one.

        Raises:
            InstallationError: TensorBoard is wanted and tensorboardX is not installed.
        """
        self.file = folder / FILE
        self._writes = writes
        self._events = _writer()(str(folder / EVENTS)) if tensorboard and writes else None
        self._unwritten = ""

    def write(self, row: Row) -> None:
        """Adds a row; it is in the file when this returns. Numbers that are not finite become null.

        Raises:
            InputError: the file cannot be written now.
        """
        if not self._writes:
            return
        row = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        self._unwritten += json.dumps(row) + "\n"
        self._flush()
        if self._events is not None:
            with self._writing_events():
                for key, value in row.items():
                    if isinstance(value, float):
                        self._events.add_scalar(f"{row['kind']}/{key}", value, row["step"])

    def _flush(self) -> None:
        there = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(self._unwritten)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.file, there)  # what a full disk took of it
            raise InputError(
                f"{self.file}: cannot be written ({error.strerror}); its rows are kept and written with the next"
            ) from error
        self._unwritten = ""

    def rewind(self, step: int) -> None:
        """Drops the rows after a step: they will come again."""
        if not self._writes:
            return
        rows = [row for row in read_log(self.file) if row["step"] <= step]
        write_atomically(self.file, "".join(json.dumps(row) + "\n" for row in rows))

    def close(self) -> None:
        """Ends TensorBoard's file.

        Raises:
            InputError: it cannot be written now.
        """
        if self._events is not None:
            with self._writing_events():
                self._events.close()

    @contextmanager
    def _writing_events(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = self.file.parent / EVENTS
            raise InputError(f"{folder}: cannot be written ({error.strerror}); make room") from error


def read_log(file: Path) -> list[Row]:
    """The rows of a metrics.jsonl, none where it is not there; a last row that was cut off is left out.

    Raises:
        InputError: another row is no JSON object; names the line.
    """
    lines = file.read_bytes().splitlines() if file.is_file() else []
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:  # no JSON, no UTF-8
            if number == len(lines):
                break
            raise InputError(f"{file}, line {number}: not a row of metrics ({error}); remove the line") from error
    return rows


def mean_row(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One row for some iterations: rates and counters as the last one has them, the rest as means."""
    last = steps[-1]
    return {
        key: last[key] if key in _LAST or key.startswith("lr/") else sum(step[key] for step in steps) / len(steps)
        for key in last
    }


_LAST = frozenset({"momentum", "updates", "nonfinite", "nonfinite_in_row"})


def check_tensorboard() -> None:
    """Refuses a wish for TensorBoard events that cannot be fulfilled.

    Raises:
        InstallationError: tensorboardX is not installed.
    """
    _writer()


def _writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InstallationError(
            "train.tensorboard needs tensorboardX; install it: pip install 'yolov7-jax[tensorboard]'"
        ) from error
    return SummaryWriter
