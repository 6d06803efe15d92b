import errno
import os
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus


class State(NamedTuple):
    step: Any
    params: Any
    gradients: Any


def state(step: int) -> State:
    return State(jnp.int32(step), {"a": {"b": jnp.arange(5.0) / 3 + step}}, None)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    status = RunStatus(3, pending=({"box": 1 / 3},))
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state(3), status)
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored, again = checkpoints.restore(state(0))
    assert again == status
    assert restored.gradients is None
    np.testing.assert_array_equal(restored.params["a"]["b"], state(3).params["a"]["b"])


def test_nothing_saved_is_nothing(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.restore(state(0)) is None


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step, best in ((1, None), (2, 1), (3, 2), (4, 2), (5, 2)):
            checkpoints.best_step = best  # as it is known before this step is evaluated
            checkpoints.save(state(step), RunStatus(step))
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir()) == [2, 4, 5]


def test_a_step_that_is_there_is_left_alone(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state(1), RunStatus(1))
        checkpoints.save(state(1)._replace(step=jnp.int32(9)), RunStatus(1))
        checkpoints.wait()
        restored, _ = checkpoints.restore(state(0))
    assert int(restored.step) == 1


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c") as checkpoints:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(type(checkpoints._manager), "save", raising(full))
        with pytest.raises(InputError, match=r"c: the checkpoint cannot be .*No space.*; make room") as told:
            checkpoints.save(state(1), RunStatus(1))
    assert "\n" not in str(told.value)


def test_a_disk_that_is_full_when_the_last_step_is_written_is_one_sentence(tmp_path, monkeypatch):
    # As tensorstore says it: "RESOURCE_EXHAUSTED: Error writing … [os_error_code='28']".
    full = ValueError(f"RESOURCE_EXHAUSTED: Error writing local file\n[os_error_code='{errno.ENOSPC}']")
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.close", raising(full))
    told = rf"^\S*c: the checkpoint cannot be written \({os.strerror(errno.ENOSPC)}\); make room, then resume the run$"
    with pytest.raises(InputError, match=told), Checkpoints(tmp_path / "c"):
        pass
    with pytest.raises(RuntimeError, match="of somebody else"), Checkpoints(tmp_path / "c"):
        raise RuntimeError("an error of somebody else")


def raising(error: Exception) -> Any:
    def fail(*_args, **_options):
        raise error

    return fail


def test_arrays_may_be_donated_while_they_are_written(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    given = state(1)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(given, RunStatus(1))
        change(given)
        checkpoints.wait()
        restored, _ = checkpoints.restore(state(0))
    np.testing.assert_array_equal(restored.params["a"]["b"], state(1).params["a"]["b"])


def test_what_an_interrupted_writing_left_is_no_step(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state(1), RunStatus(1))
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "half").write_text("half")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest == 1
        checkpoints.save(state(2), RunStatus(2))
        checkpoints.wait()
        assert checkpoints.latest == 2


@pytest.mark.parametrize("part", ["arrays", "status"])
def test_a_damaged_step_is_named(tmp_path, part):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state(1), RunStatus(1))
    shutil.rmtree(tmp_path / "c" / "1" / part)
    told = r"c/1: the checkpoint cannot be restored \([^\n]+\); remove that folder"
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(InputError, match=told):
        checkpoints.restore(state(0))


def test_a_state_of_another_shape_is_refused_and_named(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state(1), RunStatus(1))
        checkpoints.wait()
        other = state(0)._replace(params={"a": {"b": jnp.zeros(7)}})
        with pytest.raises(
            InputError, match=r"c/1: the checkpoint is of another network .* params/a/b: \(5,\) there, \(7,\) wanted"
        ):
            checkpoints.restore(other)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/c: cannot be written"):
        Checkpoints(tmp_path / "file" / "c")
