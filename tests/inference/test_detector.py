import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_networks import noise, small_weights
from yolov7_jax.config import Options
from yolov7_jax.convert.load import load
from yolov7_jax.errors import DataError, InputError, WeightsError
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.options import class_mask


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_weights())


@pytest.mark.shared
def test_detections_equal_the_reference_on_images(shared: Path) -> None:
    detector = Detector(load(shared / "weights/yolov5n.pt"))
    recorded = json.loads((shared / "goldens/detect/yolov5n_coco.json").read_text())
    found = detector(
        [shared / "images" / name for name in recorded["images"]], confidence=0.25, iou=0.45, few_shapes=False
    )
    assert found[0].names == tuple(recorded["classes"])
    for ours, (name, facts) in zip(found, recorded["images"].items(), strict=True):
        expected = np.array(facts["detections"])
        assert len(ours) == len(expected), name
        assert np.array_equal(ours.class_ids, expected[:, 5]), name
        # Recorded in float32 with four decimals; images decode bitwise identically.
        assert np.abs(ours.boxes_xyxy_px - expected[:, :4]).max() < 0.01, name
        assert np.abs(ours.scores - expected[:, 4]).max() < 2e-4, name


def test_files_and_arrays_give_the_same(detector: Detector, tmp_path: Path) -> None:
    image = noise(40, 64)
    write_image(tmp_path / "a.png", image)
    from_file, from_array = detector([tmp_path / "a.png", image])
    assert len(from_file) > 0
    assert np.array_equal(from_file.boxes_xyxy_px, from_array.boxes_xyxy_px)
    assert np.array_equal(from_file.scores, from_array.scores)


def test_boxes_lie_in_the_source_image_and_scores_fall(detector: Detector) -> None:
    (found,) = detector([noise(123, 77)])
    assert (found.boxes_xyxy_px >= 0).all()
    assert (found.boxes_xyxy_px <= [77, 123, 77, 123]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 0.25


@pytest.mark.parametrize("rect", [True, False])
def test_batches_change_nothing(detector: Detector, rect: bool) -> None:
    images = [noise(h, w, seed) for seed, (h, w) in enumerate([(40, 64), (64, 40), (64, 64), (40, 64), (30, 64)] * 2)]
    single = detector(images, rect=rect)
    together = detector(images, rect=rect, batch_size=4)
    for one, other in zip(single, together, strict=True):
        assert np.array_equal(one.class_ids, other.class_ids)
        # Sums of a batch may run in another order.
        assert np.allclose(one.boxes_xyxy_px, other.boxes_xyxy_px, atol=1e-3)


def test_devices_share_a_batch_and_find_what_one_finds() -> None:
    weights, devices = small_weights(), jax.local_devices()
    images = [noise(64, 64, seed) for seed in range(11)]
    one = Detector(weights)(images, multi_label=True, confidence=0.01)
    for share in (devices, devices[1:3]):
        several = Detector(weights, devices=share)
        found = several(images, multi_label=True, confidence=0.01, batch_size=3)  # 4 at a time
        for ours, expected in zip(found, one, strict=True):
            for part in ("boxes_xyxy_px", "scores", "class_ids"):  # the same program an image: the same bytes
                assert np.array_equal(getattr(ours, part), getattr(expected, part))
        args = np.zeros((4, 64, 64, 3), np.uint8), np.float32(0.1), np.float32(0.5), np.ones(3, bool)
        program = several.compiled.lower(several.variables, *args).compile().as_text()
        assert "all-" not in program  # all-reduce, all-gather, all-to-all
        assert "num_partitions=" + str(len(share)) in program
    assert sum(len(expected) for expected in one) > 11


def test_weights_follow_the_default_device_and_go_with_their_detector() -> None:
    with jax.default_device(jax.devices()[2]):
        detector = Detector(small_weights())
    assert {device for leaf in jax.tree.leaves(detector.variables) for device in leaf.devices()} == {jax.devices()[2]}
    several = Detector(small_weights(), devices=jax.local_devices())
    other, gone = several.with_variables(small_weights().variables), weakref.ref(several)
    del several
    gc.collect()
    assert gone() is None  # what is compiled keeps no weights
    assert len(other([noise(64, 64)])) == 1


def test_one_compilation_a_shape_whatever_the_options() -> None:
    fresh = Detector(small_weights())
    for size in ((40, 64), (64, 64), (33, 64)):
        fresh([noise(*size)], rect=False)
    fresh([noise(64, 64)], rect=False, confidence=0.5, iou=0.1, classes=["bee"])
    assert fresh.compiled._cache_size() == 1
    fresh([noise(40, 64)], few_shapes=False)
    fresh([noise(20, 60)], few_shapes=False, confidence=0.9)
    assert fresh.compiled._cache_size() == 3
    fresh([noise(20, 60), noise(30, 60), noise(36, 60)])  # all in the smallest rectangle
    assert fresh.compiled._cache_size() == 3


def test_what_is_compiled_is_reported_once_where_one_asks(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    weights = small_weights()
    asked = Detector(weights, report=heard.append)
    for detector in (Detector(weights), asked, asked, asked.with_variables(weights.variables)):
        detector([noise(40, 64), noise(64, 64, 1)])
    asked([noise(40, 64)], agnostic=True, confidence=0.1)
    assert [line.partition(":")[0] for line in heard] == [
        "compiling the network for images of 64 × 40 pixels",
        "compiling the network for images of 64 × 64 pixels",
        "compiling the network for images of 64 × 40 pixels",
    ]
    assert len(heard) == asked.compiled._cache_size()
    assert capsys.readouterr() == ("", "")


def test_classes_are_filtered_by_name_and_number(detector: Detector) -> None:
    image = noise(64, 64)
    everything = detector([image], multi_label=True, confidence=0.1)[0]
    assert set(everything.class_ids) == {0, 1, 2}
    assert set(detector([image], multi_label=True, confidence=0.1, classes=["bee"])[0].class_ids) == {1}
    assert set(detector([image], multi_label=True, confidence=0.1, classes=[2, "0"])[0].class_ids) == {0, 2}


def test_agnostic_nms_leaves_one_class_a_place(detector: Detector) -> None:
    image = noise(64, 64)
    by_class, agnostic = (detector([image], multi_label=True, confidence=0.1, agnostic=a)[0] for a in (False, True))
    assert len(agnostic) < len(by_class)


def test_single_class_score_follows_the_family() -> None:
    weights = small_weights(1)
    image = noise(64, 64)
    alone = Detector(weights)([image], confidence=0.01)[0].scores.max()
    product_graph = replace(weights.graph, single_class_score="product")
    product = Detector(replace(weights, graph=product_graph))([image], confidence=0.01)[0].scores.max()
    assert product < alone


def test_unreadable_images_are_named_and_the_others_go_on(detector: Detector, tmp_path: Path) -> None:
    write_image(tmp_path / "good.png", noise(40, 64))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not an image")
    names = ["empty.jpg", "good.png", "text.png", "absent.png"]
    results = {r.position: r for r in detector.stream([tmp_path / name for name in names])}
    assert [results[i].error is None for i in range(4)] == [False, True, False, False]
    for position in (0, 2, 3):
        assert names[position] in str(results[position].error)
    with pytest.raises(DataError, match=r"empty\.jpg"):
        detector([tmp_path / "good.png", tmp_path / "empty.jpg"])


@pytest.mark.parametrize("size", [(1, 1), (10, 2000), (2000, 10), (3, 3)])
def test_odd_shapes_work(detector: Detector, size: tuple[int, int]) -> None:
    for rect in (True, False):
        (found,) = detector([noise(*size)], rect=rect)
        assert np.isfinite(found.boxes_xyxy_px).all()


def test_nothing_in_nothing_out(detector: Detector) -> None:
    assert detector([]) == []
    assert len(detector([noise(64, 64)], confidence=1.0)[0]) == 0


def test_bfloat16_finds_about_the_same() -> None:
    image = noise(64, 64)
    wide, narrow = (Detector(small_weights(), dtype=dtype)([image])[0] for dtype in (jnp.float32, jnp.bfloat16))
    assert narrow.scores.dtype == np.float32
    assert abs(len(wide) - len(narrow)) <= 2
    assert abs(wide.scores[0] - narrow.scores[0]) < 0.02  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"confidence": 1.5}, r"confidence must be a fraction from 0 to 1, got 1\.5"),
        ({"iou": -1}, "iou must be a fraction"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"classes": ["dog"]}, "class 'dog' is not known; expected a number from 0 to 2 or one of ant, bee, cat"),
        ({"classes": [3]}, "class 3 is not known"),
    ],
)
def test_wrong_options_are_refused(detector: Detector, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        detector([noise(8, 8)], **options)


def test_wrong_arrays_and_sizes_are_refused(detector: Detector) -> None:
    with pytest.raises(DataError, match=r"an image must be uint8 \[h, w, 3\] RGB, got float32 \[8, 8, 3\]"):
        detector([np.zeros((8, 8, 3), np.float32)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="a multiple of 8, got 60"):
        Detector(small_weights(), size=60)


def test_weights_that_cannot_be_folded_are_refused() -> None:
    weights = small_weights()
    conv = weights.variables["params"]["1"]["conv"]
    conv["kernel"] = np.full_like(conv["kernel"], np.inf)
    with pytest.raises(WeightsError, match="layer 1 "):
        Detector(weights)


def test_class_mask_of_all() -> None:
    assert class_mask(None, ("a", "b")).tolist() == [True, True]


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Options().confidence = 0.3  # type: ignore[misc]


def test_other_weights_of_the_same_network_compile_nothing():
    weights = small_weights()
    detector = Detector(weights)
    noisy = noise(64, 64)
    first = detector([noisy])[0]
    other = jax.tree.map(np.array, weights.variables)
    other["params"]["2"]["m"]["0"]["bias"][4::8] -= 1  # less objectness everywhere
    changed = detector.with_variables(other)
    assert changed([noisy])[0].scores.max() < first.scores.max()
    assert detector.compiled._cache_size() == 1
    np.testing.assert_array_equal(detector([noisy])[0].scores, first.scores)
