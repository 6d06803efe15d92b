"""Runs whose parts are objects that a user brings."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.data import user_transforms
from tests.experiment.small_run import small_config, write_data
from yolov7_jax.assign.ota import OTA
from yolov7_jax.convert.load import load
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import resume, train, validate
from yolov7_jax.graph.parse import parse
from yolov7_jax.inference.detector import Detector
from yolov7_jax.nn.network import init
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.log import read_log
from yolov7_jax.types import Assignment, Labels, Sample


class Minimal:
    """The four things of a source, and nothing else, over an open source."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self.names = whole.names

    def __len__(self) -> int:
        return len(self._whole)

    def __getitem__(self, index: int) -> Sample:
        return self._whole[index]

    def labels(self, index: int) -> Labels:
        return self._whole.labels(index)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_data(folder)
    return folder


def weights_of(folder: Path) -> Any:
    return load(folder).variables["params"]


def test_the_same_parts_as_objects_give_the_same_weights(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", train={"epochs": 2, "val_every_epochs": 0})
    named = train(config, tmp_path / "named")
    source = open_source(home / "data.yaml", "train")

    used = []

    def sgd(now: Any, labels: Any, config: Any) -> optax.GradientTransformation:
        used.append(now)

        def group(rate: Any, decay: float) -> optax.GradientTransformation:
            parts = optax.add_decayed_weights(decay), optax.trace(now.momentum, nesterov=True), optax.scale(-rate)
            return optax.chain(*parts)

        rates = {"weight": (now.weight, config.weight_decay), "bias": (now.bias, 0.0), "norm": (now.norm, 0.0)}
        groups = {name: group(*pair) for name, pair in rates.items()}
        return optax.partition({**groups, "frozen": optax.set_to_zero()}, labels)

    bare = dataclasses.replace(config, data=dataclasses.replace(config.data, path=""))
    brought = train(
        bare, tmp_path / "brought", data=(Minimal(source), None), assigner=OTA(10, 3.0, "images"), optimizer=sgd
    )
    assert used
    for ours, theirs in zip(*(jax.tree.leaves(weights_of(run.folder)) for run in (brought, named)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_source_of_four_things_is_evaluated_as_any_other(home: Path) -> None:
    graph = parse(home / "model.yaml")
    names = ("bright", "dark")
    detector = Detector(Weights(graph, jax.tree.map(np.asarray, init(graph, jax.random.key(0))), names), size=64)
    source = open_source(home / "data.yaml", "train")
    ours, theirs = (validate(detector, given).result for given in (Minimal(source), source))
    assert ours.numbers() == theirs.numbers()
    assert ours.per_class == theirs.per_class
    assert ours.per_class[0].boxes == len(source)


def nothing(raw: Any, boxes: Any, class_ids: Any, valid: Any, candidates: Any, grid: Any) -> Assignment:
    """An assigner that finds no positives."""
    M = len(valid)
    return Assignment(jnp.zeros(M, jnp.int32), jnp.arange(M, dtype=jnp.int32), jnp.zeros(M, bool))


def test_an_assigner_of_ones_own_decides(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", train={"epochs": 1, "val_every_epochs": 0})
    train(config, tmp_path / "run", assigner=nothing)
    rows = read_log(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["positives"] == rows[-1]["box"] == rows[-1]["cls"] == 0
    assert rows[-1]["obj"] > 0


class Unhashable:
    """A loss without items of the package's, and without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, outputs: Any, batch: Any, grid: Any) -> Any:
        return jnp.square(outputs.lead).mean(), {"mine": jnp.float32(3)}


def test_a_loss_of_ones_own_is_logged_under_its_names(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", train={"epochs": 1, "val_every_epochs": 0})
    assert train(config, tmp_path / "run", loss=Unhashable()).finished
    row = read_log(tmp_path / "run" / "metrics.jsonl")[-1]
    assert row["mine"] == 3
    assert row["loss"] > 0
    assert "box" not in row


class StopAt(Callback):
    def on_step(self, step, steps, metrics):
        if step == 2:
            import signal

            signal.raise_signal(signal.SIGTERM)


def test_what_was_given_has_to_be_given_again(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", train={"epochs": 2, "val_every_epochs": 0})
    assert not train(config, tmp_path / "run", assigner=nothing, callbacks=[StopAt()]).finished
    with pytest.raises(InputError, match="the run began with assigner given in place of its settings, now nothing is"):
        resume(tmp_path / "run")
    with pytest.raises(InputError, match="now assigner, optimizer is"):
        resume(tmp_path / "run", assigner=nothing, optimizer=lambda now, labels, config: optax.sgd(now.weight))
    assert resume(tmp_path / "run", assigner=nothing).finished


def test_muon_trains(home: Path, tmp_path: Path) -> None:
    """It has two optimizers in it; tests/training/test_optimizer.py has the others of optax, on a sum of squares."""
    optim = {"name": "muon", "lr0": 0.001, "warmup_epochs": 0, "warmup_bias_lr": 0.001}
    config = small_config(home / "data.yaml", train={"epochs": 4, "val_every_epochs": 0}, optim=optim)
    assert train(config, tmp_path / "run").finished
    rows = [row for row in read_log(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert rows[-1]["total"] < rows[0]["total"]
    assert rows[-1]["nonfinite"] == 0


def test_transforms_by_name_and_as_objects_make_the_same_run(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", train={"epochs": 1, "val_every_epochs": 0})
    named = dataclasses.replace(config, augment=dataclasses.replace(config.augment, transforms=("test_shift(most=9)",)))
    runs = [
        train(config, tmp_path / "without"),
        train(named, tmp_path / "named"),
        train(config, tmp_path / "brought", transforms=[partial(user_transforms.shift, most=9)]),
    ]
    without, by_name, brought = (jax.tree.leaves(weights_of(run.folder)) for run in runs)
    for ours, theirs in zip(by_name, brought, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any((ours != theirs).any() for ours, theirs in zip(without, by_name, strict=True))


def test_a_transform_that_fails_ends_the_run_after_saving(home: Path, tmp_path: Path) -> None:
    calls = []

    def fails_late(rng: Any, sample: Sample) -> Sample:
        calls.append(sample)
        return user_transforms.broken(rng, sample) if len(calls) > 30 else sample

    config = small_config(home / "data.yaml", train={"val_every_epochs": 0}, data={"workers": 0})
    with pytest.raises(InputError, match=r"(?s)^fails_late: the transform failed; .*a bug of the user$"):
        train(config, tmp_path / "run", transforms=[fails_late])
    assert max(int(file.name) for file in (tmp_path / "run" / "checkpoints").iterdir() if file.name.isdecimal()) == 7
    with pytest.raises(InputError, match="the run began with transforms given in place of its settings"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", transforms=[user_transforms.shift]).finished


def test_unknown_transforms_are_refused_before_the_data_are_read(home: Path, tmp_path: Path) -> None:
    config = small_config(home / "data.yaml", augment={"transforms": ["test_shift(least=3)"]})
    with pytest.raises(InputError, match=r"augment\.transforms: 'test_shift\(least=3\)' cannot be called"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
