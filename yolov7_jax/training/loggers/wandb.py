"""Logger wandb: Weights & Biases, online or, with WANDB_MODE=offline, in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolov7_jax.errors import InputError
from yolov7_jax.registry import register_logger
from yolov7_jax.training.loggers.tracker import Settings, Tracker, extra


@register_logger("wandb")
class WandB(Tracker):
    """Rows over their steps, settings, and the best evaluation in the summary; its own environment says where and how.

    Unless WANDB_PROJECT, WANDB_NAME or WANDB_DIR do, the folders of the run name project and run and keep its files.
    """

    name = "wandb"

    def __init__(self) -> None:
        with extra(self.name):
            import wandb
        self._wandb: Any = wandb
        if wandb.setup().settings.mode == "online":
            try:
                known = wandb.login(prompt=False)
            except wandb.Error:  # no network, say: reported when the run begins, which goes on
                return
            if not known:
                raise InputError("train.loggers: wandb has no API key; run `wandb login`, or set WANDB_MODE=offline")

    def begin(self, folder: Path, settings: Settings, run_id: str | None) -> str:
        """See `Tracker`."""
        ours = {"project": folder.parent.name, "name": folder.name, "dir": str(folder)}
        free = {key: value for key, value in ours.items() if f"WANDB_{key.upper()}" not in os.environ}
        quiet = self._wandb.Settings(console="off", silent=True)
        options = {"config": settings, "settings": quiet, "reinit": "create_new", "resume": "allow"}
        self._run = self._wandb.init(**free, **options, id=run_id)
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log({"step": step, **numbers})

    def set_best(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.summary.update({"best/step": step, **numbers})

    def end(self, status: str) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=int(status == "failed"))
