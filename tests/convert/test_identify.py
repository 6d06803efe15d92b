from dataclasses import replace
from pathlib import Path

import pytest

from yolov7_jax.convert.identify import DEPLOY, INFERENCE, TRAINING, identify
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import deploy_form, inference_form
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.graph.zoo import zoo, zoo_names

DEPLOYED = ("yolov7-tiny", "yolov7", "yolov7x", "yolov7-w6", "yolov7-e6", "yolov7-d6", "yolov7-e6e")
TWINS = {
    "yolov5-p6": "yolov5l6",
    "yolov5-panet": "yolov5l",
    "yolor-csp": "yolov4-csp",
    "yolov7-e6-no-aux": "yolov7-e6",
    "yolov7-e6e-no-aux": "yolov7-e6e",
    "yolov7-e6e-aux-sum": "yolov7-e6e",
}
"""Networks of the same layers; the lower four once their training heads are gone."""


@pytest.mark.shared
@pytest.mark.parametrize("name", DEPLOYED)
def test_published_model_files_are_known_by_name_and_form(shared: Path, name: str) -> None:
    files = shared / "peer_configs/yolov7"
    trained, deployed = (identify(parse(files / part / f"{name}.yaml")) for part in ("training", "deploy"))
    assert (trained.name, trained.form) == (name, TRAINING)
    assert (deployed.name, deployed.form) == (name, DEPLOY)


@pytest.mark.parametrize("name", zoo_names())
def test_every_network_is_known_in_every_form(name: str) -> None:
    graph = zoo(name)
    known = identify(graph)
    assert known.form == TRAINING
    assert known.name in (name, TWINS.get(name))
    deployed = deploy_form(graph)
    if graph.detect.op == "Detect":
        assert identify(deployed) == known
    elif name in TWINS:
        assert identify(deployed).name == TWINS[name]
    else:
        assert (identify(deployed).name, identify(deployed).form) == (name, DEPLOY)
    for form in (graph, deployed):
        folded = identify(inference_form(form))
        assert folded.form == INFERENCE
        assert folded.name in (name, TWINS.get(name))


def test_classes_anchors_and_channels_of_the_image_do_not_matter() -> None:
    graph = deploy_form(zoo("yolov7-w6", num_classes=3))
    moved = replace(graph, anchors=tuple(tuple((w + 1, h) for w, h in level) for level in graph.anchors), channels=1)
    assert str(identify(moved)) == (
        "yolov7-w6, deploy form (no auxiliary heads, no implicit vectors): "
        "made for detection; a further training starts without them"
    )


def test_a_layer_of_another_width_kind_or_source_is_another_network() -> None:
    graph = zoo("yolov7-tiny")
    first, second, *rest = graph.nodes
    wider = replace(first, args=tuple((key, 40 if key == "channels" else value) for key, value in first.args))
    for nodes in ((wider, second, *rest), (first, second, replace(rest[0], src=("0",)), *rest[1:])):
        assert nodes != graph.nodes
        assert identify(replace(graph, nodes=nodes)).name is None


def test_a_network_of_ones_own_has_a_form_and_no_name() -> None:
    b = Builder()
    b.add("IDetect", [b.add("Conv", IMAGE, 8, 3, 8)])
    graph = b.build(anchors=2, num_classes=1)
    assert str(identify(graph)) == "training form"
    assert str(identify(inference_form(graph))) == "inference form (folded): made for detection; it cannot be trained"
