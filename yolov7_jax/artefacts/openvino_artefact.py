"""OpenVINO as a format of artefacts: a program in a file `.xml`, which says what it is, and one of weights, `.bin`.

The program is both, with a zero byte between them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from yolov7_jax.artefacts.engine import unreadable
from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.formats import Made, content_of
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.artefacts.openvino_engine import OpenVINOEngine, as_openvino
from yolov7_jax.convert.weights_file import Weights

_PLACE, _FACTS = "rt_info", "yolov7_jax"
"""The element of the `.xml` for information of others, and ours within it."""

_WRITERS = ("jax", "onnx", "openvino")
"""Libraries that make the program, and that it is compared by."""


def make(weights: Weights, size: tuple[int, int] | None, dtype: str = "float32") -> Made:
    """The program of weights; see `onnx_model`. dtype: float32.

    Raises:
        InstallationError: the package onnx or openvino is missing. WeightsError: weights cannot be folded.
    """
    assert size is not None
    text, data = as_openvino(onnx_model(weights, size=size, dtype=dtype).SerializeToString(deterministic=True))
    program = ElementTree.tostring(ElementTree.fromstring(text)) + b"\0" + data
    return Made(program, ("openvino",), {name: importlib.metadata.version(name) for name in _WRITERS})


def pack(program: bytes, facts: Facts) -> Mapping[str, bytes]:
    """The files of a program."""
    text, _, data = program.partition(b"\0")
    network = ElementTree.fromstring(text)
    ElementTree.SubElement(_information(network), _FACTS, value=facts.to_json())
    return {".bin": data, ".xml": ElementTree.tostring(network)}


class OpenVINOArtefact(OpenVINOEngine):
    """Files of OpenVINO that `export` wrote, on the CPU."""

    def __init__(self, path: Path) -> None:
        """Reads and checks the `.xml` file and the `.bin` file beside it.

        Raises:
            InputError: they cannot be used. InstallationError: openvino is not installed.
        """
        content, data = (content_of(path.with_suffix(ending)) for ending in (".xml", ".bin"))
        try:
            network = ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise unreadable("XML", error) from error
        place = _information(network)
        ours = place.find(_FACTS)
        self.facts = Facts.from_json(None if ours is None else ours.get("value"))
        if ours is not None:
            place.remove(ours)
        text = ElementTree.tostring(network)
        self.facts.check_program(text + b"\0" + data)
        super().__init__(text, data)


def _information(network: ElementTree.Element) -> ElementTree.Element:
    found = network.find(_PLACE)
    return ElementTree.SubElement(network, _PLACE) if found is None else found
