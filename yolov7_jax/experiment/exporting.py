"""Exports: artefacts for other runtimes, each compared with its source on photographs before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from yolov7_jax import __version__
from yolov7_jax.artefacts import formats
from yolov7_jax.artefacts.facts import Facts, sha256
from yolov7_jax.artefacts.formats import FORMATS, Artefact, Format, Made, format_of
from yolov7_jax.artefacts.program import CAPACITY, predict
from yolov7_jax.artefacts.proof import EXACT, Differences, Found, Tolerance, compare_detections, largest_difference
from yolov7_jax.config import EVALUATION
from yolov7_jax.convert.load import Model, load, weights_file_of
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.letterbox import letterbox
from yolov7_jax.errors import DifferenceError, InputError
from yolov7_jax.image import read_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.image_paths import find_images
from yolov7_jax.types import PaddedDetections

Report = Callable[[str], None]

PHOTOGRAPHS = Path(formats.__file__).parent / "photographs"
"""What artefacts are compared on, unless others are given."""

LOW = 0.001
"""The confidence of evaluations, at which artefacts are compared too."""


@dataclass(frozen=True)
class ExportRun:
    """What `export` wrote: the file, and what it says of itself."""

    file: Path
    facts: Facts


def export(
    weights: Path | str,
    file: Path | str,
    *,
    model: Model | None = None,
    size: int | tuple[int, int] | None = None,
    any_size: bool = False,
    dtype: str = "float32",
    proof_images: Path | str | Sequence[Path | str] = PHOTOGRAPHS,
    report: Report = lambda _: None,
) -> ExportRun:
    """Writes an artefact of a detector, after it has found in photographs what the detector finds.

    The artefact takes images uint8 [B, h, w, 3] in their letterbox, any number at once, with thresholds and classes
    wanted, and gives detections: see `artefacts.program.detect_by_inputs`. It is written beside its place, opened in
    its runtime, and compared: scores within the format's tolerance, boxes likewise, detections one by one. Only then
    does it get its name.

    Args:
        weights: a weights file or the folder of a run; see `load`.
        file: to write; its suffix says the format: .shlo.zip (StableHLO), .onnx, .xml (OpenVINO; a .bin beside it).
        model: what the weights are of, where the file does not say.
        size: of images in pixels, the side of squares or (h, w); by default that which the weights are meant for.
        any_size: images may have any size, in multiples of the largest stride.
        dtype: of the computation.
        proof_images: files, folders or patterns of photographs, in some of which there is something to find.
        report: is told what is done.

    Raises:
        DifferenceError: it finds something else than its source; nothing is written. InputError: something given
            cannot be used, or the source finds nothing in the photographs. InstallationError: a library is missing.
    """
    file, source = Path(file), weights_file_of(weights)
    form = FORMATS[format_of(file)]()
    known = load(source, model=model)
    shape = _shape(size, known, any_size=any_size, form=form, file=file)
    if dtype not in form.tolerance:
        raise InputError(f"{file}: --dtype {dtype}: expected one of {', '.join(form.tolerance)} for this format")
    images = [read_image(path) for path in _photographs(proof_images)]
    tolerance = form.tolerance[dtype]
    source_dtype = dtype if tolerance == EXACT else "float32"
    detector = Detector(known, size=max(shape or (known.input_size,)), dtype=source_dtype)
    detector.shape = shape
    report(f"exporting {source} for images of {_size_text(shape, known)}")
    made = form.make(known, shape, dtype)
    facts = _facts(detector, shape, dtype, source, made)
    with _part(file) as part:
        _write(part, form.pack(made.program, facts))
        report(f"comparing it with its source in {len(images)} photographs")
        differences = prove(detector, form.open(part), images, tolerance)
        facts = replace(facts, differences={**differences._asdict(), "photographs": len(images)})
        _write(part, form.pack(made.program, facts))
        form.open(part)
    return ExportRun(file, facts)


def _facts(detector: Detector, shape: tuple[int, int] | None, dtype: str, source: Path, made: Made) -> Facts:
    """What is known before the comparison."""
    return Facts(
        names=detector.names,
        size=shape,
        input_size=detector.size,
        stride=detector.stride,
        dtype=dtype,
        source={"file": source.name, "sha256": sha256(source.read_bytes())},
        program=sha256(made.program),
        versions={"yolov7_jax": __version__, **made.versions},
        platforms=_platforms(made),
    )


def _size_text(shape: tuple[int, int] | None, weights: Weights) -> str:
    return f"any size (here {weights.input_size} pixels)" if shape is None else f"{shape[1]} × {shape[0]} pixels"


def _shape(
    size: int | tuple[int, int] | None, weights: Weights, *, any_size: bool, form: Format, file: Path
) -> tuple[int, int] | None:
    """(h, w) of images in pixels; None: any."""
    if any_size:
        if not form.any_size:
            raise InputError(f"{file}: an artefact of this format is for images of one size; name it (--size)")
        if size is not None:
            raise InputError("--any-size leaves the size open; leave --size out")
        return None
    size = weights.input_size if size is None else size
    shape = (size, size) if isinstance(size, int) else size
    for side in shape:
        weights.graph.check_side(side)
    return shape


def _photographs(given: Path | str | Sequence[Path | str]) -> list[Path]:
    return find_images([str(given)] if isinstance(given, Path | str) else [str(one) for one in given])


def _platforms(made: Made) -> dict[str, str]:
    """What became of the program on each platform that it is for."""
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    return {name: "run" if name == here or len(made.platforms) == 1 else "lowered" for name in made.platforms}


@contextmanager
def _part(file: Path) -> Iterator[Path]:
    """A place in a folder beside the file named: what is there moves beside it where the work within succeeds.

    The file itself moves last; the folder goes away in any case.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=f"{file.name}.", suffix=".part") as folder:
            yield Path(folder) / file.name
            for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == file.name):
                part.replace(file.with_name(part.name))
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); choose another place") from error


def _write(file: Path, contents: Mapping[str, bytes]) -> None:
    """Contents by suffix: that of the file, and of others beside it."""
    stem = next(file.name.removesuffix(suffix) for suffix in contents if file.name.endswith(suffix))
    for suffix, content in contents.items():
        file.with_name(stem + suffix).write_bytes(content)


def prove(
    source: Detector, artefact: Artefact, photographs: Sequence[NDArray[np.uint8]], tolerance: Tolerance
) -> Differences:
    """Compares an artefact with its source on photographs [h, w, 3], one and two at a time.

    Where the artefact tells what it sees before suppression, that is compared too, of all predictions. At thresholds of
    evaluations detections are compared where the tolerance of scores is less than that of confidence.

    Raises:
        DifferenceError: they differ by more than the tolerance, or in names or size. InputError: the source finds
            nothing.
    """
    facts = artefact.facts
    for what, ours, theirs in (("names of classes", source.names, facts.names), ("size", source.shape, facts.size)):
        if ours != theirs:
            raise DifferenceError(f"the artefact has another {what} than its source: {theirs}, not {ours}")
    measured, found = Differences(), 0
    for batch in _batches([_letterboxed(image, source) for image in photographs]):
        before = _before_suppression(source, artefact, batch)
        before.check(tolerance, "before suppression")
        usual = _detections(source, artefact, batch, facts.confidence, facts.iou, tolerance, multi_label=False)
        measured, found = measured + before + usual, found + usual.detections
        if tolerance.scores < LOW:
            measured += _detections(source, artefact, batch, LOW, EVALUATION.iou, tolerance, multi_label=True)
    measured.check(tolerance, "detections")
    if not found:
        raise InputError(
            f"the source finds nothing over {facts.confidence:g} in the photographs, which would prove nothing; name "
            "some in which there is something to find (--proof-images DIR)"
        )
    return measured


def _letterboxed(image: NDArray[np.uint8], source: Detector) -> NDArray[np.uint8]:
    return letterbox(image, source.shape or source.size, stride=source.stride, auto=source.shape is None)[0]


def _batches(boxed: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Each image by itself, and with the next of its shape."""
    for number, image in enumerate(boxed):
        yield image[None]
        alike = [other for other in boxed[number + 1 :] if other.shape == image.shape]
        yield np.stack([image, alike[0] if alike else image[:, ::-1]])


def _detections(
    source: Detector,
    artefact: Artefact,
    batch: NDArray[np.uint8],
    confidence: float,
    iou: float,
    tolerance: Tolerance,
    *,
    multi_label: bool,
) -> Differences:
    numbers = np.float32(confidence), np.float32(iou), np.ones(len(source.names), bool)
    kind: Any = {"multi_label": multi_label, "agnostic": False, "max_detections": CAPACITY}
    ours, theirs = (_found(run(batch, *numbers, **kind)) for run in (source.run, artefact))
    compare = partial(compare_detections, confidence=confidence, iou=iou, capacity=CAPACITY, tolerance=tolerance)
    return sum(map(compare, ours, theirs), start=Differences())


def _found(padded: PaddedDetections) -> list[Found]:
    """Of each image of a batch."""
    boxes_xyxy_px, scores, class_ids, valid = map(np.asarray, padded[:4])
    return [Found(boxes_xyxy_px[i][rows], scores[i][rows], class_ids[i][rows]) for i, rows in enumerate(valid)]


def _before_suppression(source: Detector, artefact: Artefact, batch: NDArray[np.uint8]) -> Differences:
    """Differences of all predictions, where the artefact tells them."""
    told = getattr(artefact, "predictions", None)
    if told is None:
        return Differences()
    ours = map(np.asarray, _predictions(source.network, source.variables, batch))
    boxes_px, scores = map(largest_difference, ours, told(batch))
    return Differences(scores, all_boxes_px=boxes_px)


_predictions = jax.jit(predict, static_argnums=0)
