from pathlib import Path

import pytest

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import plain_head
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo, zoo_names

PEERS = {
    "yolov7-tiny": "yolov7/training",
    "yolov7-tiny-silu": "yolov7/deploy",
    "yolov7": "yolov7/training",
    **{f"yolov5{size}": "yolov5" for size in "nsmlx"},
}


def peer(shared: Path, name: str, folder: str | None = None) -> Path:
    return shared / "peer_configs" / (folder or PEERS[name]) / f"{name}.yaml"


def test_every_network_has_a_peer_to_be_compared_with() -> None:
    assert set(PEERS) == set(zoo_names())


@pytest.mark.shared
@pytest.mark.parametrize("name", PEERS)
def test_zoo_equals_the_parsed_model_file(shared: Path, name: str) -> None:
    ours, theirs = zoo(name), parse(peer(shared, name))
    for mine, other in zip(ours.nodes, theirs.nodes, strict=True):
        assert mine == other
    assert ours == theirs


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolov7", "yolov7-tiny"])
def test_plain_head_equals_the_deploy_file(shared: Path, name: str) -> None:
    assert plain_head(zoo(name)) == parse(peer(shared, name, "yolov7/deploy"))


@pytest.mark.parametrize("name", PEERS)
def test_json_gives_the_graph_back(name: str) -> None:
    assert Graph.from_json(zoo(name).to_json()) == zoo(name)


def test_graphs_are_hashable() -> None:
    assert len({zoo("yolov7"), zoo("yolov7"), zoo("yolov7", num_classes=3)}) == 2


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(GraphError, match="did you mean 'yolov7-tiny'"):
        zoo("yolov7-tinny")
