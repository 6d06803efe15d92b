"""Logger tensorboard: event files in the folder of a run."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from yolov7_jax.files import append_whole
from yolov7_jax.registry import register_logger
from yolov7_jax.training.callbacks import Callback, RunInfo
from yolov7_jax.training.log import scalars
from yolov7_jax.training.loggers.tracker import extra

EVENTS = "tensorboard"
"""In the folder of a run."""


@register_logger("tensorboard")
class TensorBoard(Callback):
    """Adds rows to an event file, whole or not at all; those that a full disk has no room for come with the next.

    A resumed run has TensorBoard forget the points that come again.
    """

    def __init__(self) -> None:
        with extra("tensorboard"):
            from tensorboardX import record_writer
            from tensorboardX.proto import event_pb2, summary_pb2
        self._events, self._summaries, self._checksum = event_pb2, summary_pb2, record_writer.masked_crc32c

    def on_start(self, run: RunInfo) -> None:
        """Begins a file."""
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{run.step}"
        self._file, self._unwritten = run.folder / EVENTS / name, b""
        self._file.parent.mkdir(exist_ok=True)
        self._write(file_version="brain.Event:2")
        if run.step:
            restart = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=run.step + 1, session_log=restart)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Adds its numbers."""
        values = [self._summaries.Summary.Value(tag=name, simple_value=x) for name, x in scalars(row).items()]
        self._write(step=row["step"], summary=self._summaries.Summary(value=values))

    def _write(self, **fields: Any) -> None:
        """Adds an event as a TFRecord: its length and itself, each with its checksum."""
        event = self._events.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        for part in (length, event):
            self._unwritten += part + struct.pack("<I", self._checksum(part))
        append_whole(self._file, self._unwritten)
        self._unwritten = b""
