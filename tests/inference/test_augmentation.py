"""Test-time augmentation and ensembles: as the reference detects, and as passes done by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from tests.small_networks import noise, small_weights
from yolov7_jax.artefacts.program import _resized
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.errors import InputError
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.ensemble import Ensemble


@pytest.mark.shared
def test_augmented_detections_equal_the_reference(shared: Path) -> None:
    detector = Detector.load(shared / "weights/yolov5n.pt")
    recorded = json.loads((shared / "goldens/detect/yolov5n_tta.json").read_text())
    for name, facts in list(recorded["images"].items())[:3]:  # of more shapes than one; each takes a compilation
        (found,) = detector(shared / "images" / name, augment=True, few_shapes=False)
        expected = np.array(facts["augmented"])
        assert len(found) == len(expected) != 0
        assert np.array_equal(found.class_ids, expected[:, 5]), name
        # Recorded in float32; the two resize bilinearly in another order of sums.
        assert np.abs(found.boxes_xyxy_px - expected[:, :4]).max() < 0.5, name
        assert np.abs(found.scores - expected[:, 4]).max() < 1e-3, name


@pytest.mark.parametrize(("size", "ratio"), [((64, 96), 0.83), ((96, 64), 0.67), ((640, 384), 0.83)])
def test_images_are_resized_as_opencv_does(size: tuple[int, int], ratio: float) -> None:
    image = np.random.default_rng(0).random((*size, 3), np.float32)
    # Positions of up to 640 px have 2^-14 px of error in float32, and neighbors differ by up to 1.
    small = (int(size[1] * ratio), int(size[0] * ratio))
    resized = np.asarray(_resized(image[None], ratio, 32))[0]
    assert resized.shape[0] % 32 == resized.shape[1] % 32 == 0
    assert np.allclose(resized[: small[1], : small[0]], cv2.resize(image, small), atol=1e-4)
    assert (resized[small[1] :] == np.float32(0.447)).all()
    assert (resized[:, small[0] :] == np.float32(0.447)).all()


def other_weights() -> Weights:
    """The small network with its classes the other way round."""
    weights = small_weights()
    variables = jax.tree.map(np.array, weights.variables)
    bias = variables["params"]["2"]["m"]["0"]["bias"]
    bias.reshape(2, 8)[:, 5:] = bias.reshape(2, 8)[:, :4:-1]
    return replace(weights, variables=variables)


def test_one_network_twice_finds_what_it_finds_alone() -> None:
    image, weights = noise(64, 64), small_weights()
    alone, twice = Detector(weights)(image)[0], Ensemble([weights, weights])(image)[0]
    assert np.array_equal(twice.class_ids, alone.class_ids)
    assert np.allclose(twice.boxes_xyxy_px, alone.boxes_xyxy_px, atol=1e-4)  # its twin's boxes are suppressed


def test_an_ensemble_has_the_best_of_both() -> None:
    image, options = noise(64, 64), {"confidence": 0.3, "iou": 1.0}
    members = [small_weights(), other_weights()]
    ensemble = Ensemble(members)(image, **options)[0]
    single = [Detector(one)(image, **options)[0] for one in members]
    scores = np.sort(np.concatenate([found.scores for found in single]))[::-1]  # at an IoU of 1 nothing is suppressed
    assert np.allclose(ensemble.scores, scores, atol=1e-6)
    assert {0, 2} <= {*ensemble.class_ids.tolist()}


def test_ensembles_are_read_from_files(tmp_path: Path) -> None:
    files = []
    for number, one in enumerate([small_weights(), other_weights()]):
        files.append(tmp_path / f"{number}.safetensors")
        save(files[-1], one)
    detector = Detector.load(files)
    assert isinstance(detector, Ensemble)
    assert len(detector([noise(40, 64)], augment=True, confidence=0.01)[0]) > 0
    with pytest.raises(InputError, match="an ensemble cannot be given other weights"):
        detector.with_variables({})
    with pytest.raises(InputError, match="an ensemble needs weights"):
        Detector.load([])
    with pytest.raises(InputError, match="the classes of network 2 of the ensemble are not those of the first"):
        Ensemble([small_weights(), small_weights(2)])
    (tmp_path / "a.onnx").touch()
    with pytest.raises(InputError, match=r"a\.onnx: an artefact cannot be one of an ensemble"):
        Detector.load([files[0], tmp_path / "a.onnx"])
