"""From images to detections: letterbox on the host; network, decoding and NMS in one compiled function."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from numpy.typing import NDArray

from yolov7_jax.artefacts.formats import is_artefact
from yolov7_jax.artefacts.program import detect_batch
from yolov7_jax.compilation_cache import compiling
from yolov7_jax.config import Options
from yolov7_jax.convert.load import Model, load
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.letterbox import Letterbox, letterbox
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.image import read_image
from yolov7_jax.nn.network import Network
from yolov7_jax.prefetch import prefetch
from yolov7_jax.reparameterize import fold
from yolov7_jax.types import Detections, PaddedDetections

ImageLike = Path | str | NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]
"""A file, an RGB image uint8 [h, w, 3], or a function that reads one when it is needed, in a thread of its own."""


_STATIC = ("multi_label", "agnostic", "max_detections")  # options that another program is compiled for


_IMAGES = "images"  # the axis of a batch that devices share


class Result(NamedTuple):
    """Of one image of a stream: its place, and what was found or why it could not be read.

    image: uint8 [h, w, 3] RGB, as read. seconds: "read" (decoding and letterbox, in its thread) and "device" (network
    and NMS: its share of the batch).
    """

    position: int
    image: NDArray[np.uint8] | None = None
    detections: Detections | None = None
    error: DataError | None = None
    seconds: Mapping[str, float] | None = None


class _Prepared(NamedTuple):
    position: int
    image: NDArray[np.uint8]
    boxed: NDArray[np.uint8]
    letterbox: Letterbox
    seconds: float


class Detector:
    """A network ready to detect: folded for inference, its weights on the device.

    names: of the classes. size: the longer side of images in pixels, which are padded to multiples of the stride, or to
    shape, (h, w), where there is one.

    Give images to the detector itself for a list of `Detections`, or to `stream` for many.
    """

    shape: tuple[int, int] | None
    _mesh: Mesh | None

    def __init__(
        self,
        weights: Weights,
        *,
        size: int | None = None,
        dtype: DTypeLike = jnp.float32,
        report: Callable[[str], None] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Folds the weights and puts them on the devices.

        size: the longer side of images in pixels, the weights' own if None. dtype: of the computation, float32 or
        bfloat16. report: is told when images of another shape make people wait for a compilation. devices: of this
        host, each of which takes its part of every batch (`jax.local_devices()` are all); by default
        JAX's default device.

        Raises:
            GraphError: the size is no multiple of the largest stride. WeightsError: weights cannot be folded.
        """
        self._begin(weights.names, weights.input_size if size is None else size, weights.graph.max_stride, report)
        weights.graph.check_side(self.size)
        self.graph = weights.graph
        self.network = Network(inference_form(weights.graph), dtype)
        self._mesh = None if devices is None else Mesh(list(devices), _IMAGES)
        self.variables = self._placed(fold(weights.graph, weights.variables))
        self.compiled = jax.jit(self._program(), static_argnames=_STATIC)

    def _begin(self, names: tuple[str, ...], size: int, stride: int, report: Callable[[str], None] | None) -> None:
        """What detectors have in common."""
        self.names, self.size, self.stride = names, size, stride
        self.shape = None
        self._mesh = None
        self._report = report
        self._met: set[tuple[Any, ...]] = set()  # shapes and static options of what is compiled

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        model: Model | None = None,
        size: int | None = None,
        dtype: DTypeLike = jnp.float32,
        report: Callable[[str], None] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> Detector:
        """The detector of a weights file, or of an artefact that `export` wrote.

        See `load` for weights files and models. An artefact has its size and dtype, and runs where its runtime does.

        Raises:
            InputError: the file cannot be used, or an artefact is asked for what was settled when it was exported.
        """
        if is_artefact(path):
            from yolov7_jax.inference.exported import ExportedDetector

            given = {"model": model, "dtype": None if jnp.dtype(dtype) == jnp.float32 else dtype}
            return ExportedDetector.open(path, size=size, report=report, given=given)
        return cls(load(path, model=model), size=size, dtype=dtype, report=report, devices=devices)

    def identity(self) -> dict[str, Any]:
        """What is the same of two detectors that find the same, as values of JSON; weights are not looked at."""
        return {
            "size": self.size,
            "dtype": str(np.dtype(self.network.dtype)),
            "the list of classes": self.names,
            "the network": self.graph.to_json(),
        }

    def with_variables(self, variables: Mapping[str, Any]) -> Detector:
        """The same network with other weights, in the form they are trained in; nothing is compiled again.

        Raises:
            WeightsError: weights cannot be folded.
        """
        other = copy(self)
        other.variables = self._placed(fold(self.graph, variables))
        return other

    def _placed(self, variables: Mapping[str, Any]) -> Any:
        """Weights on every device."""
        return jax.device_put(variables, None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec()))

    def _program(self) -> Callable[..., PaddedDetections]:
        """`detect_batch` of the network. Of several devices each works by itself: suppression waits for no other."""
        program, mesh = partial(detect_batch, self.network), self._mesh
        if mesh is None or mesh.size == 1:
            return program
        whole, split = PartitionSpec(), PartitionSpec(_IMAGES)

        def on_devices(*args: Any, **static: Any) -> PaddedDetections:
            each = jax.shard_map(
                partial(program, **static),
                mesh=mesh,
                in_specs=(whole, split, whole, whole, whole),
                out_specs=split,
                check_vma=False,
            )
            found: PaddedDetections = each(*args)
            return found

        return on_devices

    def __call__(self, images: Iterable[ImageLike], **options: Any) -> list[Detections]:
        """Detections of each image, in source pixels. Options are the fields of `Options`.

        Raises:
            DataError: an image cannot be read. InputError: an option is out of its range.
        """
        found: dict[int, Detections] = {}
        for result in self.stream(images, Options(**options)):
            if result.error is not None:
                raise result.error
            assert result.detections is not None
            found[result.position] = result.detections
        return [found[position] for position in sorted(found)]

    def stream(self, images: Iterable[ImageLike], options: Options | None = None) -> Iterator[Result]:
        """Results as they come: while the device works on a batch, the next images are read.

        With batches of more than one image results may change their order: look at `position`. Images that cannot be
        read come as results with `error`.

        Raises:
            InputError: at once, if a class wanted is not known.
        """
        options = options or Options()
        return self._stream(images, options, class_mask(options.classes, self.names))

    def _stream(self, images: Iterable[ImageLike], options: Options, mask: NDArray[np.bool_]) -> Iterator[Result]:
        prepare = partial(self._prepare, options)
        devices = 1 if self._mesh is None else self._mesh.size
        size = -(-options.batch_size // devices) * devices  # each device has its part
        ahead = options.workers + 2 * size
        running: deque[tuple[list[_Prepared], PaddedDetections, float]] = deque()
        done_at = 0.0
        for batch in _batches(prefetch(prepare, enumerate(images), workers=options.workers, ahead=ahead), size):
            if isinstance(batch, Result):
                yield batch
                continue
            running.append((batch, self._start(batch, size, mask, options), time.perf_counter()))
            if len(running) > 1:
                results, done_at = self._finish(*running.popleft(), done_at)
                yield from results
        while running:
            results, done_at = self._finish(*running.popleft(), done_at)
            yield from results

    def _prepare(self, options: Options, item: tuple[int, ImageLike]) -> _Prepared | Result:
        position, given = item
        started = time.perf_counter()
        try:
            given = given() if callable(given) else given
            image = read_image(given) if isinstance(given, str | Path) else _checked(given)
        except DataError as error:
            return Result(position, error=error)
        size, auto = self.shape or self.size, options.rect and self.shape is None
        boxed, geometry = letterbox(image, size, stride=self.stride, auto=auto, resize=options.resize)
        return _Prepared(position, image, boxed, geometry, time.perf_counter() - started)

    def _start(
        self, batch: Sequence[_Prepared], size: int, mask: NDArray[np.bool_], options: Options
    ) -> PaddedDetections:
        images = np.zeros((size, *batch[0].boxed.shape), np.uint8)  # short batches keep the shape
        for place, prepared in enumerate(batch):
            images[place] = prepared.boxed
        static = {name: getattr(options, name) for name in _STATIC}
        self._meet(images, static)
        return self.run(images, np.float32(options.confidence), np.float32(options.iou), mask, **static)

    def run(self, images: NDArray[np.uint8], *numbers: Any, **static: Any) -> PaddedDetections:
        """The compiled part, of letterboxed images [B, h, w, 3]; numbers and static are those of `detect_batch`."""
        return self.compiled(self.variables, images, *numbers, **static)

    def _meet(self, images: NDArray[np.uint8], static: Mapping[str, Any]) -> None:
        """Reports images that nothing is compiled for yet."""
        key = (images.shape, *static.values())
        if key not in self._met and self._report is not None:
            self._report(compiling("the network", images.shape[1:3]))
        self._met.add(key)

    def _finish(
        self, batch: Sequence[_Prepared], found: PaddedDetections, started: float, previous: float
    ) -> tuple[list[Result], float]:
        """Results of a batch, and when the device was done with it; it began when started and the one before done."""
        boxes_xyxy_px, scores, class_ids, valid, overflow = map(np.asarray, found)  # [B, D, …]
        done_at = time.perf_counter()
        device = (done_at - max(started, previous)) / len(batch)
        results = []
        for place, prepared in enumerate(batch):
            rows = valid[place]
            detections = Detections(
                prepared.letterbox.undo(boxes_xyxy_px[place][rows]),
                scores[place][rows],
                class_ids[place][rows],
                self.names,
                int(overflow[place]),
            )
            seconds = {"read": prepared.seconds, "device": device}
            results.append(Result(prepared.position, prepared.image, detections, seconds=seconds))
        return results, done_at


def class_mask(classes: Sequence[int | str] | None, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes are wanted, bool [C], from numbers and names.

    Raises:
        InputError: a class that the network does not know.
    """
    if classes is None:
        return np.ones(len(names), bool)
    mask = np.zeros(len(names), bool)
    for wanted in classes:
        number = names.index(wanted) if wanted in names else wanted
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise InputError(
                f"class {wanted!r} is not known; expected a number from 0 to {len(names) - 1} or one of "
                f"{', '.join(names)}"
            )
        mask[number] = True
    return mask


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"an image must be uint8 [h, w, 3] RGB, got {image.dtype} {list(image.shape)}; convert it first"
        )
    return image


def _batches(items: Iterable[_Prepared | Result], size: int) -> Iterator[list[_Prepared] | Result]:
    """Groups images of one shape; results (of images that cannot be read) pass through."""
    waiting: dict[tuple[int, ...], list[_Prepared]] = {}
    for item in items:
        if isinstance(item, Result):
            yield item
            continue
        group = waiting.setdefault(item.boxed.shape, [])
        group.append(item)
        if len(group) == size:
            yield waiting.pop(item.boxed.shape)
    yield from waiting.values()
