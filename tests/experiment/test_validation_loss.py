"""The loss of a run on its validation images."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.experiment.small_run import small_config, write_data
from tests.training.test_step import make_batch
from yolov7_jax.convert.load import resolve
from yolov7_jax.experiment import resume, train
from yolov7_jax.experiment.preparation import open_data
from yolov7_jax.experiment.setup import Given, loss_of, step_parts
from yolov7_jax.experiment.validation_loss import validation_losses
from yolov7_jax.image import read_image
from yolov7_jax.nn.network import Network, init
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.prefetch import no_progress
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.log import read_log
from yolov7_jax.training.mesh import data_mesh
from yolov7_jax.training.stop import Stopped


def test_it_is_the_loss_of_training_in_inference_without_augmentation(tmp_path: Path) -> None:
    """The oracle reads files and calls the loss itself; all ten images are in one batch, so their order is nothing."""
    data = write_data(tmp_path)
    mirrored = {"fliplr": 1.0, "mixup": 1.0, "scale": 0.9, "hsv_v": 0.9}
    config = small_config(data, augment=mirrored, train={"batch_size": 10}, data={"sampling": "balanced"})
    graph = resolve(str(tmp_path / "model.yaml"))
    variables = init(graph, jax.random.key(1))
    parts = step_parts(config, graph, 1, Given())
    val = open_data(config, Callback(), no_progress).val
    assert val is not None
    losses = validation_losses(config, parts, val, data_mesh(jax.devices()[:1]))
    found = losses(jax.tree.map(np.asarray, variables), lambda: None)

    images = np.stack([read_image(data.parent / "images" / f"{number}.png") for number in range(10)])
    lines = [np.loadtxt(data.parent / "labels" / f"{number}.txt") for number in range(10)]
    boxes, class_ids = np.stack([64 * rows[:, 1:] for rows in lines]), np.stack([rows[:, 0] for rows in lines])
    outputs = Network(graph).apply(variables, images / np.float32(255))
    grid = make_grid(graph.anchors, graph.strides, (64, 64))
    _, items = loss_of(config, graph)(outputs, make_batch(graph, images, boxes, class_ids), grid)
    assert items["positives_per_box"] > 1
    assert found.keys() == {f"val_{name}" for name in items}
    for name, value in items.items():  # the order of sums, in float32
        np.testing.assert_allclose(found[f"val_{name}"], value, rtol=1e-5, err_msg=name)
    assert found == losses(jax.tree.map(np.asarray, variables), lambda: None)

    def stop() -> None:
        raise Stopped(15)

    with pytest.raises(Stopped):
        losses(variables, stop)


def test_evaluations_have_it_and_a_loss_that_fails_there_leaves_them_be(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    settings = {"epochs": 2, "val_every_epochs": 1, "val_loss": True}
    whole = train(small_config(data, train=settings), tmp_path / "run").folder
    rows = [row for row in read_log(whole / "metrics.jsonl") if row["kind"] == "val"]
    assert len(rows) == 2
    for row in rows:  # of batches that are full and one that is filled up
        assert row["val_total"] == pytest.approx(row["val_box"] + row["val_obj"] + row["val_cls"], rel=1e-5)
    assert rows[0]["val_total"] != rows[1]["val_total"]
    resume(whole, ["train.val_loss=false", "train.epochs=3"])
    assert "val_total" not in read_log(whole / "metrics.jsonl")[-1]

    heard: list[str] = []

    class Listener(Callback):
        def log(self, text: str) -> None:
            heard.append(text)

    config = small_config(data, train={**settings, "epochs": 1})
    built_in = loss_of(config, resolve(str(tmp_path / "model.yaml")))

    def fails_in_inference(outputs, batch, grid):
        if not hasattr(outputs.lead, "primal"):  # no gradient is asked for
            raise RuntimeError("mine alone")
        return built_in(outputs, batch, grid)

    done = train(config, tmp_path / "failing", callbacks=[Listener()], loss=fails_in_inference)
    (row,) = (row for row in read_log(done.folder / "metrics.jsonl") if row["kind"] == "val")
    assert row["AP"] >= 0
    assert "val_total" not in row
    assert any("the loss of the validation images failed" in text and "mine alone" in text for text in heard)
