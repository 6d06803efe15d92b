"""Non-maximum suppression in ONNX against `ops.nms`, whose oracle is textbook code in its own tests."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.artefacts import onnx_nms
from yolov7_jax.artefacts.onnx_file import Port, model_of
from yolov7_jax.artefacts.onnx_steps import Steps
from yolov7_jax.ops.nms import non_max_suppression

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")
pytest.importorskip("onnx", reason="pip install 'yolov7-jax[onnx]'")

N, C = 40, 5


@functools.cache
def session():
    steps = Steps()
    found = onnx_nms.suppress(steps, "all_boxes", "objectness", "all_scores", C, N)
    steps.finish(found)
    numbers = {"confidence": np.float32, "iou": np.float32, "multi_label": bool, "agnostic": bool}
    inputs = {name: Port(dtype, ()) for name, dtype in {**numbers, "max_detections": np.int64}.items()}
    inputs["class_mask"] = Port(bool, (C,))
    maps = {"all_boxes": ("b", N, 4), "objectness": ("b", N, 1), "all_scores": ("b", N, C)}
    inputs |= {name: Port(np.float32, shape) for name, shape in maps.items()}
    shapes = {"boxes": ("b", 300, 4), "scores": ("b", 300), "classes": ("b", 300), "counts": ("b",)}
    dtypes = {"boxes": np.float32, "scores": np.float32, "classes": np.int32, "counts": np.int32}
    named = zip(shapes, found, strict=True)
    outputs = {name: (step, Port(dtypes[name], shapes[name])) for name, step in named}
    model = model_of(steps, inputs, outputs)
    return onnxruntime.InferenceSession(model.SerializeToString())


@functools.cache
def reference(multi_label, agnostic):
    def suppress(boxes, objectness, scores, class_mask, confidence, iou):
        how = {"confidence": confidence, "iou": iou, "multi_label": multi_label, "agnostic": agnostic}
        return non_max_suppression(boxes, objectness, scores, class_mask, **how, max_detections=300)

    return jax.jit(suppress)


def found_by_both(boxes, objectness, scores, class_mask, confidence, iou, multi_label, agnostic, most):
    numbers = {"confidence": np.float32(confidence), "iou": np.float32(iou), "max_detections": np.int64(most)}
    switches = {"multi_label": np.bool_(multi_label), "agnostic": np.bool_(agnostic)}
    inputs = {name: np.asarray(value) for name, value in {**numbers, **switches}.items()}
    arrays = {"all_boxes": boxes, "objectness": objectness[..., None], "all_scores": scores, "class_mask": class_mask}
    found = session().run(["boxes", "scores", "classes", "counts"], {**arrays, **inputs})
    one = reference(multi_label, agnostic)
    each = zip(boxes, objectness, scores, strict=True)
    expected = [one(*image, class_mask, np.float32(confidence), np.float32(iou)) for image in each]
    boxes, scores, class_ids, valid, _ = map(np.stack, zip(*expected, strict=True))
    valid = valid & (np.arange(300) < most)  # what is kept does not hang on what comes after it
    kept = boxes * valid[..., None], scores * valid, class_ids * valid, valid.sum(1)
    return found, kept


@st.composite
def images(draw):
    """Boxes on a coarse grid, so that they overlap and have one IoU often, with scores that are apart or that tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    b = draw(st.sampled_from([1, 2, 3]))
    corner, size = rng.integers(0, 12, (b, N, 2)), rng.integers(0, 9, (b, N, 2))
    boxes = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    objectness = rng.integers(0, 9, (b, N)).astype(np.float32) / 8
    values = draw(st.sampled_from([4, 1_000_000]))
    scores = rng.integers(0, values + 1, (b, N, C)).astype(np.float32) / np.float32(values)
    if draw(st.booleans()):
        objectness[0] = 0  # nothing to find in one of them
    return boxes, objectness, scores


@given(images(), st.data())
@settings(max_examples=100)
def test_equals_that_of_jax(image, data):
    confidence = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
    iou = data.draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
    mask = np.array(data.draw(st.sampled_from(["11111", "01011", "00001", "00000"]).map(list)), int) > 0
    multi_label, agnostic = data.draw(st.booleans()), data.draw(st.booleans())
    most = data.draw(st.sampled_from([300, 7, 1]))
    found, expected = found_by_both(*image, mask, confidence, iou, multi_label, agnostic, most)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # values are copied, never computed: exact


def test_equal_scores_come_by_prediction_then_class():
    boxes = np.tile(np.float32([[0, 0, 4, 4]]), (1, N, 1)) + 10 * np.arange(N, dtype=np.float32)[:, None]
    scores = np.full((1, N, C), 0.5, np.float32)
    found, expected = found_by_both(boxes, scores[..., 0], scores, np.ones(C, bool), 0.25, 0.5, True, False, 300)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[2][0, : N * C].tolist() == list(range(C)) * N


def test_as_many_candidates_as_there_can_be():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (2, N, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 5], axis=2)
    scores = rng.uniform(0.3, 1, (2, N, C)).astype(np.float32)
    for most in (300, 150):
        found, expected = found_by_both(boxes, scores[..., 0], scores, np.ones(C, bool), 0.25, 0.9, True, False, most)
        assert (found[3] == min(most, N * C)).all()
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
