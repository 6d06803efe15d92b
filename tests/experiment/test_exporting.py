"""Exports: what is proven gets its name, and nothing else does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import yolov7_jax as yolo
from tests.small_networks import noise, small_weights
from yolov7_jax.artefacts import onnx_artefact, openvino_artefact, stablehlo
from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.formats import SUFFIXES
from yolov7_jax.artefacts.onnx_engine import OnnxEngine
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.artefacts.openvino_engine import as_openvino
from yolov7_jax.artefacts.proof import FLOAT16, FLOAT32
from yolov7_jax.cli import export as command
from yolov7_jax.cli.main import main
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.errors import DifferenceError, InputError
from yolov7_jax.experiment import exporting
from yolov7_jax.experiment.exporting import export
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference.image_paths import find_images


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("export")
    save(home / "best.safetensors", small_weights())
    for number in range(3):
        write_image(home / "images" / f"{number}.png", noise(64, 64, number))
    (home / "labels").mkdir()
    for number in range(3):
        (home / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n2 0.3 0.3 0.2 0.2\n")
    (home / "data.yaml").write_text("train: images\nval: images\nnames: [ant, bee, cat]\n")
    return home


def with_kernel(weights: Weights, change: Any) -> Weights:
    variables = jax.tree.map(np.array, dict(weights.variables))
    kernel = variables["params"]["1"]["conv"]["kernel"]
    variables["params"]["1"]["conv"]["kernel"] = change(kernel)
    return replace(weights, variables=variables)


def zeroed(kernel: np.ndarray) -> np.ndarray:
    kernel[..., 3] = 0
    return kernel


MUTATIONS: dict[str, Any] = {
    "a kernel changed by 0.1 %": lambda weights: with_kernel(weights, lambda kernel: kernel * np.float32(1.001)),
    "one filter zeroed": lambda weights: with_kernel(weights, zeroed),
    "channels swapped": lambda weights: with_kernel(weights, lambda kernel: kernel[:, :, ::-1]),
}


FORMATS = {"best.shlo.zip": stablehlo, "best.onnx": onnx_artefact, "best.xml": openvino_artefact}


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_artefact_of_other_weights_is_refused(
    home: Path, tmp_path: Path, file: str, mutation: str, monkeypatch: Any
) -> None:
    whole = FORMATS[file].make
    monkeypatch.setattr(FORMATS[file], "make", lambda weights, *rest: whole(MUTATIONS[mutation](weights), *rest))
    with pytest.raises(DifferenceError, match=r"nothing was written"):
        export(home / "best.safetensors", tmp_path / file, proof_images=home / "images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", FORMATS)
def test_other_names_are_refused(home: Path, tmp_path: Path, file: str, monkeypatch: Any) -> None:
    whole = FORMATS[file].pack
    swapped = ("bee", "ant", "cat")
    monkeypatch.setattr(FORMATS[file], "pack", lambda program, facts: whole(program, replace(facts, names=swapped)))
    with pytest.raises(DifferenceError, match="another names of classes than its source"):
        export(home / "best.safetensors", tmp_path / file, proof_images=home / "images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "low"), [("best.shlo.zip", "bfloat16"), ("best.onnx", "float16")])
def test_a_dtype_passed_off_as_another_is_refused(
    home: Path, tmp_path: Path, file: str, low: str, monkeypatch: Any
) -> None:
    whole = FORMATS[file].make
    monkeypatch.setattr(FORMATS[file], "make", lambda weights, shape, dtype: whole(weights, shape, low))
    with pytest.raises(DifferenceError):
        export(home / "best.safetensors", tmp_path / file, proof_images=home / "images")


def test_float16_is_measured_against_float32(home: Path, tmp_path: Path) -> None:
    done = export(home / "best.safetensors", tmp_path / "half.onnx", dtype="float16", proof_images=home / "images")
    assert done.facts.dtype == "float16"
    assert 1e-5 < done.facts.differences["scores"] < 0.01
    assert 0 < done.facts.differences["boxes_px"] <= done.facts.differences["all_boxes_px"] < 16
    assert len(yolo.Detector.load(done.file)([noise(64, 64)])[0]) > 0


@pytest.mark.parametrize(("name", "runtime"), [("best.onnx", "onnxruntime"), ("best.xml", "openvino")])
def test_files_are_proven_and_told_from_those_that_were_changed(
    home: Path, tmp_path: Path, name: str, runtime: str
) -> None:
    done = export(home / "best.safetensors", tmp_path / name, proof_images=home / "images")
    assert 0 <= done.facts.differences["scores"] < 1e-5  # of float32, in another order of sums
    assert done.facts.platforms == {runtime: "run"}
    assert {file.name for file in tmp_path.iterdir()} == {name, *(["best.bin"] if name == "best.xml" else [])}
    said: list[str] = []
    (ours,), (theirs,) = (
        yolo.Detector.load(file, report=said.append)([noise(64, 64)], rect=False)
        for file in (home / "best.safetensors", done.file)
    )
    assert len(ours) == len(theirs) > 0
    assert len(said) == 1  # for the source alone something is compiled
    np.testing.assert_allclose(theirs.boxes_xyxy_px, ours.boxes_xyxy_px, atol=0.01)
    content = done.file.read_bytes()
    at = content.rindex(b"bee")
    hostile = {content[:at] + b"wee" + content[at + 3 :]: r"what it says of itself cannot be used \(it was changed"}
    hostile |= {content[:cut]: "" for cut in (0, 10, len(content) // 2, len(content) - 10)}
    for changed, words in hostile.items():
        done.file.write_bytes(changed)
        with pytest.raises(InputError, match=rf"{name}: .*{words}") as caught:
            yolo.Detector.load(done.file)
        assert str(caught.value).count(name) == 1
        assert "\n" not in str(caught.value)


def test_openvino_weights_are_those_of_the_network(home: Path, tmp_path: Path) -> None:
    file = export(home / "best.safetensors", tmp_path / "best.xml", proof_images=home / "images").file
    data = file.with_suffix(".bin")
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"best\.xml: its program is not the one that was written"):
        yolo.Detector.load(file)
    data.unlink()
    with pytest.raises(InputError, match=r"best\.bin: cannot be read \(No such file"):
        yolo.Detector.load(file)


@pytest.mark.parametrize("name", ["other.onnx", "other.xml"])
def test_files_of_others_are_no_detectors(home: Path, tmp_path: Path, name: str) -> None:
    model = onnx_model(small_weights(), size=(64, 64))
    text, data = as_openvino(model.SerializeToString())
    (tmp_path / name).write_bytes(text if name == "other.xml" else model.SerializeToString())
    (tmp_path / "other.bin").write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: is no detector that yolov7-jax exported"):
        yolo.Detector.load(tmp_path / name)


def test_the_command_knows_every_format() -> None:
    assert dict.fromkeys(command.FORMATS) == dict.fromkeys(SUFFIXES)


def test_where_the_source_finds_nothing_nothing_is_proven(home: Path, tmp_path: Path) -> None:
    weights = small_weights()
    variables = jax.tree.map(np.array, dict(weights.variables))
    variables["params"]["2"]["m"]["0"]["bias"] -= 20
    save(tmp_path / "blind.safetensors", replace(weights, variables=variables))
    with pytest.raises(InputError, match=r"finds nothing over 0\.25 in the photographs.*--proof-images DIR"):
        export(tmp_path / "blind.safetensors", tmp_path / "blind.shlo.zip", proof_images=home / "images")
    assert [file.name for file in tmp_path.iterdir()] == ["blind.safetensors"]


@pytest.mark.parametrize(
    ("file", "given", "words"),
    [
        (
            "best.tflite",
            {},
            r"best\.tflite: of no known format; .* ends in \.shlo\.zip \(stablehlo\), \.onnx .*, \.xml",
        ),
        ("best.shlo.zip", {"dtype": "int8"}, "--dtype int8: expected one of float32, bfloat16"),
        ("best.shlo.zip", {"size": 60}, "60"),
        ("best.shlo.zip", {"size": 64, "any_size": True}, "leave --size out"),
        ("best.shlo.zip", {"proof_images": "nowhere"}, "nowhere"),
        ("best.onnx", {"any_size": True}, "is for images of one size"),
        ("best.onnx", {"dtype": "bfloat16"}, "--dtype bfloat16: expected one of float32, float16"),
    ],
)
def test_wrong_input_is_a_sentence(home: Path, tmp_path: Path, file: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        export(home / "best.safetensors", tmp_path / file, **{"proof_images": home / "images", **given})


def test_the_command_and_what_takes_artefacts(home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    shape = ["--size", "48,64", "--proof-images", str(home / "images")]
    file = str(tmp_path / "best.shlo.zip")
    assert main(["export", str(home / "best.safetensors"), "--output", file, *shape]) == 0
    out = capsys.readouterr().out
    assert "detections in 3 photographs; largest difference of scores 0, of boxes 0 px, before" in out
    assert f"wrote {file}" in out
    assert main(["detect", file, str(home / "images"), "--output", str(tmp_path / "detected")]) == 0
    for name, weights in (("source", str(home / "best.safetensors")), ("artefact", str(home / "square.shlo.zip"))):
        if name == "artefact":
            export(home / "best.safetensors", weights, proof_images=home / "images")
        command = ["val", weights, "--data", str(home / "data.yaml"), "--output", str(tmp_path / name)]
        assert main(command) == 0
    ours, theirs = ((tmp_path / name / "detections.json").read_bytes() for name in ("source", "artefact"))
    assert ours == theirs

    monkeypatch.setattr(exporting, "prove", _refuse)
    assert main(["export", str(home / "best.safetensors"), "--output", str(tmp_path / "b.shlo.zip"), *shape]) == 1
    assert "scores differ by 0.5" in capsys.readouterr().err
    assert not (tmp_path / "b.shlo.zip").exists()
    assert main(["export", str(home / "best.safetensors")]) == 2
    assert "name the format" in capsys.readouterr().err


def _refuse(*_: Any) -> Any:
    raise DifferenceError("scores differ by 0.5")


def test_what_an_artefact_has_settled_cannot_be_asked_for(home: Path) -> None:
    file = export(home / "best.safetensors", home / "settled.shlo.zip", proof_images=home / "images").file
    with pytest.raises(InputError, match=r"settled\.shlo\.zip: an artefact has its own model"):
        yolo.Detector.load(file, model="yolov7")
    with pytest.raises(InputError, match=r"is for images of 64 × 64 pixels, not 128"):
        yolo.Detector.load(file, size=128)
    detector = yolo.Detector.load(file)
    with pytest.raises(InputError, match="max_detections is 400; an artefact has room for 300"):
        detector([noise(64, 64)], max_detections=400)
    with pytest.raises(InputError, match="cannot be given other weights"):
        detector.with_variables({})


class Ran:
    """A program that onnxruntime runs, with the facts of its source."""

    def __init__(self, model: Any, source: yolo.Detector) -> None:
        self._engine = OnnxEngine(model.SerializeToString())
        self.predictions = self._engine.predictions
        self.facts = Facts(source.names, source.shape, source.size, source.stride, "float32", {}, "")

    def __call__(self, *given: Any, **kind: Any) -> Any:
        return self._engine(*given, **kind)


def off_by_a_pixel(model: Any) -> Any:
    """Every map that is upsampled takes its pixels from one place further."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            for attribute in node.attribute:
                if attribute.name == "nearest_mode":
                    attribute.s = b"ceil"
    return model


@pytest.mark.shared
def test_mutations_of_a_trained_network_are_refused_on_the_photographs(shared: Path) -> None:
    weights = yolo.load(shared / "weights" / "yolov5n.pt")
    source = yolo.Detector(weights, size=320)
    source.shape = (320, 320)
    photographs = [read_image(path) for path in find_images([str(exporting.PHOTOGRAPHS)])]

    def model(weights: Weights = weights, dtype: str = "float32") -> Any:
        return onnx_model(weights, size=(320, 320), dtype=dtype)

    measured = exporting.prove(source, Ran(model(), source), photographs, FLOAT32)
    assert measured.detections > 100
    for mutated, tolerance in (
        *((model(mutation(weights)), FLOAT16) for name, mutation in MUTATIONS.items() if "0.1 %" not in name),
        (model(MUTATIONS["a kernel changed by 0.1 %"](weights)), FLOAT32),
        (model(dtype="float16"), FLOAT32),
        (off_by_a_pixel(model()), FLOAT16),
    ):
        with pytest.raises(DifferenceError):
            exporting.prove(source, Ran(mutated, source), photographs, tolerance)
    assert exporting.prove(source, Ran(model(dtype="float16"), source), photographs, FLOAT16).detections > 3
