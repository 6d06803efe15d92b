"""From images to detections: letterbox on the host; network, decoding and NMS in one compiled function."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from numpy.typing import NDArray

from yolov7_jax.artefacts.formats import is_artefact
from yolov7_jax.artefacts.program import detect_batch
from yolov7_jax.compilation_cache import compiling, enable_compilation_cache
from yolov7_jax.config import Options
from yolov7_jax.convert.load import Model, load
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.inference.batches import Prepared, batches, once_compiled, prepare, stacked
from yolov7_jax.inference.inputs import ImageLike, images_of, of_read_images
from yolov7_jax.inference.options import class_mask, options_of
from yolov7_jax.inference.results import ImageDetections, Result
from yolov7_jax.inference.tiling import detect_tiled
from yolov7_jax.nn.network import Network
from yolov7_jax.prefetch import prefetch
from yolov7_jax.reparameterize import fold
from yolov7_jax.types import PaddedDetections

_IMAGES = "images"  # the axis of a batch that devices share


class Detector:
    """A network ready to detect: folded for inference, its weights on the device. `Detector.load` reads one.

    names: of the classes. size: the longer side of images in pixels, which are padded to multiples of the stride, or to
    shape, (h, w), where there is one.

    Give images to the detector itself for a list of `Detections`, or to `stream` for many.
    """

    settled: ClassVar[tuple[str, ...]] = ("multi_label", "agnostic", "max_detections", "augment")
    """Options that another program is compiled for."""
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

        size: the longer side of images in pixels, the weights' own if None. dtype: of the computation, float32,
        bfloat16 or float16. report: is told when images of another shape make people wait for a compilation. devices:
        of this host, each of which takes its part of every batch (`jax.local_devices()` are all); by default
        JAX's default device.

        Raises:
            GraphError: the size is no multiple of the largest stride. WeightsError: weights cannot be folded.
        """
        self._begin(weights.names, weights.input_size if size is None else size, weights.graph.max_stride, report)
        weights.graph.check_side(self.size)
        self.graph = weights.graph
        self._compile(Network(inference_form(weights.graph), dtype), fold(weights.graph, weights.variables), devices)

    def _compile(self, network: Any, variables: Any, devices: Sequence[jax.Device] | None) -> None:
        """What `detect_batch` takes, on the devices, and its program, which compiles when it is first used."""
        self.network: Any = network
        self._mesh = None if devices is None else Mesh(list(devices), _IMAGES)
        self.variables = self._placed(variables)
        self.compiled = jax.jit(self._program(), static_argnames=self.settled)

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
        path: Path | str | Sequence[Path | str],
        *,
        model: Model | None = None,
        size: int | None = None,
        dtype: DTypeLike = jnp.float32,
        report: Callable[[str], None] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> Detector:
        """The detector of a weights file, of several as an ensemble, or of an artefact that `export` wrote.

        See `load` for weights files and models. An artefact has its size and dtype, and runs where its runtime does.
        Compiled programs are kept for the next start (`enable_compilation_cache`).

        Raises:
            InputError: the file cannot be used, or an artefact is asked for what was settled when it was exported.
        """
        from yolov7_jax.inference.ensemble import Ensemble
        from yolov7_jax.inference.exported import ExportedDetector

        enable_compilation_cache()
        options: dict[str, Any] = {"size": size, "dtype": dtype, "report": report, "devices": devices}
        paths = [path] if isinstance(path, Path | str) else list(path)
        if len(paths) != 1:
            return Ensemble.of_files(paths, model=model, **options)
        if is_artefact(paths[0]):
            given = {"model": model, "dtype": None if jnp.dtype(dtype) == jnp.float32 else dtype}
            return ExportedDetector.open(paths[0], size=size, report=report, given=given)
        return cls(load(paths[0], model=model), **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.names)} classes, images of {self.size} px>"

    def warmup(self, *sizes: tuple[int, int], **options: Any) -> Self:
        """Compiles for images of these sizes, (h, w) in pixels, before the first one comes; of squares by default.

        options: those that are detected with, as for the detector itself.
        """
        self([np.zeros((*size, 3), np.uint8) for size in sizes or ((self.size, self.size),)], **options)
        return self

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

    def __call__(self, images: Any, **options: Any) -> list[ImageDetections]:
        """Detections of each image, in source pixels. Options are the fields of `Options`.

        images: one or many, see `ImageLike`: a file, a folder, a pattern, encoded bytes, an array [h, w, 3] RGB or a
        batch of them, an image of Pillow; a list, or anything that gives such one after another.

        Raises:
            DataError: an image cannot be read. InputError: an option is out of its range.
        """
        chosen = options_of(options)
        found: dict[int, ImageDetections] = {}
        for result in self.stream(images, chosen):
            if result.error is not None:
                raise result.error
            assert result.detections is not None
            found[result.position] = result.detections
        return [found[position] for position in sorted(found)]

    def stream(self, images: Any, options: Options | None = None) -> Iterator[Result]:
        """Results as they come: while the device works on a batch, the next images are read.

        images: as for the detector itself, and endless ones too.

        With batches of more than one image results may change their order: look at `position`. Images that cannot be
        read come as results with `error`.

        Raises:
            InputError: at once, if a class wanted is not known.
        """
        options = options or Options()
        stream, given = partial(self._stream, mask=class_mask(options.classes, self.names)), images_of(images)
        if options.tiles is None:
            return stream(given, options)
        return detect_tiled(partial(stream, options=of_read_images(options)), given, options)

    def _stream(self, images: Iterable[ImageLike], options: Options, mask: NDArray[np.bool_]) -> Iterator[Result]:
        prepare = partial(self.prepare, options)
        devices = 1 if self._mesh is None else self._mesh.size
        size = -(-options.batch_size // devices) * devices  # each device has its part
        ahead = options.workers + 2 * size
        numbers = np.float32(options.confidence), np.float32(options.iou), mask
        static = {name: getattr(options, name) for name in self.settled}

        def trace(shape: tuple[int, ...]) -> Callable[[], object] | None:
            if not self.meet((size, *shape), static):
                return None
            return self.program(np.zeros((size, *shape), np.uint8), *numbers, **static)

        prepared = prefetch(prepare, enumerate(images), workers=options.workers, ahead=ahead, beside=True)
        running: deque[tuple[list[Prepared], PaddedDetections, float]] = deque()
        done_at = 0.0
        for batch in once_compiled(batches(prepared, size), trace, size):
            if isinstance(batch, Result):
                yield batch
                continue
            running.append((batch, self.run(stacked(batch, size), *numbers, **static), time.perf_counter()))
            if len(running) > 1:
                results, done_at = self._finish(*running.popleft(), done_at)
                yield from results
        while running:
            results, done_at = self._finish(*running.popleft(), done_at)
            yield from results

    def prepare(self, options: Options, item: tuple[int, ImageLike]) -> Prepared | Result:
        """An image and its place in a stream, letterboxed as this detector takes it; see `batches.prepare`."""
        return prepare(*item, options, shape=self.shape, size=self.size, stride=self.stride)

    def run(self, images: NDArray[np.uint8], *numbers: Any, **static: Any) -> PaddedDetections:
        """The compiled part, of letterboxed images [B, h, w, 3]; numbers and static are those of `detect_batch`."""
        return self.compiled(self.variables, images, *numbers, **static)

    def program(self, images: NDArray[np.uint8], *numbers: Any, **static: Any) -> Callable[[], object] | None:
        """Traces what `run` needs for such images, and returns what compiles it; None where that cannot go before."""
        return self.compiled.lower(self.variables, images, *numbers, **static).compile

    def meet(self, shape: tuple[int, ...], static: Mapping[str, Any]) -> bool:
        """Whether nothing is compiled for images of this shape [B, h, w, 3] yet, which is reported then."""
        key = (shape, *static.values())
        is_new = key not in self._met
        self._met.add(key)
        if is_new and self._report is not None:
            self._report(compiling("the network", (shape[1], shape[2])))
        return is_new

    def _finish(
        self, batch: Sequence[Prepared], found: PaddedDetections, started: float, previous: float
    ) -> tuple[list[Result], float]:
        """Results of a batch, and when the device was done with it; it began when started and the one before done."""
        boxes_xyxy_px, scores, class_ids, valid, overflow = map(np.asarray, found)  # [B, D, …]
        done_at = time.perf_counter()
        device = (done_at - max(started, previous)) / len(batch)
        results = []
        for place, prepared in enumerate(batch):
            rows = valid[place]
            columns = boxes_xyxy_px[place][rows], scores[place][rows], class_ids[place][rows]
            results.append(prepared.result(*columns, self.names, int(overflow[place]), device=device))
        return results, done_at
