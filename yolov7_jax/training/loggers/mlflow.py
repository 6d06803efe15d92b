"""Logger mlflow: a tracking server, or without MLFLOW_TRACKING_URI a database in the working directory."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from yolov7_jax.config_file import by_name
from yolov7_jax.registry import register_logger
from yolov7_jax.training.loggers.tracker import Settings, Tracker, extra


@register_logger("mlflow")
class MLflow(Tracker):
    """Rows over their steps, settings, and the best evaluation as best/AP …, sent by a thread of the library.

    Unless MLFLOW_EXPERIMENT_NAME does, the folder above the run's names the experiment.
    """

    name = "mlflow"

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # on the console
        os.environ.setdefault("MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS", "10")  # rows together cost a third
        with extra(self.name):
            import mlflow
        self._mlflow = mlflow

    def begin(self, folder: Path, settings: Settings, run_id: str | None) -> str:
        """See `Tracker`."""
        client = self._client = self._mlflow.MlflowClient()
        if run_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", folder.parent.name)
            known = client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else client.create_experiment(name)
            run_id = client.create_run(experiment, run_name=folder.name).info.run_id
            self._send(run_id, "params", [self._mlflow.entities.Param(*item) for item in by_name(settings).items()])
        client.update_run(run_id, status="RUNNING")
        return run_id

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`; names have _ where the library takes no such letter."""
        names, now = {name: re.sub(r"[^\w.\-/ :]", "_", name) for name in numbers}, int(1000 * time.time())
        entries = [self._mlflow.entities.Metric(names[name], value, now, step) for name, value in numbers.items()]
        self._send(self.run_id, "metrics", entries)

    set_best = add

    def _send(self, run_id: str, kind: str, entries: list[object]) -> None:
        for at in range(0, len(entries), 100):  # a server takes no more params at once
            self._client.log_batch(run_id, **{kind: entries[at : at + 100]}, synchronous=False)

    def end(self, status: str) -> None:
        """See `Tracker`."""
        self._mlflow.flush_async_logging()
        self._client.set_terminated(self.run_id, status.upper())
