from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yolov7_jax as yolo
from tests.small_networks import noise, small_weights
from yolov7_jax.artefacts.program import predict
from yolov7_jax.convert.load import load
from yolov7_jax.data.letterbox import GRAY
from yolov7_jax.errors import DataError, GraphError, InputError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.image import cv2, read_image, write_image
from yolov7_jax.inference.explain import _row_of, eigencam, explain, mean_gradients, objectness_maps
from yolov7_jax.inference.exported import ExportedDetector
from yolov7_jax.ops.iou import pairwise_iou

SEEN = {"confidence": 1e-6, "iou": 0.99, "max_detections": 40}
"""So much is found by weights that know nothing."""


def two_levels(head: str) -> yolo.Weights:
    """Levels of 8 and 16 pixels; the layers tagged "linear" have no activation."""
    b = Builder()
    fine = b.add("Conv", b.add("Conv", IMAGE, 8, 3, 4), 12, 3, 2, activation="Identity", tag="linear/8")
    coarse = b.add("Conv", fine, 16, 3, 2, activation="Identity", tag="linear/16")
    joined = b.add("Concat", [b.add("nn.Upsample", coarse, None, 2, "nearest"), fine])
    lead = [b.add("RepConv", joined, 10, tag="lead/8"), b.add("Conv", coarse, 14, tag="lead/16")]
    b.add(head, lead + [b.add("Conv", x, 8) for x in lead] if head == "IAuxDetect" else lead)
    graph = b.build(anchors=(((6, 8), (12, 9)), ((20, 30), (33, 23))), num_classes=3)
    variables: dict[str, Any] = jax.tree.map(np.asarray, yolo.init(graph, jax.random.key(0)))
    for level in variables["params"][graph.detect.name]["m"].values():
        level["kernel"] = level["kernel"] * np.float32(30)  # predictions that differ
    return yolo.Weights(graph, variables, ("ant", "bee", "cat"), {"input_size": 64})


@pytest.fixture(scope="module", params=["IDetect", "IAuxDetect"])
def any_head(request: pytest.FixtureRequest) -> yolo.Detector:
    return yolo.Detector(two_levels(request.param))


@pytest.fixture(scope="module")
def detector() -> yolo.Detector:
    return yolo.Detector(two_levels("IAuxDetect"))


@pytest.fixture(scope="module")
def simple() -> yolo.Detector:
    return yolo.Detector(small_weights())


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


def rows_of(detector: yolo.Detector, image: np.ndarray, found: yolo.Detections) -> list[int]:
    """Which prediction each detection is, of an image that fills the network's input: that of the same score."""
    scores = np.asarray(predict(detector.network, detector.variables, jnp.asarray(image[None]))[1][0, :, 1:])
    columns = (scores[:, number] for number in found.class_ids)
    return [int(np.abs(column - score).argmin()) for column, score in zip(columns, found.scores, strict=True)]


def test_mean_gradients_agree_with_finite_differences(any_head: yolo.Detector) -> None:
    """A layer without activation: its bias moves a channel of its feature map by the same everywhere."""
    rows, class_ids, step, tag = [3, 140, 70], [0, 2, 1], 1e-5, "linear/8"
    with jax.enable_x64(True):
        network = replace(any_head.network, dtype=jnp.float64)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), any_head.variables)
        images = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3))
        maps = yolo.features(network, variables, images, [tag])
        node = next(node.name for node in network.graph if node.tag == tag)
        means = mean_gradients(network, variables, images, {node: maps[tag]}, np.array(rows), np.array(class_ids), 2)
        kernel_and_bias = variables["params"][node]["conv"]
        run = jax.jit(lambda variables: network.apply(variables, images).lead[0])  # type: ignore[union-attr]

        def scores(channel: int, amount: float) -> np.ndarray:
            moved = {**kernel_and_bias, "bias": kernel_and_bias["bias"] + amount * np.eye(len(bias))[channel]}
            raw = run({**variables, "params": {**variables["params"], node: {"conv": moved}}})
            return sigmoid(raw[rows, 4]) * sigmoid(raw[rows, 5 + np.array(class_ids)])

        bias = kernel_and_bias["bias"]
        slopes = np.array([(scores(c, step) - scores(c, -step)) / (2 * step) for c in range(len(bias))])  # [c, D]
    pixels = maps[tag].shape[1] * maps[tag].shape[2]
    expected = slopes.T / pixels
    assert np.abs(expected[:2]).max(axis=1).min() > 1e-6
    np.testing.assert_allclose(means[node][:2], expected[:2], rtol=1e-5, atol=1e-9 * np.abs(expected).max())
    assert not np.asarray(means[node][2]).any()  # beyond the count


def test_maps_are_relu_of_the_weighted_sum_of_the_level_of_each_detection(detector: yolo.Detector) -> None:
    image = noise(64, 64)
    found = explain(detector, image, **SEEN)
    rows = rows_of(detector, image, found.detections)
    network, variables, pixels = detector.network, detector.variables, jnp.asarray(image[None], jnp.float32) / 255
    by_level = network.graph.detect.src
    assert found.layers == tuple(by_level[row >= 8 * 8 * 2] for row in rows)  # two anchors in each cell of 8 pixels
    assert set(found.layers) == set(by_level)
    assert len(found) == len(found.detections) > 3
    maps = yolo.features(network, variables, pixels, by_level)
    for number, (row, layer) in enumerate(zip(rows, found.layers, strict=True)):
        one = np.array([row]), found.detections.class_ids[number : number + 1], 1
        weights = np.asarray(mean_gradients(network, variables, pixels, maps, *one)[layer][0])
        feature_map = np.asarray(maps[layer][0])
        expected = np.zeros(feature_map.shape[:2])
        for place in np.ndindex(expected.shape):
            total = sum(float(weights[c]) * float(feature_map[place][c]) for c in range(len(weights)))
            expected[place] = max(total, 0.0)
        np.testing.assert_allclose(found.cells[number], expected, rtol=1e-4, atol=1e-4 * expected.max())
        if expected.any():
            assert found[number].max() == pytest.approx(1)
        assert found[number].min() >= 0
        assert found[number].shape == (64, 64)
        assert found[number].dtype == np.float32


def test_one_layer_for_all_by_name_or_tag(detector: yolo.Detector) -> None:
    image = noise(64, 64)
    by_tag = explain(detector, image, layer="linear/8", limit=3, **SEEN)
    by_name = explain(detector, image, layer="1", limit=3, **SEEN)
    assert by_tag.layers == by_name.layers == ("1",) * 3
    assert np.array_equal(by_tag.cells, by_name.cells)
    assert all(cells.shape == (8, 8) and cells.max() > 0 for cells in by_tag.cells)
    other = explain(detector, image, layer="linear/16", limit=3, **SEEN)
    assert other.cells[0].shape == (4, 4)


def test_a_layer_that_a_detection_does_not_read_gives_zeros(detector: yolo.Detector) -> None:
    found = explain(detector, noise(64, 64), layer="lead/8", **SEEN)
    of_16 = [row >= 8 * 8 * 2 for row in rows_of(detector, found.image, found.detections)]
    assert set(of_16) == {True, False}
    assert [not cells.any() for cells in found.cells if not cells.any()] == [True] * sum(of_16)
    assert not any(found[number].any() for number, beyond in enumerate(of_16) if beyond)


def test_detections_that_are_given_are_explained_in_their_order(simple: yolo.Detector) -> None:
    image = noise(64, 64)
    (found,) = simple([image])
    assert len(found) > 2
    all_of_them = explain(simple, image)
    backwards = replace(
        found,
        boxes_xyxy_px=found.boxes_xyxy_px[::-1],
        scores=found.scores[::-1],
        class_ids=found.class_ids[::-1],
    )
    again = explain(simple, image, detections=backwards)
    assert np.array_equal(again.cells, all_of_them.cells[::-1])
    assert np.array_equal(again.detections.scores, found.scores[::-1])
    assert np.array_equal(all_of_them.image, image)
    assert len(explain(simple, image, limit=2)) == 2


def test_of_predictions_in_one_place_the_score_of_the_class_tells_which_was_kept() -> None:
    boxes, scores = np.float32([[0, 0, 9, 9]] * 3 + [[2, 0, 9, 9]]), np.float32([[9, 1], [3, 5], [5, 3], [5, 3]]) / 10
    seen: Any = SimpleNamespace(boxes_xyxy_px=boxes, scores=scores)
    found = yolo.Detections(boxes[:1], np.float32([0.3]), np.int32([1]), ("ant", "bee"))
    assert _row_of(seen, found, 0, ["ant", "bee"]) == 2


def test_more_detections_than_places_at_once(simple: yolo.Detector) -> None:
    found = explain(simple, noise(64, 64), limit=2)
    pair = found.detections
    many = replace(
        pair,
        boxes_xyxy_px=np.tile(pair.boxes_xyxy_px, (40, 1)),
        scores=np.tile(pair.scores, 40),
        class_ids=np.tile(pair.class_ids, 40),
    )
    again = explain(simple, found.image, detections=many)
    np.testing.assert_allclose(again.cells, np.tile(found.cells, (40, 1, 1)), rtol=1e-5)


def test_eigencam_is_the_projection_on_the_first_principal_direction() -> None:
    rng = np.random.default_rng(0)
    feature_map = (rng.normal(size=(5, 7, 6)) - 2 * rng.uniform(0, 1, 6)).astype(np.float32)
    pixels = feature_map.reshape(-1, 6).astype(np.float64)
    direction = np.ones(6)
    for _ in range(2000):  # power iteration
        direction = pixels.T @ (pixels @ direction)
        direction /= np.linalg.norm(direction)
    projected = (pixels @ direction).reshape(5, 7)
    projected *= np.sign(projected.mean())
    np.testing.assert_allclose(eigencam(feature_map), projected - projected.min(), atol=1e-4)
    np.testing.assert_allclose(eigencam(-feature_map), eigencam(feature_map), atol=1e-5)  # whatever sign the SVD has


def test_eigencam_explains_an_image_by_its_coarsest_level(detector: yolo.Detector) -> None:
    image = noise(64, 64)
    found = explain(detector, image, method="eigencam")
    assert len(found.detections) == 0  # and needs none
    assert found.layers == (detector.network.graph.detect.src[-1],)
    assert len(found) == 1
    pixels = jnp.asarray(image[None], jnp.float32) / 255
    (feature_map,) = yolo.features(detector.network, detector.variables, pixels, found.layers).values()
    u, s, _ = np.linalg.svd(np.asarray(feature_map[0]).reshape(16, -1))
    projected = u[:, 0] * s[0]
    projected *= np.sign(projected.sum())
    np.testing.assert_allclose(found.cells[0].reshape(-1), projected - projected.min(), atol=1e-4 * s[0])
    assert found[0].max() == pytest.approx(1)
    assert explain(detector, image, method="eigencam", layer="linear/8").cells[0].shape == (8, 8)


def test_objectness_maps_are_those_of_the_predictions(detector: yolo.Detector) -> None:
    image = noise(64, 64)
    found = objectness_maps(detector, image)
    raw = np.asarray(detector.network.apply(detector.variables, jnp.asarray(image[None], jnp.float32) / 255).lead)
    assert found.strides == (8, 16)
    start = 0
    for cells, (rows, columns) in zip(found.cells, ((8, 8), (4, 4)), strict=True):
        assert cells.shape == (rows, columns)
        for row, column in np.ndindex(rows, columns):
            at = start + (row * columns + column) * 2
            assert cells[row, column] == pytest.approx(sigmoid(raw[0, at : at + 2, 4]).max(), rel=1e-4)
        start += rows * columns * 2
    assert [level.shape for level in found.levels] == [(64, 64)] * 2
    assert np.array_equal(found.combined, np.maximum(*found.levels))
    assert found.levels[1][8, 24] == pytest.approx(found.cells[1][0:2, 1:3].mean(), rel=0.1)
    assert 0 < found.combined.max() <= 1


@pytest.mark.parametrize("size", [(48, 64), (64, 32)])
def test_maps_lie_over_the_source_whatever_the_padding(simple: yolo.Detector, size: tuple[int, int]) -> None:
    """Padding to a square, of one or two whole cells, moves no map; near it the network sees another edge."""
    image = noise(*size)
    rect, square = (objectness_maps(simple, image, rect=rect, few_shapes=False) for rect in (True, False))
    assert rect.cells[0].shape != square.cells[0].shape == (8, 8)
    assert rect.levels[0].shape == size
    inner = (slice(12, -12), slice(12, -12))
    np.testing.assert_allclose(rect.levels[0][inner], square.levels[0][inner], atol=1e-5)
    assert np.ptp(rect.levels[0][inner]) > 1e-3


def test_nothing_found_gives_no_maps(simple: yolo.Detector) -> None:
    found = explain(simple, noise(64, 64), confidence=1.0)
    assert len(found) == 0
    assert list(found) == []
    assert found.layers == ()


def test_files_of_any_size(tmp_path: Path, simple: yolo.Detector) -> None:
    write_image(tmp_path / "a.png", noise(77, 128))  # shown to the network at half of its size
    found = explain(simple, tmp_path / "a.png", rect=False)
    assert {heat.shape for heat in found} == {(77, 128)}
    assert np.array_equal(found.image, noise(77, 128))


@pytest.mark.parametrize(
    "kind", [{"devices": jax.local_devices()[:2]}, {"dtype": jnp.bfloat16}], ids=["devices", "bf16"]
)
def test_detectors_of_every_kind(kind: dict[str, Any], simple: yolo.Detector) -> None:
    image = noise(64, 64)
    one = explain(simple, image, limit=2)
    detector = yolo.Detector(small_weights(), **kind)
    other = explain(detector, image, detections=one.detections)
    by_components = explain(detector, image, detections=one.detections, method="eigencam")
    assert other.cells[0].dtype == by_components.cells[0].dtype == np.float32
    np.testing.assert_allclose(other[0], one[0], atol=0.1 if "dtype" in kind else 1e-4)


def test_what_cannot_be_explained_is_said_in_a_sentence(simple: yolo.Detector, tmp_path: Path) -> None:
    image = noise(64, 64)
    with pytest.raises(InputError, match="method 'gradcan' is not known; expected one of gradcam, eigencam"):
        explain(simple, image, method="gradcan")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit must be at least 1, got 0"):
        explain(simple, image, limit=0)
    with pytest.raises(GraphError, match="no layer '11'"):
        explain(simple, image, layer="11")
    with pytest.raises(DataError, match=r"nothing\.png"):
        explain(simple, tmp_path / "nothing.png")
    (found,) = simple([image])
    moved = replace(found, boxes_xyxy_px=found.boxes_xyxy_px + np.float32(1000))
    with pytest.raises(InputError, match=r"detection 1 \(\w+ 0\.\d\d\) is none of this network's predictions"):
        explain(simple, image, detections=moved)
    with pytest.raises(InputError, match=r"detection 1 .* is none of this network's predictions"):
        explain(simple, image, detections=replace(found, names=("x", "y", "z")))


def test_artefacts_ask_for_their_weights() -> None:
    facts: Any = SimpleNamespace(names=("ant",), size=(64, 64), stride=32)
    artefact: Any = SimpleNamespace(facts=facts, compiles=False)
    for call in (explain, objectness_maps):
        with pytest.raises(InputError, match="load the weights that it was exported from"):
            call(ExportedDetector(artefact), noise(64, 64))


def test_one_compilation_a_size_which_is_reported() -> None:
    heard: list[str] = []
    simple = yolo.Detector(small_weights(), report=heard.append)
    before = mean_gradients._cache_size()
    for seed in range(3):
        explain(simple, noise(64, 64, seed), limit=seed + 1, rect=False, layer="0")
    assert mean_gradients._cache_size() == before + 1
    assert [line.partition(":")[0] for line in heard] == ["compiling the network for images of 64 × 64 pixels"] * 2


def score_of(detector: yolo.Detector, image: np.ndarray, found: yolo.Detections) -> float:
    """The best score of the class of the first detection among boxes that overlap its own by half, else 0."""
    (now,) = detector([image], confidence=0.001, rect=False)
    overlap = np.asarray(pairwise_iou(found.boxes_xyxy_px[:1], now.boxes_xyxy_px))[0]
    return float(now.scores[(overlap > 0.5) & (now.class_ids == found.class_ids[0])].max(initial=0))


def without_a_fifth(image: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The image with the fifth of its pixels gray that come first by a number that they have, the largest first."""
    gray = image.copy()
    gray.reshape(-1, 3)[np.argsort(-order, axis=None, kind="stable")[: order.size // 5]] = GRAY
    return gray


@pytest.mark.shared
def test_what_is_hot_is_what_the_detection_rests_on(shared: Path) -> None:
    """Without the hottest fifth of the image the score falls far, without other fifths hardly."""
    detector = yolo.Detector(load(shared / "weights/yolov5n.pt"))
    for name in ("bus.jpg", "zidane.jpg"):
        found = explain(detector, read_image(shared / "images" / name), limit=1, rect=False)
        height, width = found.image.shape[:2]

        def score(order: np.ndarray) -> float:
            return score_of(detector, without_a_fifth(found.image, order), found.detections)  # noqa: B023

        spots = np.random.default_rng(0).uniform(0, 1, (3, height // 40, width // 40))
        anywhere = np.mean([score(cv2.resize(one, (width, height))) for one in spots])
        assert score(found[0]) < 0.5 * found.detections.scores[0]
        assert score(-found[0]) > 0.8 * found.detections.scores[0]
        assert anywhere - score(found[0]) > 0.2
