"""Engines of other runtimes against the detector in JAX; files that are no detectors."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.small_networks import noise, small_weights
from yolov7_jax.artefacts.onnx_engine import OnnxEngine
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.artefacts.openvino_engine import OpenVINOEngine, as_openvino
from yolov7_jax.convert.load import load
from yolov7_jax.data.letterbox import letterbox
from yolov7_jax.errors import InputError
from yolov7_jax.image import read_image
from yolov7_jax.inference.detector import Detector

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'yolov7-jax[onnx]'")

SIZE = (64, 96)
EVERY = np.ones(3, bool)
WAYS = [(False, False, 300), (True, False, 300), (True, True, 7)]  # JAX compiles for each and each batch


@pytest.fixture(scope="module")
def model():
    return onnx_model(small_weights(), size=SIZE)


@pytest.fixture(scope="module")
def in_openvino(model):
    if find_spec("openvino") is None:  # not imported here: it is to send no report of that
        pytest.skip("pip install 'yolov7-jax[openvino]'")
    return as_openvino(model.SerializeToString())


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def engine(request):
    if request.param == "onnx":
        return OnnxEngine(request.getfixturevalue("model").SerializeToString(), threads=1)
    return OpenVINOEngine(*request.getfixturevalue("in_openvino"), threads=1)


@pytest.fixture(scope="module")
def detector():
    return Detector(small_weights())


def images(batch):
    return np.stack([noise(*SIZE, seed) for seed in range(batch)])


def test_an_engine_says_what_it_is(engine):
    assert engine.size == SIZE
    assert engine.num_classes == 3


@pytest.mark.parametrize(("multi_label", "agnostic", "most"), WAYS)
def test_batches_of_any_size_equal_the_detector(engine, detector, multi_label, agnostic, most):
    how = {"multi_label": multi_label, "agnostic": agnostic, "max_detections": most}
    for batch in (1, 3):
        for mask in (EVERY, np.array([True, False, True])):
            given = images(batch), np.float32(0.4), np.float32(0.3), mask
            found, expected = engine(*given, **how), detector.compiled(detector.variables, *given, **how)
            assert np.asarray(expected.valid).any()
            np.testing.assert_array_equal(found.valid, expected.valid)
            np.testing.assert_array_equal(found.class_ids, expected.class_ids)
            np.testing.assert_array_equal(found.overflow, np.zeros(batch))
            # Roundings of float32 in a network of three layers.
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
            np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=1e-4)


def test_what_is_asked_for_before_suppression(engine):
    boxes, scores = engine.predictions(images(2))
    predictions = 2 * (SIZE[0] // 8) * (SIZE[1] // 8)
    assert boxes.shape == (2, predictions, 4)
    assert scores.shape == (2, predictions, 4)
    how = {"multi_label": True, "agnostic": False, "max_detections": 1}
    best = engine(images(2), 0.0, 1.0, EVERY, **how)
    for image in range(2):
        place, class_id = np.unravel_index(scores[image, :, 1:].argmax(), (predictions, 3))
        np.testing.assert_array_equal(best.boxes_xyxy_px[image, 0], boxes[image, place])
        assert best.scores[image, 0] == scores[image, place, 1 + class_id]
        assert best.class_ids[image, 0] == class_id


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, kw: (i[:, :32], kw), r"takes images uint8 \[B, 64, 96, 3\], got uint8 \[2, 32, 96, 3\]"),
        (lambda i, kw: (i.astype(np.float32), kw), "got float32"),
        (lambda i, kw: (i[:0], kw), r"got uint8 \[0, 64"),
        (lambda i, kw: (i, {**kw, "max_detections": 301}), "from 1 to 300 in an artefact, got 301"),
        (lambda i, kw: (i, {**kw, "class_mask": np.ones(4, bool)}), r"class_mask must be bool \[3\], got \[4\]"),
    ],
)
def test_what_does_not_fit_is_told(engine, change, sentence):
    how = {"class_mask": EVERY, "multi_label": False, "agnostic": False, "max_detections": 300}
    given, how = change(images(2), how)
    with pytest.raises(InputError, match=sentence):
        engine(given, 0.25, 0.45, **how)


def hostile_programs(model):
    """Programs by what is said of them."""
    content = model.SerializeToString()
    other = onnx.ModelProto.FromString(content)
    for value in other.graph.input:
        value.name = value.name.replace("images", "pictures")
    for node in other.graph.node:
        node.input[:] = [name.replace("images", "pictures") for name in node.input]
    fewer = onnx.ModelProto.FromString(content)
    del fewer.graph.output[-1]
    elsewhere = onnx.ModelProto.FromString(content)
    tensor = next(tensor for tensor in elsewhere.graph.initializer if len(tensor.raw_data) > 1000)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    return [
        ("has not the inputs and outputs of a detector", other.SerializeToString()),
        ("has not the inputs and outputs of a detector", fewer.SerializeToString()),
        ("has data in other files", elsewhere.SerializeToString()),
        ("cannot be read as ONNX", content[: len(content) // 2]),
        ("cannot be read as ONNX", b"\x00\xff" * 40),
        ("cannot be read as ONNX", b""),
    ]


def test_programs_that_are_no_detectors(model):
    for sentence, program in hostile_programs(model):
        with pytest.raises(InputError, match=sentence) as caught:
            OnnxEngine(program)
        assert "\n" not in str(caught.value)


def test_openvino_programs_that_are_no_detectors(model, in_openvino):
    text, data = in_openvino
    for part, weights in ((text[: len(text) // 2], data), (text, data[: len(data) // 2]), (b"", b"")):
        with pytest.raises(InputError, match="cannot be read as OpenVINO's") as caught:
            OpenVINOEngine(part, weights)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has not the inputs and outputs of a detector"):
        OpenVINOEngine(text.replace(b'"images"', b'"pictures"'), data)
    for sentence, program in hostile_programs(model):
        if sentence == "cannot be read as ONNX":
            with pytest.raises(InputError, match=sentence):
                as_openvino(program)


MAKERS = {
    "onnx": lambda: onnx_model(small_weights(), size=SIZE),
    "onnxruntime": lambda: OnnxEngine(b""),
    "openvino": lambda: OpenVINOEngine(b"", b""),
}


@pytest.mark.parametrize("package", MAKERS)
def test_a_package_that_is_missing_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    extra = "openvino" if package == "openvino" else "onnx"
    with pytest.raises(InputError, match=rf"pip install 'yolov7-jax\[{extra}\]'"):
        MAKERS[package]()


@pytest.mark.shared
def test_a_photograph(shared: Path):
    weights = load(shared / "weights/yolov5n.pt")
    boxed, _ = letterbox(read_image(shared / "images" / "bus.jpg"), 320, stride=32, auto=False)
    detector = Detector(weights)
    how = {"multi_label": False, "agnostic": False, "max_detections": 300}
    given = boxed[None], np.float32(0.25), np.float32(0.45), np.ones(80, bool)
    expected = detector.compiled(detector.variables, *given, **how)
    # float16 rounds each of 60 layers to 11 bits.
    for dtype, off_px, off_score in (("float32", 2e-3, 1e-5), ("float16", 1.5, 1e-2)):
        found = OnnxEngine(onnx_model(weights, size=(320, 320), dtype=dtype).SerializeToString())(*given, **how)
        assert found.valid.sum() == np.asarray(expected.valid).sum() > 3
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=off_px)
        np.testing.assert_allclose(found.scores, expected.scores, atol=off_score)
