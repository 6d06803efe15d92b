"""What detections rest on: heat maps over their image, from gradients, principal components or objectness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from yolov7_jax.artefacts.program import candidates
from yolov7_jax.config import Options
from yolov7_jax.data.letterbox import Letterbox
from yolov7_jax.errors import InputError
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.inputs import ImageLike, of_read_images
from yolov7_jax.inference.options import options_of
from yolov7_jax.inference.results import Result
from yolov7_jax.nn.network import Network, node_names, outputs_of_nodes
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.types import Detections

Method = Literal["gradcam", "eigencam"]

_BLOCK = 64  # places for detections in what is compiled: more of them compile it anew
_NEAR = 0.25  # of a box's longer side: how far from a detection the corners of its prediction may lie


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heat maps over an image: a sequence of float32 [h, w] in 0..1, by pixels of the source.

    image: uint8 [h, w, 3] RGB. detections: what was found in it, or those of it that were asked for. layers: the node
    that each map is of. cells: the maps before they are stretched over the image, float32 [rows, columns] of the
    letterbox, 0 or more. With "gradcam" map i is of detection i, so there are none where nothing was found; with
    "eigencam" there is one of the image. A map that is 0 everywhere: nothing in the layer speaks for the detection,
    or the detection does not read the layer.
    """

    image: NDArray[np.uint8]
    detections: Detections
    method: Method
    layers: tuple[str, ...]
    cells: tuple[NDArray[np.float32], ...]
    letterbox: Letterbox

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        heat = self.letterbox.undo_cells(self.cells[number])
        return heat / max(heat.max(), np.finfo(np.float32).tiny)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[number] for number in range(len(self)))

    def of(self, number: int) -> Detections:
        """The detection that a map is of, alone."""
        return self.detections[number : number + 1]


class ObjectnessMaps(NamedTuple):
    """Where a network sees objects, whatever their class (YOLOv7, arXiv:2207.02696, figure 8).

    image: uint8 [h, w, 3] RGB. strides: of the levels, pixels of a cell. cells: of each level the objectness after
    sigmoid, the largest of its anchors, float32 [rows, columns] of the letterbox. levels: the same by pixels of the
    source, float32 [h, w]. combined: the largest of the levels.
    """

    image: NDArray[np.uint8]
    strides: tuple[int, ...]
    cells: tuple[NDArray[np.float32], ...]
    levels: tuple[NDArray[np.float32], ...]
    combined: NDArray[np.float32]


def explain(
    detector: Detector,
    image: ImageLike,
    *,
    detections: Detections | None = None,
    layer: str | None = None,
    method: Method = "gradcam",
    limit: int | None = None,
    **options: Any,
) -> Explanation:
    """What detections in an image rest on, as heat maps.

    "gradcam" (Selvaraju et al. 2017, arXiv:1610.02391): of the final score of each detection (objectness times class),
    ReLU of the sum of a layer's channels, each weighted by the mean of the score's gradient over it. "eigencam"
    (Muhammad & Yeasin 2020, arXiv:2008.00299): a layer's projection on its first right singular vector, whatever was
    detected; its least value is 0.

    Args:
        detector: of weights.
        image: as detectors take it.
        detections: what the detector found in it, or some of that; else it detects with the options.
        layer: a node's name, such as "11", or a tag; see `features`. By default the feature map from which the head
            predicts at the level of the detection, for "eigencam" at the level of the largest stride.
        method: "gradcam" or "eigencam".
        limit: "gradcam" explains the best so many alone.
        **options: the fields of `Options`.

    Raises:
        DataError: the image cannot be read. GraphError: no such layer; names the nearest. InputError: the detector has
            no network inside, a detection is not the network's, or an option is not known.
    """
    of_levels = layers_of_levels(detector, layer)
    if method not in get_args(Method):
        raise InputError(f"method {method!r} is not known; expected one of {', '.join(get_args(Method))}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    names = of_levels[-1:] if method == "eigencam" else tuple(dict.fromkeys(of_levels))
    chosen = options_of(options)
    seen = _look(detector, image, chosen, names)
    if detections is None:
        detections = next(detector.stream([seen.image], of_read_images(chosen))).detections
        assert detections is not None
    if method == "eigencam":
        of_image = eigencam(seen.feature_map(names[0]))
        return Explanation(seen.image, detections, method, names, (of_image,), seen.letterbox)
    detections = detections[:limit]
    layers, cells = _gradcams(detector, seen, detections, of_levels)
    return Explanation(seen.image, detections, method, layers, cells, seen.letterbox)


def objectness_maps(detector: Detector, image: ImageLike, **options: Any) -> ObjectnessMaps:
    """The objectness of each level of the head over the image.

    Args:
        detector: of weights.
        image: as detectors take it.
        **options: the fields of `Options`, of which `rect` and `resize` count.

    Raises:
        DataError: the image cannot be read. InputError: the detector has no network inside.
    """
    names = layers_of_levels(detector, None)  # as `explain` has them: one program for both
    seen, graph = _look(detector, image, options_of(options), names), detector.network.graph
    grid = make_grid(graph.anchors, graph.strides, seen.letterbox.shape)
    height, width = seen.letterbox.shape
    cells = tuple(
        seen.objectness[of_level].reshape(height // stride, width // stride, -1).max(axis=-1)
        for stride, of_level in zip(graph.strides, grid.levels, strict=True)
    )
    levels = tuple(map(seen.letterbox.undo_cells, cells))
    return ObjectnessMaps(seen.image, graph.strides, cells, levels, np.maximum.reduce(levels))


def layers_of_levels(detector: Detector, layer: str | None) -> tuple[str, ...]:
    """The node whose feature map explains the detections of each level of the head; see `explain`.

    Raises:
        InputError: the detector has no network inside. GraphError: no such layer; names the nearest.
    """
    network: Any = getattr(detector, "network", None)
    if network is None:
        raise InputError(
            "an artefact cannot be explained: it gives detections, but neither feature maps nor gradients; "
            "load the weights that it was exported from"
        )
    if not isinstance(network, Network):
        raise InputError("an ensemble cannot be explained; explain each of its networks")
    heads = network.graph.detect.lead
    return heads if layer is None else node_names(network.graph, [layer]) * len(heads)


class _Seen(NamedTuple):
    """An image and what a network makes of it: predictions in source pixels, and feature maps [1, h, w, c] by node."""

    image: NDArray[np.uint8]
    pixels: NDArray[np.float32]
    letterbox: Letterbox
    boxes_xyxy_px: NDArray[np.floating]
    objectness: NDArray[np.float32]
    scores: NDArray[np.float32]
    maps: dict[str, jax.Array]

    def feature_map(self, name: str) -> NDArray[np.float32]:
        """[h, w, c], whatever the network computes in."""
        return np.asarray(self.maps[name][0], np.float32)


def _look(detector: Detector, image: ImageLike, options: Options, names: tuple[str, ...]) -> _Seen:
    prepared = detector.prepare(options, (0, image))
    if isinstance(prepared, Result):
        assert prepared.error is not None
        raise prepared.error
    pixels = prepared.boxed[None].astype(np.float32) / np.float32(255)
    detector.meet((1, *prepared.boxed.shape), {"layers": names})
    found, maps = _forward(detector.network, names, detector.variables, pixels)
    boxes, objectness, scores = (np.asarray(part[0]) for part in found)
    return _Seen(prepared.image, pixels, prepared.letterbox, prepared.letterbox.undo(boxes), objectness, scores, maps)


@partial(jax.jit, static_argnums=(0, 1))
def _forward(
    network: Network, names: tuple[str, ...], variables: Mapping[str, Any], images: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]:
    """`candidates` of images [B, H, W, 3], RGB in 0..1, and feature maps by node."""
    outputs, maps = outputs_of_nodes(network, names, variables, images)
    size = images.shape[1], images.shape[2]
    return candidates(network.graph, outputs.lead, image_size=size), dict(zip(names, maps, strict=True))


def _gradcams(
    detector: Detector, seen: _Seen, found: Detections, of_levels: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[NDArray[np.float32], ...]]:
    """Of each detection the layer, which its level of the head decides, and its map."""
    count, graph = len(found), detector.network.graph
    if not count:
        return (), ()
    rows = np.array([_row_of(seen, found, number, detector.names) for number in range(count)], np.int32)
    padded = (np.pad(part, (0, -count % _BLOCK)) for part in (rows, found.class_ids))
    means = mean_gradients(detector.network, detector.variables, seen.pixels, seen.maps, *padded, count)
    weights = {name: np.asarray(mean, np.float32) for name, mean in means.items()}
    starts = [level.start for level in make_grid(graph.anchors, graph.strides, seen.letterbox.shape).levels]
    layers = tuple(of_levels[level] for level in np.searchsorted(starts, rows, side="right") - 1)
    cells = (gradcam(seen.feature_map(name), weights[name][number]) for number, name in enumerate(layers))
    return layers, tuple(cells)


def _row_of(seen: _Seen, found: Detections, number: int, names: Sequence[str]) -> int:
    """The prediction that was kept as a detection: of its class, the nearest in place and score."""
    box, score, class_id = found.boxes_xyxy_px[number], found.scores[number], int(found.class_ids[number])
    side = max(box[2] - box[0], box[3] - box[1], 1)
    away = np.abs(seen.boxes_xyxy_px - box).max(axis=1) / side
    if tuple(found.names) == tuple(names):
        row = int((away + np.abs(seen.scores[:, class_id] - score)).argmin())
        if away[row] <= _NEAR:
            return row
    raise InputError(
        f"detection {number + 1} ({found.names[class_id]} {score:.2f}) is none of this network's predictions for the "
        "whole image; give detections that this detector found in this image"
    )


@partial(jax.jit, static_argnums=0)
def mean_gradients(
    network: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    maps: dict[str, jax.Array],
    rows: jax.Array,
    class_ids: jax.Array,
    count: jax.Array | int,
) -> dict[str, jax.Array]:
    """Means over the map of the gradients of final scores with respect to feature maps, [D, c] for each map. Pure.

    The network runs on from the maps, one forward pass for all; only what they do not cover is computed anew.

    Args:
        network: in inference form.
        variables: {"params", "batch_stats"}.
        images: [1, H, W, 3], RGB in 0..1.
        maps: feature maps [1, h, w, c] of the image, by node.
        rows: int [D], which of the N predictions.
        class_ids: int [D].
        count: the first so many of them are wanted; the means of others are 0.
    """

    def scores(maps: dict[str, jax.Array]) -> jax.Array:
        outputs: Any = network.apply(variables, images, given=maps)
        return candidates(network.graph, outputs.lead, image_size=(images.shape[1], images.shape[2]))[2][0]

    found, pull = jax.vjp(scores, maps)

    def add(place: jax.Array, means: dict[str, jax.Array]) -> dict[str, jax.Array]:
        (gradients,) = pull(jnp.zeros_like(found).at[rows[place], class_ids[place]].set(1))
        return {name: means[name].at[place].set(gradients[name].mean((0, 1, 2))) for name in means}

    nothing = {name: jnp.zeros((len(rows), value.shape[-1]), value.dtype) for name, value in maps.items()}
    return lax.fori_loop(0, count, add, nothing)


def gradcam(feature_map: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """ReLU of the weighted sum of channels: feature map [h, w, c], weights [c] → [h, w]."""
    return np.maximum(feature_map @ weights, 0)


def eigencam(feature_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """The projection of a feature map [h, w, c] on its first right singular vector, from its least value → [h, w].

    The sign of the vector is the one with which the mean of the map projects on a positive number.
    """
    pixels = feature_map.reshape(-1, feature_map.shape[-1])
    projected = pixels @ np.linalg.svd(pixels, full_matrices=False)[2][0]
    projected = projected * (-1 if projected.sum() < 0 else 1)
    return (projected - projected.min()).reshape(feature_map.shape[:2])
