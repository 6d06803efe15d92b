"""Sizes of networks in inference form, found without computing anything."""

from __future__ import annotations

from functools import lru_cache

from yolov7_jax.convert.load import resolve
from yolov7_jax.experiment.ablations.tables import Size
from yolov7_jax.graph.rewrite import inference_form, with_width
from yolov7_jax.nn.summary import summarize

_MILLION, _GIGA = 1e6, 1e9


@lru_cache
def network_size(network: str, *, classes: int | None = None, width: float = 1.0, side: int | None = None) -> Size:
    """Of a network of the zoo; by default of the one that is in the paper, for images of the size it is made for.

    Raises:
        GraphError: the network cannot see images with this side.
    """
    graph = inference_form(with_width(resolve(network, num_classes=classes), width))
    if side is not None:
        graph.check_side(side)
    summary = summarize(graph, image_size=None if side is None else (side, side))
    return Size(summary.parameters / _MILLION, summary.flops / _GIGA)
