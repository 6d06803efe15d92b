"""StableHLO: the same detections to the bit, and files that were tampered with."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.artefacts.graphs import GRAPHS
from tests.small_networks import noise, small_weights
from tools.export_zoo import compare_stablehlo, spread
from yolov7_jax.artefacts import stablehlo
from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.stablehlo import StableHlo
from yolov7_jax.convert.weights_file import save
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.exporting import ExportRun, export
from yolov7_jax.graph.rewrite import with_width
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = "best.shlo.zip"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, two images in which they find something, an artefact."""
    home = tmp_path_factory.mktemp("export")
    save(home / "best.safetensors", small_weights())
    for number, size in enumerate([(40, 64), (64, 64)]):
        write_image(home / "images" / f"{number}.png", noise(*size, number))
    return home


@pytest.fixture(scope="module")
def done(home: Path) -> ExportRun:
    return export(home / "best.safetensors", home / SUFFIX, proof_images=home / "images")


def kinds() -> Any:
    return [*((multi, across, 300) for multi in (False, True) for across in (False, True)), (True, True, 7)]


@pytest.mark.parametrize("images", [1, 3])
def test_every_option_gives_what_the_detector_gives_to_the_bit(home: Path, done: ExportRun, images: int) -> None:
    detector, artefact = Detector.load(home / "best.safetensors"), StableHlo(done.file)
    batch = np.stack([noise(64, 64, seed) for seed in range(images)])
    for mask in (np.ones(3, bool), np.array([True, False, True])):
        for multi_label, agnostic, most in kinds():
            options: Any = {"multi_label": multi_label, "agnostic": agnostic, "max_detections": most}
            numbers = np.float32(0.3), np.float32(0.5), mask
            expected, found = detector.run(batch, *numbers, **options), artefact(batch, *numbers, **options)
            assert expected.valid.sum() > images
            for name, ours, theirs in zip(expected._fields, expected, found, strict=True):
                np.testing.assert_array_equal(np.asarray(theirs)[:, :most] if ours.ndim > 1 else theirs, ours, name)
            assert np.asarray(found.valid).sum() == np.asarray(expected.valid).sum()


WIDE = {"wide": lambda: with_width(zoo("yolov7", num_classes=3), 0.5)}
"""Wide enough that XLA would compute with weights beforehand if it knew them, by other roundings."""


@pytest.mark.parametrize("name", ["others", "shapes", "rep csp", "yolov7-tiny", "wide"])
def test_layers_give_what_the_detector_gives_to_the_bit(name: str) -> None:
    """Of kinds that differ most; `tools/export_zoo.py` does so for every network."""
    graph = (GRAPHS | WIDE)[name]()
    size = max(64, graph.max_stride)
    found = compare_stablehlo(spread(graph, size=size), size=size)
    assert found.detections > 10
    assert found.difference == 0


def test_images_of_any_size(home: Path) -> None:
    facts = export(home / "best.safetensors", home / "any.shlo.zip", any_size=True, proof_images=home / "images").facts
    assert (facts.size, facts.input_size, facts.stride) == (None, 64, 8)
    weights, artefact = (Detector.load(home / name) for name in ("best.safetensors", "any.shlo.zip"))
    assert artefact.stride == 8
    for size in ((40, 64), (64, 40), (24, 64)):
        (ours,), (theirs,) = weights([noise(*size)]), artefact([noise(*size)])
        assert len(ours) > 0
        np.testing.assert_array_equal(theirs.boxes_xyxy_px, ours.boxes_xyxy_px)
        np.testing.assert_array_equal(theirs.scores, ours.scores)
    with pytest.raises(InputError, match="images of 60 pixels: expected a multiple of 8"):
        Detector.load(home / "any.shlo.zip", size=60)


def test_it_says_what_it_is(done: ExportRun, home: Path) -> None:
    facts = StableHlo(done.file).facts
    assert facts == done.facts
    assert facts.names == ("ant", "bee", "cat")
    assert facts.size == (64, 64)
    assert facts.platforms == {"cpu": "run", "cuda": "lowered", "tpu": "lowered"}
    assert facts.versions["jax"] == jax.__version__
    assert facts.differences["scores"] == facts.differences["boxes_px"] == 0
    assert facts.differences["photographs"] == 2
    again = export(home / "best.safetensors", home / "again.shlo.zip", proof_images=home / "images").file
    assert again.read_bytes() == done.file.read_bytes()


def parts(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as content:
        return {name: content.read(name) for name in content.namelist()}


def rewritten(file: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes) -> None:
    with zipfile.ZipFile(file, "w", compression) as content:
        for name, part in changed.items():
            content.writestr({"meta": "meta.json", "program": "program.jax_export"}[name], part)


def edited(meta: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(meta), **changes}).encode()


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda file, meta, program: file.write_bytes(file.read_bytes()[:-100]), "not a whole file of StableHLO"),
        (lambda file, meta, program: file.write_bytes(b"PK no zip"), "not a whole file of StableHLO"),
        (lambda file, meta, program: rewritten(file, meta=meta), "not a whole file of StableHLO"),
        (
            lambda file, meta, program: rewritten(file, zipfile.ZIP_DEFLATED, meta=meta, program=bytes(2**26)),
            "compressed or too large",
        ),
        (
            lambda file, meta, program: rewritten(
                file, meta=edited(meta, names=["bee", "ant", "cat"]), program=program
            ),
            "it was changed after it was written",
        ),
        (lambda file, meta, program: rewritten(file, meta=b"{}", program=program), "cannot be used"),
        (lambda file, meta, program: rewritten(file, meta=b"[1]", program=program), "cannot be used"),
        (lambda file, meta, program: rewritten(file, meta=meta, program=program[:-1] + b"!"), "sha256 differs"),
        (lambda file, meta, program: file.unlink(), "cannot be read .No such file"),
    ],
)
def test_what_was_tampered_with_is_refused_in_a_sentence(
    done: ExportRun, tmp_path: Path, tamper: Any, words: str
) -> None:
    file = tmp_path / SUFFIX
    file.write_bytes(done.file.read_bytes())
    content = parts(file)
    tamper(file, content["meta.json"], content["program.jax_export"])
    with pytest.raises(InputError, match=words) as caught:
        Detector.load(file)
    assert str(caught.value).count(str(file)) == 1


def test_a_program_that_this_jax_cannot_read_is_said_with_its_version(done: ExportRun, tmp_path: Path) -> None:
    facts = Facts.from_json(parts(done.file)["meta.json"])
    (tmp_path / SUFFIX).write_bytes(stablehlo.pack(b"of another age", facts.of_program(b"of another age"))[".shlo.zip"])
    with pytest.raises(InputError, match=f"written by jax {jax.__version__}, cannot be read by jax {jax.__version__}"):
        Detector.load(tmp_path / SUFFIX)


def test_the_loader_of_the_guide_runs_without_the_package(home: Path, done: ExportRun, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "export.md").read_text()
    code = guide.partition("## StableHLO without this package")[2].partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    (tmp_path / SUFFIX).write_bytes(done.file.read_bytes())
    write_image(tmp_path / "image.png", noise(64, 64))
    script = "import sys\nsys.modules['yolov7_jax'] = None\n" + code.replace("image.jpg", "image.png")
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (expected,) = Detector.load(home / "best.safetensors")([noise(64, 64)])
    lines = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    assert [name for name, *_ in lines] == [expected.names[number] for number in expected.class_ids]
    for (_, score, box), ours, ours_score in zip(lines, expected.boxes_xyxy_px, expected.scores, strict=True):
        assert float(score) == pytest.approx(ours_score, abs=0.0051)  # two decimals
        assert np.abs(json.loads(box) - ours).max() < 66  # boxes beyond the image are not cut there
