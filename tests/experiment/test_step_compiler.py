"""Steps compiled before a run: their rows of a batch, and the largest batch that fits."""

from pathlib import Path
from typing import Any

import jax
import pytest

from tests.experiment.small_run import MODEL, small_config, write_data
from tests.experiment.test_planning import config_of
from yolov7_jax.cli.main import main
from yolov7_jax.config_file import read_config
from yolov7_jax.convert.load import resolve
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import step_compiler, train
from yolov7_jax.experiment.setup import Given
from yolov7_jax.experiment.step_compiler import StepCompiler, with_batch_size
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.mesh import data_mesh

DEVICES = len(jax.devices())
MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("model") / "model.yaml"
    file.write_text(MODEL)
    return str(file)


def test_of_several_sizes_the_largest_is_planned(model: str) -> None:
    config = config_of(model, train={"multi_scale": [0.5, 1.5, 1.0]})
    _, sample = step_compiler.parts_and_sample(config, resolve(model))
    assert sample.image.shape == (96, 96, 3)
    assert sample.fine.index.shape == (120, 12)


def test_only_want_of_room_is_no_error() -> None:
    def fail(text: str) -> Any:
        raise jax.errors.JaxRuntimeError(text)

    said = list[str]()
    assert (
        step_compiler._or_no_room(
            lambda: fail("RESOURCE_EXHAUSTED: 17.48G exceeds 15.75G\nthe largest: …"), said.append
        )
        is None
    )
    assert said == ["RESOURCE_EXHAUSTED: 17.48G exceeds 15.75G"]
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        step_compiler._or_no_room(lambda: fail("INTERNAL: no such thing"), said.append)


def test_it_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(step_compiler, "_TICK_S", 0.01)
    with step_compiler._reported("compiling", said.append) as seconds:
        while len(said) < 3:
            assert seconds() < 10
    assert said[0] == "compiling"
    assert said[1] == "compiling: 0 s so far"
    assert said[-1].startswith("compiling: done in ")


def test_the_batch_that_is_chosen_is_within_a_tenth_of_the_largest_that_fits(model: str) -> None:
    """The oracle compiles one batch after another until one does not fit."""
    config = config_of(model)
    compiler = StepCompiler(config, resolve(model), data_mesh(), "local", None, lambda _: None)
    needed = {size: compiler.needed(size) or 0 for size in range(14 * DEVICES, 17 * DEVICES, DEVICES)}
    limit = needed[15 * DEVICES] + MIB // 100
    largest = max(size for size, bytes_needed in needed.items() if bytes_needed <= limit)
    assert largest < 16 * DEVICES  # the next does not fit

    said = list[str]()
    auto = config_of(model, train={"batch_size": "auto", "memory_limit": limit / 2**30})
    chosen = with_batch_size(auto, resolve(model), images=10**6, given=Given(), report=said.append)
    size = chosen.train.batch_size
    assert 0.9 * largest <= size <= largest
    assert f"train.batch_size: auto is {size} images: 0.0" in said[-1]
    fewer = with_batch_size(auto, resolve(model), images=3 * DEVICES + 1, given=Given(), report=said.append)
    assert fewer.train.batch_size == 3 * DEVICES
    assert said[-1].endswith("there are no more to train on")


def test_what_auto_needs_is_said(model: str) -> None:
    def choose(**train: Any) -> None:
        config = config_of(model, train={"batch_size": "auto", **train})
        with_batch_size(config, resolve(model), images=100, given=Given(), report=lambda _: None)

    with pytest.raises(InputError, match=r"cpu does not tell; set train\.memory_limit, in GiB a device"):
        choose()
    with pytest.raises(InputError, match=rf"auto found no batch: a step of {2 * DEVICES} images needs 0\.\d+ GiB"):
        choose(memory_limit=1e-4)


def test_a_run_chooses_its_batch_and_keeps_it(tmp_path: Path) -> None:
    heard = list[str]()

    class Listener(Callback):
        def log(self, text: str) -> None:
            heard.append(text)

    settings = {"epochs": 1, "batch_size": "auto", "memory_limit": 1.0, "val_every_epochs": 0}
    done = train(small_config(write_data(tmp_path), train=settings), tmp_path / "run", callbacks=[Listener()])
    size = 10 // DEVICES * DEVICES
    assert any(f"auto is {size} images" in text for text in heard)
    assert read_config(done.folder / "config.yaml").train.batch_size == size


def test_auto_is_a_word_for_the_batch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_config("debug", ["train.batch_size=auto"]) == read_config("debug", ["train.batch_size=-1"])
    with pytest.raises(InputError, match=r"train\.epochs is 'auto'; expected a whole number"):
        read_config("debug", ["train.epochs=auto"])
    assert main(["plan", "debug", "train.batch_size=auto"]) == 2
    assert "--fit: how much memory" in capsys.readouterr().err
