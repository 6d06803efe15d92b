"""A search whose runs take no time; as a script it searches in a folder, which several can do at once.

python quick_search.py FOLDER TRIALS SECONDS prints a line for each evaluation; a run takes so many seconds.
"""

import json
import math
import sys
import time
from pathlib import Path

from yolov7_jax.config import Config
from yolov7_jax.config_file import config_dict, make_config, read_config
from yolov7_jax.experiment.training import TrainingRun
from yolov7_jax.experiment.tuning import report, run
from yolov7_jax.files import write_atomically, yaml_text
from yolov7_jax.training.callbacks import Callbacks, RunInfo
from yolov7_jax.training.log import FILE, read_log
from yolov7_jax.training.loop import DivergedError

EPOCHS, STEPS_OF_EPOCH = 4, 10
SPACE = {"optim.lr0": {"low": 1e-4, "high": 1.0, "log": True}, "augment.degrees": {"low": 0.0, "high": 10.0}}


def config(**train: object) -> Config:
    return make_config({"train": {"epochs": EPOCHS, **train}}, where="test")


def true_score(config: Config) -> float:
    """Best where the learning rate is 0.1; the other setting does not matter."""
    return 0.9 / (1 + (math.log10(config.optim.lr0) + 1) ** 2)


class QuickRuns:
    """In place of `train` and `resume`: runs that leave the files of a run and score what `true_score` says."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.begun, self.resumed = seconds, [], []
        self.signal_at: tuple[int, int] | None = None  # trial and epoch
        self.raises: dict[int, Exception] = {}

    def train(self, config, folder, *, callbacks, progress, **given):
        self.begun.append((Path(folder).name, config))
        number = int(Path(folder).name)
        if number in self.raises and not isinstance(self.raises[number], DivergedError):
            raise self.raises[number]
        assert not Path(folder).exists()  # a run begins in a new folder
        write_atomically(Path(folder) / "config.yaml", yaml_text(config_dict(config)))
        return self._run(config, Path(folder), callbacks, 0)

    def resume(self, folder, *, callbacks, progress, **given):
        done = read_log(Path(folder) / FILE)
        self.resumed.append((Path(folder).name, len(done)))
        return self._run(read_config(Path(folder) / "config.yaml"), Path(folder), callbacks, len(done))

    def _run(self, config: Config, folder: Path, callbacks, first: int) -> TrainingRun:
        asked: list[str] = []
        number = int(folder.name)
        looking_on = Callbacks(callbacks)
        steps = EPOCHS * STEPS_OF_EPOCH
        (folder / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
        (folder / "best.safetensors").touch()
        looking_on.on_start(RunInfo(folder, config, steps, first * STEPS_OF_EPOCH, asked.append))
        for epoch in range(first + 1, EPOCHS + 1):
            if asked:
                break
            time.sleep(self.seconds / EPOCHS)
            if number in self.raises:
                raise self.raises[number]
            part = true_score(config) * epoch / EPOCHS
            row = {"kind": "val", "step": epoch * STEPS_OF_EPOCH, "epoch": epoch, "AP": part, "AP50": part}
            with (folder / FILE).open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            looking_on.on_evaluation(row, best=True)
            if self.signal_at == (number, epoch):
                return TrainingRun(folder, row["step"], part, row["step"], "fitness", False, 15)
        rows = read_log(folder / FILE)
        best = max(0.9 * row["AP"] + 0.1 * row["AP50"] for row in rows)
        step = rows[-1]["step"]
        return TrainingRun(folder, step, best, step, "fitness", step == steps, None, "; ".join(asked))


def replace_runs(runs: QuickRuns, patch=setattr) -> QuickRuns:
    """Has searches make these runs, and draw no figure."""
    patch(run, "train", runs.train)
    patch(run, "resume", runs.resume)
    patch(report, "tuning_figure", lambda *_: None)
    patch(report, "save_figure", lambda *_: None)
    return runs


class Printer:
    def on_evaluation(self, row, *, best):
        print("evaluated", row["epoch"], flush=True)


if __name__ == "__main__":
    folder, trials, seconds = sys.argv[1:]
    runs = replace_runs(QuickRuns(float(seconds)))
    run.tune(config(), SPACE, folder, trials=int(trials), pruner="none", callbacks=[Printer()])
    print("did", *(name for name, _ in runs.begun + runs.resumed), flush=True)
