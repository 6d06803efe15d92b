"""What a run says while it runs: rows of metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolov7_jax.errors import InputError
from yolov7_jax.files import append_whole, write_atomically
from yolov7_jax.training import hosts
from yolov7_jax.types import Batch

FILE = "metrics.jsonl"
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

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        """The log of a run, new or begun. writes: this process does; of several, one."""
        self.file = folder / FILE
        self._writes = writes
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
        append_whole(self.file, self._unwritten.encode())
        self._unwritten = ""

    def rewind(self, step: int) -> None:
        """Drops the rows after a step: they will come again."""
        if not self._writes:
            return
        rows = [row for row in read_log(self.file) if row["step"] <= step]
        write_atomically(self.file, "".join(json.dumps(row) + "\n" for row in rows))


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


class Pace:
    """Images a second since the last row of the log, and the share of that time spent waiting for a batch."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.restart()

    def restart(self) -> None:
        """Forgets what was, such as an evaluation."""
        self._since, self._waited, self._images = time.perf_counter(), 0.0, 0

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, whose images it counts."""
        began = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - began
            self._images += len(batch.image) * hosts.place()[1]
            yield batch
            began = time.perf_counter()

    def facts(self) -> dict[str, float]:
        """For a row of the log (`TIMES`)."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        rates = {"images_per_second": self._images / elapsed, "waiting": self._waited / elapsed}
        self.restart()
        return {"seconds": now - self._began, **rates}


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row but its step and epoch, by names such as train/box, val/AP and val/AP_of_class/cat.

    Nested dictionaries are flattened; what is no number, or not finite, is left out.
    """
    told = {key: value for key, value in row.items() if key not in ("kind", "step", "epoch")}
    return dict(_numbers(row["kind"], told))


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, value
