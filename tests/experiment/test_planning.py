"""Planned steps of a small network, on the CPU devices at hand and, where libtpu is installed, for TPUs."""

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.experiment.small_run import MODEL
from yolov7_jax.cli.main import main
from yolov7_jax.config import Config
from yolov7_jax.config_file import make_config
from yolov7_jax.convert.load import resolve
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import PlannedStep, plan, planning, step_compiler
from yolov7_jax.experiment.setup import step_parts
from yolov7_jax.nn.cpu import tuned
from yolov7_jax.nn.summary import summarize
from yolov7_jax.training.hlo import Collective, HloArray
from yolov7_jax.training.memory import ProgramMemory
from yolov7_jax.training.planned import Compilation
from yolov7_jax.training.roofline import CHIPS
from yolov7_jax.training.state import abstract_state

DEVICES = jax.device_count()
BATCH = 4 * DEVICES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("model") / "small.yaml"
    file.write_text(MODEL)
    return str(file)


def config_of(model: str, **sections: Any) -> Config:
    """Of data that are not there: nothing reads them."""
    train = {"size": 64, "batch_size": BATCH, **sections.pop("train", {})}
    optim = {"nominal_batch_size": BATCH, **sections.pop("optim", {})}
    return make_config(
        {"model": {"name": model}, "data": {"path": "nowhere.yaml"}, "train": train, "optim": optim}, where="test"
    )


@pytest.fixture(scope="module", autouse=True)
def _plainly() -> Iterator[None]:
    """Convolutions as XLA has them, not as CPUs like them."""
    with tuned(False):
        yield


@pytest.fixture(scope="module")
def planned(model: str) -> PlannedStep:
    with pytest.MonkeyPatch.context() as patch:  # as if CPUs were chips whose figures are published
        patch.setattr(planning, "chip_of", lambda _: CHIPS[1])
        return plan(config_of(model))


def test_arguments_are_state_and_batch(planned: PlannedStep, model: str) -> None:
    graph = resolve(model)
    state = abstract_state(*step_parts(config_of(model), graph, 1, {}))
    # M = 120 boxes (4 floats, a class, valid), 2 levels of 2 anchors with 3 candidates each, overflow
    row = 64 * 64 * 3 + 120 * (16 + 4 + 1) + 120 * 12 * (4 + 1) + 8
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert planned.memory is not None
    assert planned.memory.arguments == held + 4 * row
    assert planned.memory.aliased == held
    assert planned.compilations[0].needed == planned.memory.needed


def test_operations_are_those_of_forward_and_backward_pass(planned: PlannedStep, model: str) -> None:
    forward = summarize(resolve(model), image_size=(64, 64)).flops * BATCH / DEVICES
    assert 2.5 * forward < planned.flops < 8 * forward  # convolutions three times, and on so small a network the rest
    # four blocks three times, but for the gradient of the images, and two heads, whose gradients are matrix products
    assert planned.convolutions == {"f32": 3 * 4 - 1 + 2}


def test_all_gradients_are_summed_over_devices(planned: PlannedStep, model: str) -> None:
    params = abstract_state(*step_parts(config_of(model), resolve(model), 1, {})).params
    sums = [array for one in planned.collectives for array in one.arrays if one.kind == "all-reduce"]
    kernels = [leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert not Counter(kernels) - Counter(math.prod(array.shape) for array in sums)
    assert planned.collectives


def test_a_loop_of_micro_batches_counts_as_often_as_it_runs(planned: PlannedStep, model: str) -> None:
    in_turns = plan(config_of(model, optim={"micro_batch": DEVICES}))
    assert planned.flops <= in_turns.flops < 1.5 * planned.flops  # the update is outside of the loop
    assert 4 in {one.trips for one in in_turns.collectives if one.in_loop}


def test_what_is_said(planned: PlannedStep) -> None:
    text = "\n".join(planned.lines())
    assert f"a step of {BATCH} images of 64 × 64 pixels in float32, on {DEVICES} × cpu; of each device:" in text
    for name in ("memory", "operations", "convolutions", "collectives", "at least", "scaling"):
        assert any(line.startswith(f"{name:<14}") for line in planned.lines()), name
    assert "16x16" in text
    facts = json.loads(json.dumps(planned.facts()))
    assert facts["memory"]["temporary"] == planned.memory.temporary  # type: ignore[union-attr]
    assert facts["collectives"][0]["arrays"][0]["dtype"] == "f32"
    assert facts["scaling"][-1]["chips"] == 256
    assert planned.capacity == 16 * 2**30


def test_the_command(model: str, capsys: pytest.CaptureFixture[str], planned: PlannedStep, monkeypatch: Any) -> None:
    def as_planned(config: Config, on: str, **given: Any) -> PlannedStep:
        assert (config.train.batch_size, config.train.dtype, on) == (8, "bfloat16", "v5e:2x4")
        assert (given["num_classes"], given["fit"], given["thorough"]) == (7, True, False)
        return planned

    monkeypatch.setattr("yolov7_jax.experiment.plan", as_planned)
    command = ["plan", "debug", "train.dtype=bfloat16", "--on", "v5e:2x4", "--batch", "8", "--classes", "7", "--fit"]
    assert main(["--no-compilation-cache", *command]) == 0
    assert capsys.readouterr().out.splitlines() == planned.lines()
    assert main(["--no-compilation-cache", *command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_size"] == BATCH


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "debug --batch 6",
            f"6 images cannot be shared evenly by {DEVICES} devices; set it to {6 // DEVICES * DEVICES}",
        ),
        ("debug --fit", f"--fit: how much memory {DEVICES} × cpu have is not known; name chips by --on"),
        ("debug --on v5e", "--on v5e: expected local, cpu, or a chip"),
        ("debug model.name=yolov99", "yolov99"),
        ("debug train.size=100", "100"),
    ],
)
def test_wrong_input_ends_in_one_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-compilation-cache", "plan", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("kind", "shape", "foreign"),
    [
        ("all-gather", (3, 3, 8, 16), False),  # weights that were kept in parts
        ("all-gather", (1152,), False),
        ("all-gather", (16, 80, 80, 64), True),
        ("collective-permute", (16, 80, 80, 64), True),
        ("all-reduce", (80, 80, 255), False),
    ],
)
def test_what_data_parallelism_has_no_need_of(kind: str, shape: tuple[int, ...], foreign: bool) -> None:
    sent = Collective(kind, (HloArray("f32", shape),), False, 1, "node 3")
    assert planning._is_foreign(sent, {3 * 3 * 8 * 16, 16}) == foreign


def test_what_is_said_of_it(planned: PlannedStep) -> None:
    sent = Collective("all-gather", (HloArray("bf16", (16, 80, 80, 64)),), True, None, "node 3")
    text = "\n".join(replace(planned, collectives=(sent,), foreign=(sent,)).lines())
    assert "1 all-gather of bf16: 1 arrays, 12.50 MiB; the largest bf16[16,80,80,64]" in text
    assert "inside a loop, a number of times that depends on data: all-gather of bf16[16,80,80,64] (node 3)" in text
    assert "not sums or weights: all-gather of bf16[16,80,80,64] (node 3)" in text
    assert "stay where they are" not in text


def test_the_largest_batch_is_looked_for(model: str, planned: PlannedStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each image took 1 GB of 16 on each device beside 0.5, and nothing were compiled."""
    tried = list[int]()

    def compile_(compiler: Any, size: int) -> object:
        tried.append(size)
        needed = 2**29 + size // DEVICES * 2**30
        compiler.compilations.append(Compilation(size, needed, 1.0))
        return compiler

    monkeypatch.setattr(planning, "chip_of", lambda _: CHIPS[1])
    monkeypatch.setattr(step_compiler.StepCompiler, "compile", compile_)
    memory = ProgramMemory(2**29, 0, 0, 4 * 2**30, 0, 0)
    monkeypatch.setattr(planning, "_read", lambda *_: replace(planned, memory=memory))
    done = plan(config_of(model), fit=True)
    assert done.largest_batch == 15 * DEVICES
    assert [one.batch_size for one in done.compilations] == tried == [4 * DEVICES, 14 * DEVICES, 15 * DEVICES]
    (line,) = (line for line in done.lines() if line.startswith("largest batch"))
    assert f"{15 * DEVICES} images, of {4 * DEVICES} (4,608 MiB, compiled in 1 s)" in line


def test_a_step_without_room(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(compilation: Any, report: Any) -> None:
        return None

    monkeypatch.setattr(step_compiler, "_or_no_room", refuse)
    with pytest.raises(
        InputError, match=f"a step of {BATCH} images needs more memory than {DEVICES} × cpu have; set it"
    ):
        plan(config_of(model))


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'yolov7-jax[tpu]'"
)
def test_for_tpus_convolutions_are_bfloat16_and_activations_stay_where_they_are(model: str) -> None:
    done = plan(config_of(model, train={"dtype": "bfloat16"}), "v5e:2x2")
    assert (done.devices, done.device_kind, done.capacity) == (4, "TPU v5 lite", 16 * 2**30)
    assert set(done.convolutions) == {"bf16"}
    assert done.foreign == ()
    assert {one.kind for one in done.collectives} == {"all-reduce"}
    assert done.roofline is not None
    assert done.scaling[-1].chips == 256
    assert done.memory is not None
    assert 0 < done.memory.temporary < 2**30
    assert math.isclose(done.scaling[0].worst, 1)


def test_models_are_named_by_files(planned: PlannedStep) -> None:
    assert Path(planned.network).name == "small.yaml"


def test_of_many_transfers_in_loops_the_largest_are_shown(planned: PlannedStep) -> None:
    sent = tuple(
        Collective("all-reduce", (HloArray("f32", (size,)),), True, 2, f"node {size}") for size in range(1, 99)
    )
    lines = [line.strip() for line in replace(planned, collectives=sent).lines() if "inside a loop" in line]
    assert lines[0] == "inside a loop, 2 times: all-reduce of f32[98] (node 98)"
    assert lines[-1] == f"inside a loop, 2 times: {98 - len(lines) + 1} others, 0.02 MiB"
    assert len(lines) < 10


def test_parts_of_a_state_that_devices_share_are_not_foreign() -> None:
    state = {"kernel": jax.ShapeDtypeStruct((1, 1, 128, 64), "float32"), "bias": jax.ShapeDtypeStruct((7,), "float32")}
    part = Collective("collective-permute", (HloArray("bf16", (16, 64)),), False, 1, "node 3")  # of a gradient
    assert planning._is_foreign(part, planning._sizes(state, 1))
    assert not planning._is_foreign(part, planning._sizes(state, 8))
