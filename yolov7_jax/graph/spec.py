"""What a network is: a frozen list of nodes, resolved, hashable, JSON both ways."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.graph.kinds import Value as Value

IMAGE = "image"
"""The source name that stands for the network's input."""

Anchors = tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Node:
    """One layer.

    name: its number in the model YAML as text, kept for life; it begins the paths of its weights.
    op: the layer kind (`kinds.KINDS`). src: the names of the nodes it reads. args: every argument of the kind
    by name, defaults filled in. repeat: how many such layers stand in sequence. tag: where it sits, for readers.
    """

    name: str
    op: str
    src: tuple[str, ...]
    args: tuple[tuple[str, Value], ...] = ()
    repeat: int = 1
    tag: str = field(default="", compare=False)

    @property
    def options(self) -> dict[str, Value]:
        """The arguments as a dict."""
        return dict(self.args)

    @property
    def head(self) -> str:
        """Of a detect layer "plain" or "auxiliary", otherwise empty (`kinds.register_layer`)."""
        return KINDS[self.op].head if self.op in KINDS else ""

    @property
    def lead(self) -> tuple[str, ...]:
        """The levels that a detect layer predicts from in inference; those after them are auxiliary."""
        return self.src[: len(self.src) // 2] if self.head == "auxiliary" else self.src


@dataclass(frozen=True)
class Graph:
    """The single truth of an architecture. The last node is the detect layer.

    anchors: [L][A](width, height) in pixels. strides: [L] pixels of a cell. max_stride: the largest of any layer, which
    image sides must be multiples of. num_classes: C.
    channels: of the input image. folded: the inference form, in which every convolution has taken in its batch
    normalization (and RepConv its branches). single_class_score: how a network with one class scores a box,
    "objectness" (YOLOv7 and YOLOR) or "product" of objectness and class (YOLOv5).
    """

    nodes: tuple[Node, ...]
    anchors: Anchors
    strides: tuple[int, ...]
    max_stride: int
    num_classes: int
    channels: int = 3
    folded: bool = False
    single_class_score: str = "objectness"

    @property
    def detect(self) -> Node:
        """The detect layer."""
        return self.nodes[-1]

    @property
    def has_aux(self) -> bool:
        """Whether there are auxiliary levels, as in the training forms of W6, E6, D6 and E6E."""
        return self.detect.head == "auxiliary"

    @property
    def default_size(self) -> int:
        """The side of the images, in pixels, that networks with this largest stride are published for."""
        return 640 if self.max_stride <= 32 else 1280

    def check_side(self, side: int) -> None:
        """Refuses a side of images, in pixels, that is no multiple of the largest stride.

        Raises:
            GraphError: names the nearest side that is.
        """
        stride = self.max_stride
        if side < stride or side % stride:
            nearest = max(round(side / stride), 1) * stride
            raise GraphError(f"the image size must be a multiple of {stride}, got {side}; the nearest is {nearest}")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def to_json(self) -> str:
        """The graph as one line of JSON, for weights files and run folders."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """The graph that `to_json` wrote.

        Raises:
            GraphError: the text is not such a graph.
        """
        try:
            fields = json.loads(text)
            nodes = tuple(Node(**{key: _frozen(value) for key, value in node.items()}) for node in fields.pop("nodes"))
            fields.setdefault("max_stride", max(fields["strides"]))  # not in files of earlier versions
            return cls(nodes=nodes, **{key: _frozen(value) for key, value in fields.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GraphError(f"the stored graph cannot be read ({error}); expected JSON by Graph.to_json") from error


def _frozen(value: Any) -> Value:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def used_nodes(nodes: tuple[Node, ...], names: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes, in order, that the named ones are computed from (the named ones included)."""
    needed = set(names)
    kept = []
    for node in reversed(nodes):
        if node.name in needed:
            kept.append(node)
            needed.update(node.src)
    return tuple(reversed(kept))
