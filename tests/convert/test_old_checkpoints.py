"""Whole models as YOLOv5 kept them before v6.0: activations are in the modules, not in the description."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.convert.torch_zip import Code, module, parameter, tensor, write
from yolov7_jax.convert.forms import with_module_activations
from yolov7_jax.convert.identify import identify
from yolov7_jax.convert.load import load_with_report
from yolov7_jax.convert.torch_file import read_torch_file
from yolov7_jax.convert.torch_names import to_torch_state
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import with_activation
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import abstract_variables

TORCH = "torch.nn.modules.activation"
LEAKY = module((TORCH, "LeakyReLU"), negative_slope=0.1, inplace=True)
HARD = module((TORCH, "Hardswish"))
SILU = module((TORCH, "SiLU"))

DESCRIPTION = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.5,
    "anchors": [[116, 90, 156, 198], [30, 61, 62, 45]],  # as in v1: from large to small
    "backbone": [
        [-1, 1, "Focus", [16, 3]],
        [-1, 1, "Conv", [16, 3, 4]],
        [-1, 3, "BottleneckCSP", [16]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "SPP", [16, [5, 9, 13]]],
    ],
    "head": [[[2, 4], 1, "Detect", ["nc", "anchors"]]],
}
KINDS = {"": "models.yolo.Model", "model": "torch.nn.modules.container.Sequential", "model.2": "models.common.Block"}


def tree_of(state: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *owners, leaf = name.split(".")
        branch = tree
        for owner in owners:
            branch = branch.setdefault(owner, {})
        branch[leaf] = value
    return tree


def pickled_module(tree: Mapping[str, Any], acts: Mapping[str, Code], path: str = "", **attributes: Any) -> Code:
    """A module with tensors as parameters but for the buffers, and `act` where one is wanted."""
    inner = {key: value for key, value in tree.items() if isinstance(value, dict)}
    own = {key: value for key, value in tree.items() if key not in inner}
    buffers = {key for key in own if key.startswith(("running", "num_batches", "anchor"))}
    modules = {key: pickled_module(value, acts, f"{path}.{key}".lstrip(".")) for key, value in inner.items()}
    modules |= {"act": acts[path]} if path in acts else {}
    kind = tuple(KINDS.get(path, "models.common.Conv").rsplit(".", 1))
    return module(
        (kind[0], kind[1]),
        parameters={key: parameter(value) for key, value in own.items() if key not in buffers},
        buffers={key: own[key] for key in buffers},
        modules=modules,
        **attributes,
    )


def random_state(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = abstract_variables(graph)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)
    state = to_torch_state(graph, variables)
    head = f"model.{graph.detect.name}."
    grid = np.asarray(graph.anchors, np.float32).reshape(len(graph.anchors), 1, -1, 1, 1, 2)
    return state | {f"{head}anchor_grid": grid}


def old_file(path: Path, acts: Mapping[str, Code]) -> tuple[Path, dict[str, np.ndarray]]:
    state = random_state(parse(DESCRIPTION))
    sizes = np.cumsum([0, *(array.size for array in state.values())])
    numbers = np.concatenate([array.ravel() for array in state.values()]).astype("<f4")
    held = {
        name: tensor("0", array.shape, offset=int(start), count=int(sizes[-1]))
        for (name, array), start in zip(state.items(), sizes[:-1], strict=True)
    }
    model = pickled_module(
        tree_of(held), acts, yaml=DESCRIPTION, names=["ant", "bee"], nc=2, stride=tensor("1", (2,)), hyp={"lr0": 0.01}
    )
    members = {"data/0": numbers.tobytes(), "data/1": np.float32([8, 16]).tobytes()}
    return write(path, {"epoch": -1, "model": model, "ema": None}, members), state


def convolutions(graph: Graph) -> list[str]:
    """Paths of the modules that PyTorch's code gives an activation: those whose normalization is beside a `conv`."""
    names = to_torch_state(graph, jax.tree.map(lambda leaf: np.zeros(leaf.shape), abstract_variables(graph)))
    return [name.removesuffix(".conv.weight") for name in names if name.endswith(".conv.weight")]


@pytest.mark.parametrize(
    ("act", "text"),
    [(SILU, "SiLU"), (HARD, "Hardswish"), (LEAKY, "LeakyReLU(0.1)"), (module(("utils.activations", "Mish")), "Mish")],
)
def test_an_old_model_has_the_activations_of_its_modules(tmp_path: Path, act: Code, text: str) -> None:
    plain = parse(DESCRIPTION)
    acts = dict.fromkeys(convolutions(plain), act) | {"model.2": LEAKY}
    path, state = old_file(tmp_path / "old.pt", acts)
    weights, report = load_with_report(path)
    assert report.complete
    assert weights.names == ("ant", "bee")
    assert weights.graph.anchors == (((30, 61), (62, 45)), ((116, 90), (156, 198)))
    assert weights.graph.single_class_score == "product"
    assert [node.options["activation"] for node in weights.graph if "activation" in node.options] == [text] * 5
    joined = weights.graph.nodes[2].options["csp_activation"]
    assert joined == (None if text == "LeakyReLU(0.1)" else "LeakyReLU(0.1)")
    back = to_torch_state(weights.graph, weights.variables)
    for name, array in state.items():
        if not re.search("num_batches|anchor", name):
            assert np.array_equal(back[name], array), name


def test_a_model_without_known_activations_keeps_those_of_its_description(tmp_path: Path) -> None:
    acts = dict.fromkeys(convolutions(parse(DESCRIPTION)), module(("my.own", "Wiggle")))
    weights, _ = load_with_report(old_file(tmp_path / "old.pt", acts)[0])
    assert weights.graph.nodes == parse(DESCRIPTION).nodes


@pytest.mark.parametrize("name", ["yolov5s-LeakyReLU", "yolov5s", "yolov5m-v5", "yolov7-tiny"])
def test_networks_get_their_own_activations_back(name: str) -> None:
    graph = zoo(name)
    text = graph.nodes[0].options["activation"]
    other = with_activation(graph, "Mish")
    assert identify(other).name is None
    found = with_module_activations(other, dict.fromkeys(convolutions(graph), text))
    assert found == graph
    assert identify(found).name == name


def acts_in(tmp_path: Path, act: object, **attributes: object) -> Mapping[str, str]:
    conv = module(modules={"act": act}, parameters={"w": tensor("0", (1,))}, **attributes)
    path = write(tmp_path / "a.pt", {"model": module(modules={"0": conv})}, {"data/0": bytes(4)})
    return read_torch_file(path).activations


@pytest.mark.parametrize(
    ("kind", "attributes", "text"),
    [
        ((TORCH, "SiLU"), {"inplace": True}, "SiLU"),
        ((TORCH, "ReLU"), {}, "ReLU"),
        ((TORCH, "Mish"), {}, "Mish"),
        ((TORCH, "Hardswish"), {}, "Hardswish"),
        ((TORCH, "LeakyReLU"), {"negative_slope": 0.1}, "LeakyReLU(0.1)"),
        ((TORCH, "LeakyReLU"), {}, "LeakyReLU(0.01)"),
        (("torch.nn.modules.linear", "Identity"), {}, "Identity"),
        (("utils.activations", "Hardswish"), {}, "Hardswish"),
        (("utils.activations", "Swish"), {}, "SiLU"),
        (("utils.activations", "MemoryEfficientMish"), {}, "Mish"),
    ],
)
def test_activations_are_known_by_their_classes(
    tmp_path: Path, kind: tuple[str, str], attributes: dict[str, object], text: str
) -> None:
    assert acts_in(tmp_path, module(kind, **attributes)) == {"0": text}


@pytest.mark.parametrize(
    "act",
    [
        None,
        True,
        "nn.SiLU()",
        {"SiLU": 1},
        module((TORCH, "GELU")),
        *(
            module((TORCH, "LeakyReLU"), negative_slope=slope)
            for slope in ("0.1", None, -0.1, 1e300, float("nan"), float("inf"), 2**2000, [0.1])
        ),
    ],
    ids=lambda act: type(act).__name__,
)
def test_what_is_no_known_activation_is_passed_over(tmp_path: Path, act: object) -> None:
    assert acts_in(tmp_path, act) == {}


def test_activations_of_a_wrapped_model_have_the_paths_of_its_weights(tmp_path: Path) -> None:
    conv = module(modules={"act": HARD}, parameters={"w": tensor("0", (1,))})
    wrapper = module(
        ("torch.nn.parallel.data_parallel", "DataParallel"), modules={"module": module(modules={"0": conv})}
    )
    checkpoint = read_torch_file(write(tmp_path / "a.pt", {"model": wrapper}, {"data/0": bytes(4)}))
    assert (list(checkpoint.state), checkpoint.activations) == (["0.w"], {"0": "Hardswish"})
    state = read_torch_file(write(tmp_path / "a.pt", {"0.w": tensor("0", (1,))}, {"data/0": bytes(4)}))
    assert state.activations == {}
