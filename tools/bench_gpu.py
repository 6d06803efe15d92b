"""Measures one GPU: inference and training steps beside PyTorch's on an equal network, and where the time goes.

    python tools/bench_gpu.py --seconds 480 --json gpu.json                # all cases that fit in eight minutes
    python tools/bench_gpu.py --only yolov7-tiny:train --batch 16
    python tools/bench_gpu.py --device cpu --model yolov7-tiny --size 64 --batch 1 --no-compile    # to try the tool

PyTorch's side is the same graph built from plain PyTorch layers (tools/torch_twin.py) with the same weights, channels
last, by `torch.compile` and with autocast in bfloat16. Before anything is timed, its float32 outputs are held against
ours without TF32. Both sides are then timed with TF32 where they compute in float32. Inference is that of folded
weights. Training steps are of SGD with Nesterov momentum, weight decay of kernels and a moving average of all weights:
"ours" is the whole step with assignment; "ours, simple loss" and "torch, simple loss" have one loss, the mean binary
cross-entropy of all outputs towards 0.1, and are those to compare. Each case runs in a process of its own, in
which both sides share the card's memory; they take turns, and figures are medians of blocks.

Percent of the limit: operations of the network (times three for a step) a second, of those of a product of 8192 x 8192
in the same dtype in this call. The profile groups device time of our program by the kind of operation: what
stands in a layer is convolution or else normalization and elementwise; the rest is by its program.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card is shared with PyTorch

import jax
import jax.numpy as jnp
import numpy as np
from bench_infer import lively
from bench_step import random_batch

import yolov7_jax as yolo
from yolov7_jax.artefacts.program import detect_batch
from yolov7_jax.config import Config, ModelConfig, OptimConfig, TrainConfig
from yolov7_jax.errors import InputError
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.nn.network import lead_outputs
from yolov7_jax.reparameterize import fold
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.types import Batch, Grid, Outputs

MODELS = ("yolov7-tiny", "yolov7", "yolov7-w6")
BATCHES = {"infer": (1, 8, 32), "train": (16, 32, 64)}
DTYPES = {"infer": ("bfloat16", "float32"), "train": ("bfloat16",)}
TOLERANCE = 1e-3  # of the largest output, between our outputs and PyTorch's in float32
TARGET = 0.1  # of the simple loss
NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory", "Out of memory")
CONVOLUTIONS = re.compile(r"conv|dot|gemm|cudnn|cublas|cutlass|xmma", re.IGNORECASE)
COPIES = re.compile(r"^(copy|transpose|memcpy|memset|MemcpyD|MemcpyH)", re.IGNORECASE)

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """What is measured at once. kind: "infer" or "train"."""

    model: str
    kind: str
    dtype: str
    batch: int

    def __str__(self) -> str:
        return f"{self.model}:{self.kind}:{self.dtype}:{self.batch}"


@dataclass(frozen=True)
class Settings:
    """Of all cases. size: side of images in pixels, 0 for that of the network. torch: whether PyTorch is measured."""

    size: int
    blocks: int
    calls: int
    torch: bool
    compile: bool


@dataclass(frozen=True)
class SimpleLoss:
    """The mean binary cross-entropy of all outputs towards `TARGET`: a `LossFn`."""

    def __call__(self, outputs: Outputs, batch: Batch, grid: Grid, /) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """The loss, without items."""
        del batch, grid
        raw = [x for x in (outputs.lead, outputs.aux) if x is not None]
        return sum((jax.nn.softplus(x) - TARGET * x).mean() for x in raw), {}  # type: ignore[return-value]


def settled(call: Call) -> Call:
    """A call of JAX whose result is waited for."""
    return lambda: jax.block_until_ready(call())


def median_ms(calls: Mapping[str, Call], wait: Call, settings: Settings) -> dict[str, float]:
    """Milliseconds of each call: medians of blocks in which the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(settings.blocks + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(settings.calls):
                result = call()
            jax.block_until_ready(result)
            wait()
            if block:  # the first warms up
                times[name].append(1000 * (time.perf_counter() - began) / settings.calls)
    return {name: statistics.median(spent) for name, spent in times.items()}


def matrix_limit(dtype: str, side: int) -> float:
    """Operations a second of a large matrix product."""
    matrix = jnp.ones((side, side), jnp.dtype(dtype))
    multiply = settled(partial(jax.jit(lambda a: a @ a), matrix))
    multiply()
    times = []
    for _ in range(7):
        began = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(times)


def kind_of_operation(name: str, text: str, outside: str) -> str:
    """What a device operation is, by its name and its line in the optimized program; `outside` of all layers."""
    if COPIES.match(name):
        return "copies"
    if not re.search(r'op_name="[^"]*node ', text):
        return outside
    return "convolution" if CONVOLUTIONS.search(re.sub(r'op_name="[^"]*node [^"/]*/', "", text)) else "elementwise"


def profile(compiled: Any, call: Call, outside: str) -> dict[str, float]:
    """Shares of device time by kind of operation, from a trace of one call."""
    lines = dict(re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*)$", compiled.as_text(), re.MULTILINE))
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            settled(call)()
        for path in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                for event in (event for line in plane.lines for event in line.events):
                    name = str(dict(event.stats).get("hlo_op", ""))
                    if name in lines:
                        kind = kind_of_operation(name, lines[name], outside)
                        spent[kind] = spent.get(kind, 0.0) + event.duration_ns
    whole = sum(spent.values())
    return {kind: round(ns / whole, 3) for kind, ns in sorted(spent.items(), key=lambda item: -item[1])}


class TorchSide:
    """The twin of a graph on the device, checked against our outputs."""

    def __init__(self, graph: yolo.Graph, variables: Any, images: Any, case: Case, settings: Settings) -> None:
        import torch
        from torch_twin import twin_of

        self.torch, self.case = torch, case
        self.device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
        train = case.kind == "train"
        self.network = twin_of(graph, variables).train(train).to(self.device, memory_format=torch.channels_last)
        self.images = torch.from_numpy(np.asarray(images)).to(self.device).permute(0, 3, 1, 2)  # is channels last
        self.difference = self._check(graph, variables, images)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        self.run = torch.compile(self.network) if settings.compile else self.network

    def wait(self) -> None:
        """Until the device is done."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def forward(self) -> Any:
        """Raw outputs of the images, in the dtype of the case."""
        bfloat16 = self.case.dtype == "bfloat16"
        with self.torch.autocast(self.device, self.torch.bfloat16, enabled=bfloat16):
            return self.run(self.images.float() / 255)

    def inference(self) -> Any:
        """`forward` without gradients."""
        with self.torch.inference_mode():
            return self.forward()

    def step(self, config: OptimConfig) -> Call:
        """A training step with the simple loss."""
        torch = self.torch
        kernels = [p for p in self.network.parameters() if p.ndim == 4 and p.shape[0] > 1]
        known = {id(p) for p in kernels}
        others = [p for p in self.network.parameters() if id(p) not in known]
        groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others}]
        optimizer = torch.optim.SGD(groups, lr=1e-9, momentum=config.momentum, nesterov=True, weight_decay=0.0)
        state = [x.detach() for x in self.network.state_dict().values() if x.is_floating_point()]
        average = [x.clone() for x in state]

        def step() -> None:
            loss = sum((torch.nn.functional.softplus(x) - TARGET * x).mean() for x in self.forward())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            torch._foreach_lerp_(average, state, 1e-4)

        return step

    def _check(self, graph: yolo.Graph, variables: Any, images: Any) -> float:
        """The largest difference of one image's outputs, as share of the largest output."""
        torch, train = self.torch, self.case.kind == "train"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        network, few = yolo.Network(graph), jnp.asarray(images[:2], jnp.float32) / 255
        with jax.default_matmul_precision("highest"):
            apply = jax.jit(partial(network.apply, train=train, mutable=["batch_stats"]))
            ours: Any = apply(variables, few)[0]
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        with torch.no_grad():
            theirs = self.network(self.images[:2].float() / 255)
        self.network.load_state_dict(before)
        pairs = zip([x for x in (ours.lead, ours.aux) if x is not None], theirs, strict=True)
        worst = max(
            float(np.abs(np.asarray(a) - b.cpu().numpy()).max() / np.abs(np.asarray(a)).max()) for a, b in pairs
        )
        if not worst <= TOLERANCE:
            raise InputError(f"the outputs of both sides differ by {worst:.1e} of the largest, over {TOLERANCE:.0e}")
        return worst


def inference_programs(case: Case, graph: yolo.Graph, variables: Any, images: Any) -> Iterator[tuple[str, Any, Call]]:
    """(name, compiled program, call) of ours."""
    network, mask = yolo.Network(graph, jnp.dtype(case.dtype)), jnp.ones(graph.num_classes, bool)

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        return lead_outputs(network, variables, images.astype(jnp.float32) / 255)

    def whole(variables: Any, images: jax.Array) -> Any:
        return detect_batch(network, variables, images, jnp.float32(0.25), jnp.float32(0.6), mask)

    for name, function in (("ours", forward), ("ours, with decoding and NMS", whole)):
        compiled = jax.jit(function).lower(variables, images).compile()
        yield name, compiled, partial(compiled, variables, images)


def training_programs(
    case: Case, graph: yolo.Graph, variables: Any, batch: Any, config: Config
) -> Iterator[tuple[str, Any, Call]]:
    """(name, compiled program, call) of our steps."""
    mesh = data_mesh(jax.devices()[:1])
    for name, loss in (("ours, simple loss", SimpleLoss()), ("ours", yolo.loss_of(config, graph))):
        schedule = yolo.Schedule(config.optim, 1000, config.train.epochs, case.batch)
        parts = (yolo.Network(graph, jnp.dtype(case.dtype)), loss, yolo.make_optimizer(config.optim), schedule)
        held = [yolo.init_state(*parts, variables, mesh=mesh)]
        step: Any = yolo.make_step(*parts, mesh=mesh)
        shared = shard_batch(batch, mesh)
        compiled = step.lower(held[0], shared).compile()

        def call(compiled: Any = compiled, held: list[Any] = held, shared: Any = shared) -> Any:
            held[0], metrics = compiled(held[0], shared)
            return metrics

        yield name, compiled, call


def measured(case: Case, settings: Settings) -> dict[str, Any]:
    """The figures of one case."""
    train, graph = case.kind == "train", yolo.zoo(case.model)
    size = settings.size or graph.default_size
    config = Config(
        model=ModelConfig(name=case.model),
        optim=OptimConfig(lr0=1e-9, warmup_bias_lr=0.0, nominal_batch_size=case.batch),  # every step updates, a little
        train=TrainConfig(batch_size=case.batch, size=size, dtype=case.dtype),  # type: ignore[arg-type]
    )
    variables: Any = lively(yolo.init(graph, jax.random.key(0)))
    if not train:
        variables, graph = fold(graph, variables), inference_form(graph)
    batch = random_batch(graph, config) if train else None
    noise = np.random.default_rng(0).integers(0, 256, (case.batch, size, size, 3), np.uint8)
    images = noise if batch is None else batch.image
    figures: dict[str, Any] = {"size": size, "skipped": {}}
    calls: dict[str, Call] = {}
    wait = _enter_torch(case, settings, graph, variables, images, config.optim, calls, figures)
    if batch is not None:
        programs = training_programs(case, graph, variables, batch, config)
    else:
        programs = inference_programs(case, graph, jax.device_put(variables), jax.device_put(images))
    last = _enter_ours(programs, calls, figures)
    operations = (3 if train else 1) * case.batch * yolo.summarize(graph, image_size=(size, size)).flops
    try:
        figures["ms"] = median_ms(calls, wait, settings)
        figures["operations_per_second"] = {name: 1000 * operations / ms for name, ms in figures["ms"].items()}
        if last is not None:
            figures["profile"] = profile(*last, "assignment, loss and optimizer" if train else "decoding and NMS")
    except Exception as error:
        figures["skipped"]["times or profile"] = reason(error)
    return figures


def _enter_torch(
    case: Case,
    settings: Settings,
    graph: yolo.Graph,
    variables: Any,
    images: Any,
    config: OptimConfig,
    calls: dict[str, Call],
    figures: dict[str, Any],
) -> Call:
    """Enters PyTorch's call if it is to be measured and works; what waits for its device."""
    if not settings.torch:
        return lambda: None
    try:
        side = TorchSide(graph, variables, images, case, settings)
    except Exception as error:
        figures["skipped"]["torch"] = reason(error)
        return lambda: None
    figures["difference"] = side.difference
    train = case.kind == "train"
    _try("torch, simple loss" if train else "torch", side.step(config) if train else side.inference, calls, figures)
    return side.wait


def _enter_ours(
    programs: Iterator[tuple[str, Any, Call]], calls: dict[str, Call], figures: dict[str, Any]
) -> tuple[Any, Call] | None:
    """Enters our calls that work; the last of them with its compiled program."""
    last = None
    try:
        for name, program, call in programs:
            _try(name, settled(call), calls, figures, call)
            last = (program, call) if name in calls else last
    except Exception as error:
        figures["skipped"]["ours"] = reason(error)
    return last


def _try(name: str, first: Call, calls: dict[str, Call], figures: dict[str, Any], call: Call | None = None) -> None:
    """Enters a call that works once; says why otherwise."""
    try:
        first()
        calls[name] = call or first
    except Exception as error:
        figures["skipped"][name] = reason(error)


def reason(error: Exception) -> str:
    """Why something was not measured, in a line."""
    text = f"{type(error).__name__}: {error}"
    return "does not fit" if any(word in text for word in NO_MEMORY) else " ".join(text.split())[:300]


def row(case: Case, figures: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """The figures of a case as lines for readers."""
    lines = [f"{case}, {figures.get('size', '')} px"]
    for name, ms in figures.get("ms", {}).items():
        share = 100 * figures["operations_per_second"][name] / limits[case.dtype]
        lines.append(f"  {name}: {ms:.2f} ms, {1000 * case.batch / ms:.0f} images/s, {share:.0f} % of the matrix limit")
    lines += [f"  {name}: {why}" for name, why in figures["skipped"].items()]
    if "difference" in figures:
        lines.append(f"  outputs of both sides agree to {figures['difference']:.0e} of the largest (float32)")
    if found := figures.get("profile"):
        lines.append("  of our device time: " + ", ".join(f"{kind} {100 * part:.0f} %" for kind, part in found.items()))
    return "\n".join(lines)


def cases(parsed: argparse.Namespace) -> list[Case]:
    """All cases that are asked for, the small ones first."""
    found = [
        Case(model, kind, dtype, batch)
        for model in parsed.model
        for kind in BATCHES
        for dtype in DTYPES[kind]
        for batch in parsed.batch or BATCHES[kind]
    ]
    return [case for case in found if not parsed.only or any(word in str(case) for word in parsed.only)]


def run(todo: list[Case], settings: Settings, limits: Mapping[str, float], parsed: argparse.Namespace) -> None:
    """Measures the cases one after another while there is time; the JSON file is written after each."""
    began, longest, results, left_out = time.perf_counter(), 0.0, {}, []
    for case in todo:
        started = time.perf_counter()
        if started - began + longest > parsed.seconds:
            left_out.append(str(case))
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                figures = pool.submit(measured, case, settings).result()
            except BrokenProcessPool:
                figures = {"skipped": {"case": "its process was killed, as where memory of the machine is short"}}
        results[str(case)] = {**asdict(case), **figures}
        if parsed.json:
            about = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "limits": limits}
            text = json.dumps({**about, "cases": results, "left_out": [str(c) for c in todo if str(c) not in results]})
            parsed.json.write_text(text, encoding="utf-8")
        print(row(case, figures, limits), flush=True)
        longest = max(longest, time.perf_counter() - started)
    if left_out:
        print(f"\nleft out, for --seconds {parsed.seconds:.0f} were spent: {', '.join(left_out)}")


def arguments() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, help="networks of the zoo")
    parser.add_argument("--batch", type=int, nargs="+", help="of all kinds; by default 1 8 32, training 16 32 64")
    parser.add_argument("--size", type=int, default=0, help="in pixels; by default 640, or 1280 for P6 networks")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases NETWORK:KIND:DTYPE:BATCH with such a text")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="starts no case that would end later")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after each case")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--blocks", type=int, default=7, help="that medians are of")
    parser.add_argument("--calls", type=int, default=10, help="in a block")
    parser.add_argument("--product", type=int, default=8192, help="side of the matrices of the limit")
    parser.add_argument("--no-torch", action="store_true", help="measure ours alone")
    parser.add_argument("--no-compile", action="store_true", help="PyTorch without torch.compile")
    return parser.parse_args()


def main() -> None:
    """Prints and stores the figures."""
    parsed = arguments()
    if parsed.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise SystemExit("JAX finds no GPU here: install yolov7-jax[cuda], or try the tool with --device cpu --size 64")
    todo = cases(parsed)
    if not todo:
        raise SystemExit(f"--only {' '.join(parsed.only)} leaves no case; a case is NETWORK:KIND:DTYPE:BATCH")
    has_torch = importlib.util.find_spec("torch") is not None
    if not has_torch and not parsed.no_torch:
        print("PyTorch is not installed, so ours is measured alone; for both: pip install torch")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    limits = {dtype: matrix_limit(dtype, parsed.product) for dtype in ("bfloat16", "float32")}
    print(", ".join(f"{limit / 1e12:.1f} Tflop/s in {dtype}" for dtype, limit in limits.items()), "(matrix limit)\n")
    torch = has_torch and not parsed.no_torch
    run(todo, Settings(parsed.size, parsed.blocks, parsed.calls, torch, not parsed.no_compile), limits, parsed)


if __name__ == "__main__":
    main()
