import hashlib
import json
from pathlib import Path

import pytest

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import deploy_form, plain_head
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo, zoo_names

YOLOV7 = ("yolov7-tiny", "yolov7", "yolov7x", "yolov7-w6", "yolov7-e6", "yolov7-d6", "yolov7-e6e")
YOLOV5 = (
    *(f"yolov5{size}{p6}" for p6 in ("", "6") for size in "nsmlx"),
    *(f"yolov5-{neck}" for neck in ("p2", "p34", "p6", "p7", "fpn", "panet", "bifpn")),
    *(f"yolov5s-{part}" for part in ("LeakyReLU", "ghost", "transformer")),
)
YOLOV3 = ("yolov3", "yolov3-spp")
YOLOR = tuple(f"yolor-{name}" for name in ("csp", "csp-x", "p6", "w6", "e6", "d6"))
PEERS = [
    *(("yolov7/training", name) for name in YOLOV7),
    *(("yolov5", name) for name in (*YOLOV5, *YOLOV3, "yolov3-tiny")),
    *(("yolov7/baseline", name) for name in (*YOLOR, *YOLOV3, "yolov4-csp", "r50-csp", "x50-csp")),
    ("yolov7/deploy", "yolov7-tiny-silu"),
]
WITHOUT_PEER = {
    "yolov4",
    "yolov4-tiny",
    "yolov4-tiny-3l",
    *(f"yolov7x-{scaled}" for scaled in ("light", "wide", "deep")),
    *(f"yolov7x-rep-{letter}" for letter in "abcde"),
    "yolov7-e6-no-aux",
    "yolov7-e6e-no-aux",
    "yolov7-e6e-aux-sum",
    *(f"yolor-w6-{block}" for block in ("repcsp", "rcsp", "reprcsp")),
    "yolor-csp-reprcsp",
    *(f"yolov5{size}-{version}" for size in "smlx" for version in ("v3", "v5")),
}
DIGESTS = {
    "yolov7-tiny": "b37195a92d35",
    "yolov7-tiny-silu": "d3e84f70e3a7",
    "yolov7": "acf189c6ecc7",
    "yolov7x": "c806411e73ad",
    "yolov7x-light": "98e847fa0863",
    "yolov7x-wide": "eff57437dab8",
    "yolov7x-deep": "ff56178a1e20",
    "yolov7x-rep-a": "bb7a55b557b1",
    "yolov7x-rep-b": "cdb1a3442495",
    "yolov7x-rep-c": "c316db4e7042",
    "yolov7x-rep-d": "ab7e835bf9ed",
    "yolov7x-rep-e": "ecb1cbbaf339",
    "yolov7-w6": "cd4684179346",
    "yolov7-e6": "31a8024c2a71",
    "yolov7-d6": "83d19d1275c5",
    "yolov7-e6e": "a9923737e238",
    "yolov7-e6-no-aux": "1dd1ce9aee9f",
    "yolov7-e6e-no-aux": "061423e6dbe1",
    "yolov7-e6e-aux-sum": "815f82ec2a04",
    "yolor-csp": "da6586044439",
    "yolor-csp-x": "efccb6f32338",
    "yolor-p6": "fbc33e3be70c",
    "yolor-w6": "7eda25c19c82",
    "yolor-e6": "10476ed4f036",
    "yolor-d6": "6958f7ee0614",
    "yolov4-csp": "8ec1c863333c",
    "r50-csp": "9f2c8b1afbde",
    "x50-csp": "5ef1bf6588a1",
    "yolor-w6-repcsp": "ff34f4f395c8",
    "yolor-w6-rcsp": "a8ea4f87339c",
    "yolor-w6-reprcsp": "ce766b69787d",
    "yolor-csp-reprcsp": "0fc5c100592c",
    "yolov5n": "ff0d80439430",
    "yolov5s": "e1da07a16db4",
    "yolov5m": "3f251b61d537",
    "yolov5l": "d62782ae72f9",
    "yolov5x": "706105adee27",
    "yolov5n6": "941671fc8b2d",
    "yolov5s6": "a2a9bfc7d715",
    "yolov5m6": "af44d119478c",
    "yolov5l6": "c378cae47d39",
    "yolov5x6": "afc6dcbb625b",
    "yolov5-p2": "8f81fd08d469",
    "yolov5-p34": "deac267886e6",
    "yolov5-p6": "ad4138e410b9",
    "yolov5-p7": "fc52a0e46b6b",
    "yolov5-fpn": "59636ddb259d",
    "yolov5-panet": "d62782ae72f9",
    "yolov5-bifpn": "46804af9ce2c",
    "yolov5s-LeakyReLU": "04607e18212c",
    "yolov5s-ghost": "fd436409523f",
    "yolov5s-transformer": "5fee1a1b73d9",
    "yolov5s-v3": "bfca233bbf88",
    "yolov5m-v3": "b7ba2589a5e6",
    "yolov5l-v3": "a50e3c27eefb",
    "yolov5x-v3": "9a8e3447e8a5",
    "yolov5s-v5": "20e8a096a2c2",
    "yolov5m-v5": "1397ec1977b2",
    "yolov5l-v5": "c3470ebe4228",
    "yolov5x-v5": "2db8a6cdfd2f",
    "yolov4": "ffda9a767826",
    "yolov4-tiny": "28e936406925",
    "yolov4-tiny-3l": "8cf1cd699974",
    "yolov3": "d53276fedee3",
    "yolov3-spp": "5bb54296fcdd",
    "yolov3-tiny": "7cc044ceddd6",
}


def peer(shared: Path, folder: str, name: str) -> Path:
    return shared / "peer_configs" / folder / f"{name}.yaml"


def digest(graph: Graph) -> str:
    """Of what makes the network; tags and the form in which graphs are stored are not."""
    layers = [(node.name, node.op, node.src, node.args, node.repeat) for node in graph]
    return hashlib.sha256(json.dumps([layers, graph.anchors, graph.strides]).encode()).hexdigest()[:12]


def test_every_network_has_a_peer_or_is_known_to_have_none() -> None:
    assert {name for _, name in PEERS} | WITHOUT_PEER == set(zoo_names())


@pytest.mark.shared
def test_every_peer_is_compared_with(shared: Path) -> None:
    root = shared / "peer_configs"
    files = {(str(path.parent.relative_to(root)), path.stem) for path in root.rglob("*.yaml")}
    assert files == {*PEERS, *(("yolov7/deploy", name) for name in YOLOV7)}


@pytest.mark.shared
@pytest.mark.parametrize(("folder", "name"), PEERS)
def test_zoo_equals_the_parsed_model_file(shared: Path, folder: str, name: str) -> None:
    ours, theirs = zoo(name), parse(peer(shared, folder, name))
    for mine, other in zip(ours.nodes, theirs.nodes, strict=True):
        assert mine == other
    assert ours == theirs


@pytest.mark.shared
@pytest.mark.parametrize("name", YOLOV7)
def test_deploy_form_equals_the_deploy_file(shared: Path, name: str) -> None:
    assert deploy_form(zoo(name)) == parse(peer(shared, "yolov7/deploy", name))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolov7", "yolov7-tiny"])
def test_plain_head_equals_the_deploy_file(shared: Path, name: str) -> None:
    assert plain_head(zoo(name)) == parse(peer(shared, "yolov7/deploy", name))


@pytest.mark.parametrize("name", zoo_names())
def test_no_network_changes_unnoticed(name: str) -> None:
    assert digest(zoo(name)) == DIGESTS[name]


@pytest.mark.parametrize("name", zoo_names())
def test_json_gives_the_graph_back(name: str) -> None:
    assert Graph.from_json(zoo(name).to_json()) == zoo(name)


@pytest.mark.parametrize("name", zoo_names())
def test_the_number_of_classes_changes_nothing_else(name: str) -> None:
    few, many = zoo(name, num_classes=3), zoo(name)
    assert (few.num_classes, many.num_classes) == (3, 80)
    assert (few.nodes, few.anchors, few.strides) == (many.nodes, many.anchors, many.strides)


def test_every_layer_is_read() -> None:
    for name in zoo_names():
        *layers, detect = zoo(name).nodes
        assert {layer.name for layer in layers} <= {x for node in (*layers, detect) for x in node.src}


def test_single_class_score_follows_the_family() -> None:
    product = {name for name in zoo_names() if zoo(name).single_class_score == "product"}
    assert product == {name for name in zoo_names() if name.startswith("yolov5")}


def test_graphs_stored_without_their_largest_stride_are_read() -> None:
    graph = zoo("yolov7-w6")
    stored = json.loads(graph.to_json())
    del stored["max_stride"]
    assert Graph.from_json(json.dumps(stored)) == graph


def test_graphs_are_hashable() -> None:
    assert len({zoo("yolov7"), zoo("yolov7"), zoo("yolov7", num_classes=3)}) == 2


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(GraphError, match="did you mean 'yolov7-tiny'"):
        zoo("yolov7-tinny")
