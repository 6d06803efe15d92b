"""Recognizes the networks of the zoo, and tells the form of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from yolov7_jax.graph.rewrite import plain_head
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import zoo, zoo_names

TRAINING, DEPLOY, INFERENCE = "training", "deploy", "inference"

Structure = tuple[Any, ...]

_LACKS = {"IAuxDetect": "no auxiliary heads, no implicit vectors", "IDetect": "no implicit vectors"}
"""What the deploy form of a network is without, by its detect layer in training."""


@dataclass(frozen=True)
class Identity:
    """What a network is: its name in the zoo, None if it is not there, and its form.

    form: "training"; "deploy" (the training heads are gone, normalizations are there); "inference" (all folded).
    lacks: what a deploy form is without, in words.
    """

    name: str | None
    form: str
    lacks: str = ""

    def __str__(self) -> str:
        known = f"{self.name}, {self.form} form" if self.name else f"{self.form} form"
        if self.form == DEPLOY:
            return f"{known} ({self.lacks}): made for detection; a further training starts without them"
        return f"{known} (folded): made for detection; it cannot be trained" if self.form == INFERENCE else known


def identify(graph: Graph) -> Identity:
    """The zoo network that a graph equals in its layers and connections, and the form in which it is there.

    Classes, anchors, channels of the image and names of layers do not matter. Where the deploy form of one network is
    the training form of another, it is the other's.
    """
    structure = _structure(graph)
    training, deploy = _known()
    name = training.get(structure) or deploy.get(structure)
    if graph.folded:
        return Identity(name, INFERENCE)
    lacks = _LACKS.get(zoo(name).detect.op, "") if name and structure not in training else ""
    return Identity(name, DEPLOY if lacks else TRAINING, lacks)


def _structure(graph: Graph) -> Structure:
    place = {IMAGE: -1} | {node.name: number for number, node in enumerate(graph)}
    return tuple((node.op, tuple(place[name] for name in node.src), node.args, node.repeat) for node in graph)


@cache
def _known() -> tuple[Mapping[Structure, str], Mapping[Structure, str]]:
    """Names of the zoo by structure, in training and in deploy form; the first of equals."""
    graphs = {name: zoo(name) for name in reversed(zoo_names())}
    training = {_structure(graph): name for name, graph in graphs.items()}
    return training, {_structure(plain_head(graph)): name for name, graph in graphs.items()}
