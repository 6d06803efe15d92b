"""Runs whose batches have several shapes, or images of which some are seen more often."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.experiment.small_run import small_config, write_data
from tests.experiment.test_training import Listener
from yolov7_jax.config import Config
from yolov7_jax.convert.weights_file import save
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import show_samples, train
from yolov7_jax.experiment.preparation import starting_weights, training_pipeline
from yolov7_jax.image import read_image, write_image
from yolov7_jax.training.log import read_log
from yolov7_jax.training.state import TrainState
from yolov7_jax.training.step import make_step
from yolov7_jax.types import Batch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, of which four are wide and two are high; two have three times as many bright objects."""
    folder = tmp_path_factory.mktemp("data")
    file = write_data(folder)
    for number in range(6):
        image = read_image(folder / "images" / f"{number}.png")
        write_image(folder / "images" / f"{number}.png", image[:40] if number < 4 else image[:, :25])
    for number in (0, 5):
        labels = folder / "labels" / f"{number}.txt"
        labels.write_text(labels.read_text() + "\n0 0.5 0.5 0.2 0.2\n0 0.4 0.5 0.2 0.2")
    return file


SIZES = {
    "augment": {"close_mosaic": 1, "mixup": 0.5},
    "data": {"sampling": "repeat_factor", "repeat_threshold": 1},
    "train": {"multi_scale": [0.5, 1], "epochs": 2, "val_every_epochs": 0},
}
RECTANGLES = {"data": {"sampling": "balanced"}, "train": {"rect": True, "val_every_epochs": 0}}


def count_traces(monkeypatch: pytest.MonkeyPatch, *, quickly: bool) -> list[tuple[int, int]]:
    """The (h, w) of the batches that a step will be traced with; quickly: the step only counts."""
    shapes = []

    def counted(*args: Any, **options: Any) -> Any:
        step = make_step(*args, **options)

        def counting(state: TrainState, batch: Batch) -> Any:
            shapes.append(batch.image.shape[1:3])
            if not quickly:
                return step(state, batch)
            brightness = batch.image.mean(dtype=np.float32)
            return state._replace(step=state.step + 1), {"total": brightness, "finite": brightness > 0}

        return jax.jit(counting)

    monkeypatch.setattr("yolov7_jax.experiment.setup.make_step", counted)
    return shapes


def test_a_run_of_several_sizes_traces_each_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, heard = count_traces(monkeypatch, quickly=True), Listener()
    assert train(small_config(data, **SIZES), tmp_path / "run", callbacks=[heard]).finished
    assert traced == [(64, 64), (32, 32)]  # the memory of the largest is told of first
    said = [note.partition(":")[0] for note in heard.notes if note.startswith(("compiling", "memory"))]
    assert said == [
        "compiling the training step for images of 64 × 64 pixels",
        "memory of a step on each device",
        "compiling the training step for images of 32 × 32 pixels",
    ]


def test_a_run_of_rectangles_traces_each_shape_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = data.parent / "half.yaml"
    half.write_text("train: half.txt\nnames: [bright, dark]\n")
    (data.parent / "half.txt").write_text("\n".join(f"./images/{number}.png" for number in (0, 1, 2, 3, 6, 7, 8, 9)))
    config = small_config(half, train={"rect": True, "epochs": 2, "val_every_epochs": 0})
    traced = count_traces(monkeypatch, quickly=False)
    assert train(config, tmp_path / "run").finished
    assert traced == [(64, 64), (48, 64)]
    assert np.isfinite([row["total"] for row in read_log(tmp_path / "run" / "metrics.jsonl")]).all()


def test_samples_of_rectangles_are_drawn_with_their_cells(data: Path, tmp_path: Path) -> None:
    files = show_samples(small_config(data, **RECTANGLES), tmp_path / "show", images=2, assign=True)
    assert [file.name for file in files] == ["samples-1.png", "assigned-1.png", "assigned-2.png"]


def pipeline_of(config: Config) -> Any:
    source = open_source(config.data.path, "train")
    weights, _ = starting_weights(config, source.names)
    return training_pipeline(config, weights.graph, source)


def test_settings_reach_the_pipeline(data: Path) -> None:
    plain = pipeline_of(small_config(data))
    assert (plain.shapes, plain.buckets, plain.repeats, plain.epochs) == (((64, 64),), None, None, 4)
    sizes = pipeline_of(small_config(data, **SIZES))
    assert sizes.shapes == ((32, 32), (64, 64))
    assert sizes.repeats.tolist() == [1] * 10  # every class is in every image
    rectangles = pipeline_of(small_config(data, **RECTANGLES))
    assert rectangles.shapes == ((48, 64), (64, 64), (64, 32))
    assert rectangles.buckets.tolist() == [0] * 4 + [2] * 2 + [1] * 4
    # 14 objects of class 0, 10 of class 1
    weights = np.array([n / 14 + 1 / 10 for n in (3, 1, 1, 1, 1, 3, 1, 1, 1, 1)])
    np.testing.assert_allclose(rectangles.repeats, weights * 5, rtol=1e-12)  # float64; the weights sum to 2
    chosen = pipeline_of(small_config(data, data={"sampling": "balanced", "class_weights": [1, 0]}))
    np.testing.assert_allclose(chosen.repeats, np.array([3, 1, 1, 1, 1, 3, 1, 1, 1, 1]) * 10 / 14, rtol=1e-12)


def test_anchors_of_the_configuration_take_the_place_of_the_networks(data: Path, tmp_path: Path) -> None:
    anchors = [[5, 6, 7, 8], [20, 21, 30, 31.5]]
    expected = (((5, 6), (7, 8)), ((20, 21), (30, 31.5)))
    fresh, _ = starting_weights(small_config(data, model={"anchors": anchors}), ("bright", "dark"))
    assert fresh.graph.anchors == expected
    save(tmp_path / "stored.safetensors", fresh)
    kept, _ = starting_weights(
        small_config(data, model={"weights": str(tmp_path / "stored.safetensors")}), ("bright", "dark")
    )
    assert kept.graph.anchors == expected
    others = {"weights": str(tmp_path / "stored.safetensors"), "anchors": [anchors[0], [9, 9, 9, 10]]}
    changed, _ = starting_weights(small_config(data, model=others), ("bright", "dark"))
    assert changed.graph.anchors == (((5, 6), (7, 8)), ((9, 9), (9, 10)))


@pytest.mark.parametrize(
    "anchors",
    [[[5, 6, 7, 8]], [[5, 6], [7, 8]], [[5, 6, 7], [8, 9, 9]], [[5, 6, 7, 0], [1] * 4], [[5, 6, 7, np.nan], [1] * 4]],
)
def test_anchors_that_do_not_fit_are_refused(data: Path, anchors: Any) -> None:
    with pytest.raises(InputError, match=r"model\.anchors is .*model\.yaml needs 2 levels of 4 numbers over 0"):
        starting_weights(small_config(data, model={"anchors": anchors}), ("bright", "dark"))
