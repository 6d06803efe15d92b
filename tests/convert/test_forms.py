import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from yolov7_jax.convert.forms import best_fit, forms, with_joined_norms_folded, with_module_activations
from yolov7_jax.convert.identify import DEPLOY, TRAINING, identify
from yolov7_jax.convert.load import candidates, load
from yolov7_jax.convert.torch_names import to_torch_state
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.rewrite import deploy_form, inference_form
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import abstract_variables
from yolov7_jax.reparameterize import fold

State = dict[str, np.ndarray]

RECORDED = {
    "yolov7-tiny.train": TRAINING,
    "yolov7-tiny.deploy": DEPLOY,
    "yolov7.train": TRAINING,
    "yolov7.deploy": DEPLOY,
    "yolov7-w6.train": TRAINING,
    "yolov7-w6.deploy": DEPLOY,
    "yolov7-e6e.train": TRAINING,
    "yolor-csp": TRAINING,
    "yolor-p6": TRAINING,
    "yolov4-csp": TRAINING,
    "r50-csp": TRAINING,
    "yolov3-tiny": TRAINING,
    "yolov5n": TRAINING,
    "yolov5s6": TRAINING,
    "yolov5-bifpn": TRAINING,
}


@pytest.mark.shared
@pytest.mark.parametrize("model", RECORDED)
def test_a_state_dict_is_fitted_to_its_form_of_the_network_named(shared: Path, model: str) -> None:
    facts = json.loads((shared / f"goldens/forward/{model}.json").read_text())
    state = {name: np.broadcast_to(np.float32(1), shape) for name, shape in facts["state"]}
    head = f"model.{facts['layers'] - 1}."
    pixels = np.asarray(facts["anchors_pixels"], np.float32) * np.float32(1.5)
    state[f"{head}anchors"] = pixels / np.asarray(facts["strides"], np.float32).reshape(-1, 1, 1)
    name = model.split(".")[0]
    fit = best_fit(candidates(name, state), state)
    assert fit.report.complete
    assert (identify(fit.graph).name, identify(fit.graph).form) == (name, RECORDED[model])
    assert np.array_equal(fit.graph.anchors, pixels)
    ours = {"params": {fit.graph.detect.name: {}}}  # adds the buffers alone
    buffers = {name: list(array.shape) for name, array in to_torch_state(fit.graph, ours).items()}
    theirs = {name: shape for name, shape in facts["state"] if name.startswith(f"{head}anchor")}
    assert buffers == theirs


def small_graph(*, num_classes: int = 3, head: str = "IAuxDetect") -> Graph:
    """One whose auxiliary branch stands before what the plain head reads, so that its deploy form is numbered anew."""
    b = Builder()
    x = b.add("RepConv", b.add("Conv", IMAGE, 8, 3, 4), 8)
    aux = b.add("Conv", x, 16)
    lead = b.add("C3", b.add("Concat", [x, x], 1), 8)
    b.add(head, [lead, aux] if head == "IAuxDetect" else [lead])
    return b.build(anchors=(((10, 13), (16, 30)),), num_classes=num_classes)


def random_variables(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Positive numbers everywhere, so that no layer is like another and variances are possible."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), abstract_variables(graph))


def assert_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    assert jax.tree.structure(dict(a)) == jax.tree.structure(dict(b))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, dict(a), dict(b))))


FORMS = {
    "training": small_graph(),
    "deploy": deploy_form(small_graph()),
    "folded training": inference_form(small_graph()),
    "folded deploy": inference_form(deploy_form(small_graph())),
}


def test_forms_are_numbered_and_folded_as_they_are_published() -> None:
    assert forms(small_graph()) == tuple(FORMS.values())
    heads = {name: (form.detect.name, form.detect.op, form.folded) for name, form in FORMS.items()}
    assert heads == {
        "training": ("5", "IAuxDetect", False),
        "deploy": ("4", "Detect", False),
        "folded training": ("5", "Detect", True),
        "folded deploy": ("4", "Detect", True),
    }
    plain = small_graph(head="Detect")
    assert forms(deploy_form(plain)) == (deploy_form(plain), inference_form(deploy_form(plain)))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_to_torch_names_and_back_with_the_model_named(tmp_path: Path, form: str) -> None:
    graph = FORMS[form]
    variables = random_variables(graph)
    file = tmp_path / "torch.safetensors"
    save_file({name: np.asarray(a, order="C") for name, a in to_torch_state(graph, variables).items()}, file)
    for model in (small_graph(), small_graph(num_classes=7)):  # the number of classes is the file's
        back = load(file, model=model)
        assert back.graph == graph
        assert_same(back.variables, variables)
    save(file, Weights(graph, variables, ("a", "b", "c")), naming="torch")
    assert load(file).graph == graph
    assert_same(load(file).variables, variables)


@pytest.mark.parametrize("form", FORMS)
def test_an_error_is_told_for_the_form_that_fits_best(tmp_path: Path, form: str) -> None:
    state = to_torch_state(FORMS[form], random_variables(FORMS[form]))
    gone = next(name for name in state if name.endswith("cv1.conv.weight"))
    file = tmp_path / "torch.safetensors"
    save_file({name: np.asarray(a, order="C") for name, a in state.items() if name != gone}, file)
    with pytest.raises(WeightsError, match=rf"tensors matched; 1 missing: {re.escape(gone)}; give the model"):
        load(file, model=small_graph())


def test_of_another_network_the_form_with_the_most_in_common_is_told(tmp_path: Path) -> None:
    state = to_torch_state(cross_stage_graph(), random_variables(cross_stage_graph()))
    save_file({name: np.asarray(a, order="C") for name, a in state.items()}, tmp_path / "torch.safetensors")
    with pytest.raises(WeightsError, match=r"fit the network: 5 tensors matched; \d+ missing: "):  # layer 0, not folded
        load(tmp_path / "torch.safetensors", model=small_graph())


def test_a_file_without_the_grid_that_yolov7_keeps_scores_as_yolov5_does() -> None:
    graph = zoo("yolov4-csp", num_classes=1)
    assert graph.single_class_score == "objectness"
    names = [f"model.{graph.detect.name}.{buffer}" for buffer in ("anchors", "anchor_grid")]
    state = {name: np.ones((3, 3, 2), np.float32) for name in names}
    assert {form.single_class_score for form in candidates("yolov4-csp", state)} == {"objectness"}
    assert {form.single_class_score for form in candidates("yolov4-csp", {names[0]: state[names[0]]})} == {"product"}


def cross_stage_graph() -> Graph:
    b = Builder()
    b.add("Detect", [b.add("BottleneckCSP", b.add("Conv", IMAGE, 8, 3, 4), 8)])
    return b.build(anchors=2, num_classes=3)


def as_pytorch_fuses(graph: Graph, variables: Mapping[str, Any]) -> State:
    """The state dict in which only a norm that follows one convolution is folded."""
    whole, folded = to_torch_state(graph, variables), to_torch_state(inference_form(graph), fold(graph, variables))
    bare = re.compile(r"model\.1\.(cv[23]|bn)\.")
    return {name: array for name, array in folded.items() if not bare.match(name)} | {
        name: array for name, array in whole.items() if bare.match(name)
    }


def test_a_norm_over_two_joined_convolutions_is_folded_into_both() -> None:
    graph = cross_stage_graph()
    state = as_pytorch_fuses(graph, random_variables(graph))
    x, y = np.random.default_rng(1).normal(size=(2, 4))
    wide = {name: array.astype(np.float64) for name, array in state.items()}
    # By hand: the layer joins cv3's output and cv2's, in this order, and normalizes all eight channels at once.
    joined = np.concatenate(
        [wide["model.1.cv3.weight"][..., 0, 0] @ x, wide["model.1.cv2.weight"][..., 0, 0] @ np.tile(y, 2)]
    )
    mean, var = wide["model.1.bn.running_mean"], wide["model.1.bn.running_var"]
    expected = (joined - mean) / np.sqrt(var + 1e-3) * wide["model.1.bn.weight"] + wide["model.1.bn.bias"]
    folded = with_joined_norms_folded(state)
    got = np.concatenate(
        [
            folded["model.1.cv3.weight"][..., 0, 0] @ x + folded["model.1.cv3.bias"],
            folded["model.1.cv2.weight"][..., 0, 0] @ np.tile(y, 2) + folded["model.1.cv2.bias"],
        ]
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)  # float64 on both sides
    assert not [name for name in folded if ".bn." in name and not name.endswith("num_batches_tracked")]


def test_fused_networks_of_old_yolov5_are_taken(tmp_path: Path) -> None:
    graph = cross_stage_graph()
    variables = random_variables(graph)
    save_file(
        {name: np.asarray(a, order="C") for name, a in as_pytorch_fuses(graph, variables).items()},
        tmp_path / "f.safetensors",
    )
    back = load(tmp_path / "f.safetensors", model=graph)
    assert back.graph == inference_form(graph)
    # Both are folded in float64 and rounded once.
    jax.tree.map(np.testing.assert_array_equal, dict(back.variables), fold(graph, variables))


def test_norms_that_are_not_of_two_convolutions_stay() -> None:
    graph = small_graph()
    state = to_torch_state(graph, random_variables(graph))
    folded = with_joined_norms_folded(state)
    assert folded.keys() == state.keys()
    assert all(folded[name] is state[name] for name in state)
    odd = {f"model.0.bn.{leaf}": np.ones(8) for leaf in ("weight", "bias", "running_mean", "running_var")}
    odd |= {"model.0.cv2.weight": np.ones((4, 1, 1, 1)), "model.0.cv3.weight": np.ones((5, 1, 1, 1))}
    assert with_joined_norms_folded(odd) == odd


def activations_by_layer(graph: Graph) -> list[str]:
    return [node.options["activation"] for node in graph if "activation" in node.options]


def test_activations_are_those_of_the_modules_that_agree() -> None:
    b = Builder()
    x = b.add("BottleneckCSP", b.add("Conv", IMAGE, 8, 3, 4), 8)
    x = b.add("Conv", b.add("GhostConv", b.add("C3", x, 8), 8), 8)
    b.add("Detect", [x])
    graph = b.build(anchors=2, num_classes=3)
    found = with_module_activations(
        graph,
        {
            "model.0": "Hardswish",
            "model.1": "LeakyReLU(0.1)",
            "model.1.cv1": "Hardswish",
            "model.1.cv4": "Hardswish",
            "model.10.cv1": "Mish",
            "model.2.cv1": "ReLU",
            "model.2.cv2": "Mish",
            "model.3.cv1": "ReLU",
            "model.3.cv2": "Identity",
            "model.4": "Identity",
        },
    )
    assert activations_by_layer(found) == ["Hardswish", "Hardswish", "SiLU", "ReLU", "Identity"]
    assert found.nodes[1].options["csp_activation"] == "LeakyReLU(0.1)"
    assert with_module_activations(graph, {}) is graph


def test_a_cross_stage_layer_of_one_activation_stays_as_it_is() -> None:
    graph = cross_stage_graph()
    same = dict.fromkeys(("model.0", "model.1", "model.1.cv1", "model.1.cv4", "model.1.m.0.cv1"), "SiLU")
    assert with_module_activations(graph, same) == graph
