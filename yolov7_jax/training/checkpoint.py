"""Checkpoints of a run: the door to Orbax. What is saved is all that a run needs to go on as if never interrupted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from yolov7_jax.errors import GoneError, InputError

_ARRAYS, _STATUS = "arrays", "status"
_LATEST_KEPT = 2  # one to go on from, and one should that be damaged


@dataclass(frozen=True)
class RunStatus:
    """What a run knows beside its arrays: plain values, so that they are bit-equal after JSON.

    step: iterations done; the data position, for a batch is a function of seed and step. pending: metrics of steps that
    no row of the log has yet. The others are read from the log: whether the evaluation due at this step is
    done, the scores of the last and of the best evaluation, and the step of that.
    """

    step: int = 0
    pending: tuple[dict[str, float], ...] = ()
    evaluated: bool = False
    score: float | None = None
    best_score: float | None = None
    best_step: int | None = None


class Checkpoints:
    """Steps in a folder: the latest two and the best one are kept, written while training goes on.

    Use it as a context: leaving waits for what is being written. best_step: which one is the best, as its user says.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, and clears what an interrupted writing left behind.

        Raises:
            InputError: the folder cannot be made.
        """
        self.folder = folder.absolute()
        self.best_step: int | None = None
        kept = managers.AnyPreservationPolicy([managers.LatestN(_LATEST_KEPT), _Best(self)])
        options = ocp.CheckpointManagerOptions(preservation_policy=kept, create=True, cleanup_tmp_directories=True)
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for what is being written; where something failed already, that is what is reported.

        Raises:
            InputError: something cannot be written.
        """
        with suppress(InputError) if kind else nullcontext(), self._writing():
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """The last step that is wholly written."""
        return self._manager.latest_step()

    def save(self, state: Any, status: RunStatus) -> None:
        """Begins to write a step, if it is not there; the arrays may be donated at once.

        Raises:
            InputError: this one or the one before cannot be written.
        """
        if status.step in self._manager.all_steps():
            return
        arrays = ocp.args.StandardSave(state._asdict())
        plain = ocp.args.JsonSave({"step": status.step, "pending": status.pending})
        with self._writing():
            self._manager.save(status.step, args=ocp.args.Composite(**{_ARRAYS: arrays, _STATUS: plain}))

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            InputError: something cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What tensorstore says of a full or lost disk is many lines: the sentence names the folder and the reason."""
        try:
            yield
        except (OSError, ValueError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            reason = os.strerror(int(code[1])) if code else str(error).partition("\n")[0]
            raise InputError(
                f"{self.folder}: the checkpoint cannot be written ({reason}); make room, then resume the run"
            ) from error

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
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        items = {_ARRAYS: ocp.args.StandardRestore(wanted._asdict()), _STATUS: ocp.args.JsonRestore()}
        try:
            self._check(step, like)
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{self.folder / str(step)}: the checkpoint cannot be restored ({reason}); remove that folder to go on "
                "from the one before it"
            ) from error
        values = restored[_STATUS]
        return type(like)(**restored[_ARRAYS]), RunStatus(values["step"], tuple(values["pending"]))

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


def wait_for_all(key: str, timeout_s: int) -> None:
    """Returns when all processes have called it with a key, which none may use twice; no device waits.

    Raises:
        GoneError: a process has ended, or does not come in time.
    """
    try:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_s * 1000)
    except RuntimeError as error:
        raise GoneError.told_by(error) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


class _Best(managers.PreservationPolicy):
    """Keeps the step that is the best one when the next is saved."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of the steps there are."""
        del context
        return [there.step == self._checkpoints.best_step for there in checkpoints]
