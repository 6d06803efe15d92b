"""StableHLO: one program for CPUs, GPUs and TPUs, which needs JAX alone to run (the door to `jax.export`).

The file is a zip of `program.jax_export` and `meta.json`, neither of them compressed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from numpy.typing import NDArray

from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.formats import Made, content_of
from yolov7_jax.artefacts.program import detect_by_inputs
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.nn.network import Network
from yolov7_jax.reparameterize import fold
from yolov7_jax.types import PaddedDetections

PLATFORMS = ("cpu", "cuda", "tpu")

_PROGRAM, _META = "program.jax_export", "meta.json"


def make(weights: Weights, size: tuple[int, int] | None, dtype: str = "float32") -> Made:
    """The program of weights, with decoding and non-maximum suppression inside; see `program.detect_by_inputs`.

    The number of images is open. size: (h, w) in pixels of its images; None leaves them open too, as multiples of the
    largest stride.

    Raises:
        InstallationError: flatbuffers is not installed. WeightsError: weights cannot be folded.
    """
    _check_installed()
    network = Network(inference_form(weights.graph), jnp.dtype(dtype))
    variables = jax.tree.map(np.asarray, fold(weights.graph, weights.variables))
    images = jax.ShapeDtypeStruct(_shape(size, weights.graph.max_stride), jnp.uint8)
    number, flag = (jax.ShapeDtypeStruct((), kind) for kind in (jnp.float32, jnp.bool_))
    mask, most = jax.ShapeDtypeStruct((len(weights.names),), jnp.bool_), jax.ShapeDtypeStruct((), jnp.int32)

    def detect(*inputs: jax.Array) -> dict[str, jax.Array]:
        # Behind a barrier weights are what they are to a detector: nothing that XLA computes with beforehand. Without
        # it the last bits of large networks differ.
        return detect_by_inputs(network, lax.optimization_barrier(variables), *inputs)

    exported = export.export(jax.jit(detect), platforms=PLATFORMS)
    with _without_places_of_code():
        program = exported(images, number, number, mask, flag, flag, most).serialize()
    return Made(bytes(program), PLATFORMS, {"jax": jax.__version__})


@contextmanager
def _without_places_of_code() -> Iterator[None]:
    """Lowers programs that do not name the files that they come from: the same weights give the same bytes anywhere."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _shape(size: tuple[int, int] | None, stride: int) -> tuple[Any, ...]:
    if size is not None:
        return (*export.symbolic_shape("b"), *size, 3)
    images, rows, columns = export.symbolic_shape("b, h, w")
    return images, stride * rows, stride * columns, 3


def pack(program: bytes, facts: Facts) -> Mapping[str, bytes]:
    """The file of a program."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for name, part in ((_META, facts.to_json().encode()), (_PROGRAM, program)):
            file.writestr(zipfile.ZipInfo(name), part)  # of no date: the same bytes every time
    return {".shlo.zip": content.getvalue()}


class StableHlo:
    """An artefact of StableHLO, run by JAX on its default device."""

    compiles = True

    def __init__(self, path: Path) -> None:
        """Reads and checks the file.

        Raises:
            InputError: it cannot be used. InstallationError: flatbuffers is not installed.
        """
        _check_installed()
        self.facts, program = _read(content_of(path))
        try:
            exported = export.deserialize(bytearray(program))
        except Exception as error:  # jax.export does not say which
            written = self.facts.versions.get("jax", "another version")
            raise InputError(
                f"its program, written by jax {written}, cannot be read by jax {jax.__version__} "
                f"({str(error).splitlines()[0]}); export it again"
            ) from error
        self._call = jax.jit(exported.call)

    def __call__(
        self,
        images: NDArray[np.uint8],
        confidence: float,
        iou: float,
        class_mask: NDArray[np.bool_],
        *,
        multi_label: bool,
        agnostic: bool,
        max_detections: int,
    ) -> PaddedDetections:
        """Detections in letterboxed images uint8 [B, h, w, 3]."""
        numbers = np.float32(confidence), np.float32(iou), class_mask
        found = self._call(images, *numbers, np.bool_(multi_label), np.bool_(agnostic), np.int32(max_detections))
        boxes = found["boxes"]
        valid = jnp.arange(boxes.shape[1])[None, :] < found["counts"][:, None]
        return PaddedDetections(boxes, found["scores"], found["classes"], valid, found["overflow"])


def _read(content: bytes) -> tuple[Facts, bytes]:
    try:
        with zipfile.ZipFile(BytesIO(content)) as file:
            parts = {name: _part(file, name, len(content)) for name in (_META, _PROGRAM)}
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(f"not a whole file of StableHLO ({error}); export it again") from error
    facts = Facts.from_json(parts[_META])
    facts.check_program(parts[_PROGRAM])
    return facts, parts[_PROGRAM]


def _part(file: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A part of the file, which is no larger than the file: nothing in it is compressed."""
    known = file.getinfo(name)
    if known.compress_type != zipfile.ZIP_STORED or known.file_size > most:
        raise InputError(f"{name} in it is compressed or too large, as `export` writes none; export it again")
    return file.read(name)


def _check_installed() -> None:
    try:
        import flatbuffers  # noqa: F401 - jax.export needs it
    except ImportError as error:
        raise InstallationError("StableHLO needs flatbuffers; install it: pip install 'yolov7-jax[export]'") from error
