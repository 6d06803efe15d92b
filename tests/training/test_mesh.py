"""Batches over simulated devices."""

from typing import Any

import jax
import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.training.mesh import check_batch_size, data_mesh, replicated, shard_batch
from yolov7_jax.types import Batch, Candidates


def test_the_tests_run_on_several_devices() -> None:
    assert jax.device_count() == 4
    assert data_mesh().size == 4


def test_a_batch_is_split_in_order_and_missing_parts_stay_missing() -> None:
    mesh = data_mesh(jax.devices()[:2])
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    rest: dict[str, Any] = {name: np.zeros((4, 1)) for name in ("boxes_cxcywh_px", "class_ids", "valid", "overflow")}
    fine = Candidates(np.zeros((4, 1, 1), np.int32), np.zeros((4, 1, 1), bool))
    placed = shard_batch(Batch(image=images, fine=fine, coarse=None, index=np.arange(4), **rest), mesh)
    assert placed.coarse is None
    parts = [np.asarray(shard.data).ravel().tolist() for shard in placed.image.addressable_shards]
    assert parts == [[0, 1], [2, 3]]
    assert not placed.fine.index.sharding.is_fully_replicated
    assert jax.device_put(np.zeros(3), replicated(mesh)).is_fully_replicated


def test_a_batch_that_devices_cannot_share_is_refused() -> None:
    mesh = data_mesh()
    check_batch_size(8, mesh)
    with pytest.raises(InputError, match=r"train\.batch_size: 6 images .* by 4 devices; set it to 4 or 8"):
        check_batch_size(6, mesh)
    with pytest.raises(InputError, match=r"set it to 4$"):
        check_batch_size(3, mesh)
    with pytest.raises(InputError, match=r"set it to 4$"):
        check_batch_size(0, mesh)
