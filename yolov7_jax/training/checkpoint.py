"""Checkpoints of a run: the door to Orbax. What is saved is all that a run needs to go on as if never interrupted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from yolov7_jax.errors import InputError

_ARRAYS, _STATUS = "arrays", "status"
_LATEST_KEPT = 2  # one to go on from, and one should that be damaged
_SCORE = "score"
_UNKNOWN_SCORE = -1.0  # of steps that are not evaluated: below any average precision


@dataclass(frozen=True)
class RunStatus:
    """What a run knows beside its arrays: plain values, so that they are bit-equal after JSON.

    step: iterations done; the data position, for a batch is a function of seed and step. evaluated: whether the
    evaluation due at this step is done. score, best_score: of the last and of the best evaluation. best_step: of that.
    pending: metrics of steps that no row of the log has told of yet.
    """

    step: int = 0
    evaluated: bool = False
    score: float | None = None
    best_score: float | None = None
    best_step: int | None = None
    pending: tuple[dict[str, float], ...] = field(default=())


class Checkpoints:
    """Steps in a folder: the latest two and the best one are kept, written while training goes on.

    Use it as a context: leaving waits for what is being written.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, and clears what an interrupted writing left behind.

        Raises:
            InputError: the folder cannot be made.
        """
        self.folder = folder.absolute()
        kept = managers.AnyPreservationPolicy(
            [
                managers.LatestN(_LATEST_KEPT),
                managers.BestN(get_metric_fn=_score, n=1, reverse=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=kept, best_fn=_score, create=True, cleanup_tmp_directories=True
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=options,
                item_handlers={_ARRAYS: ocp.StandardCheckpointHandler(), _STATUS: ocp.JsonCheckpointHandler()},
            )
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The last step that is wholly written."""
        return self._manager.latest_step()

    def save(self, state: Any, status: RunStatus) -> None:
        """Begins to write a step; the arrays may be donated at once. A step written before is written anew."""
        step = status.step
        if step in self._manager.all_steps():
            self._manager.wait_until_finished()
            self._manager.delete(step)
        arrays = ocp.args.StandardSave(state._asdict())
        content = ocp.args.Composite(**{_ARRAYS: arrays, _STATUS: ocp.args.JsonSave(dataclasses.asdict(status))})
        score = status.score if status.evaluated and status.score is not None else _UNKNOWN_SCORE
        self._manager.save(step, args=content, metrics={_SCORE: score})

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[Any, RunStatus] | None:
        """The latest state and its status; None where there is none.

        Args:
            like: a state of the same form: arrays, or `jax.ShapeDtypeStruct`s with the shardings wanted.

        Raises:
            InputError: the checkpoint cannot be read, or is of another network or optimizer.
        """
        self._manager.wait_until_finished()  # one that is still being written is there, and is not
        step = self.latest
        if step is None:
            return None
        self._check(step, like)
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        items = {_ARRAYS: ocp.args.StandardRestore(wanted._asdict()), _STATUS: ocp.args.JsonRestore()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{self.folder / str(step)}: the checkpoint cannot be restored ({reason}); remove that folder to go on "
                "from the one before it"
            ) from error
        values = restored[_STATUS]
        status = RunStatus(**{**values, "pending": tuple(values["pending"])})
        return type(like)(**restored[_ARRAYS]), status

    def _check(self, step: int, like: Any) -> None:
        """Refuses a step whose arrays are not those wanted, before anything is read."""
        stored = _shapes(self._manager.item_metadata(step)[_ARRAYS].tree)
        wanted = _shapes(like._asdict())
        different = sorted(path for path in stored.keys() | wanted.keys() if stored.get(path) != wanted.get(path))
        if different:
            path = different[0]
            raise InputError(
                f"{self.folder / str(step)}: the checkpoint is of another network or optimizer ({len(different)} "
                f"arrays differ, first {path}: {stored.get(path, 'absent')} there, {wanted.get(path, 'absent')} wanted)"
                "; go on with the configuration it was made with"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _score(metrics: dict[str, float]) -> float:
    return metrics[_SCORE]
