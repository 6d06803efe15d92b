"""Several networks as one detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from yolov7_jax.artefacts.formats import is_artefact
from yolov7_jax.convert.load import Model, load
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import InputError
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.inference.detector import Detector
from yolov7_jax.nn.network import Network
from yolov7_jax.reparameterize import fold


class Ensemble(Detector):
    """A detector of several networks of the same classes: their predictions are joined before NMS, as YOLOv5 does."""

    def __init__(
        self,
        members: Sequence[Weights],
        *,
        size: int | None = None,
        dtype: DTypeLike = jnp.float32,
        report: Callable[[str], None] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Folds the weights of each. size: the largest of the members' own if None; the rest as of `Detector`.

        Raises:
            InputError: there are no members, or their classes differ.
        """
        if not members:
            raise InputError("an ensemble needs weights; give one file or more")
        for place, one in enumerate(members[1:], start=2):
            if one.names != members[0].names:
                raise InputError(
                    f"the classes of network {place} of the ensemble are not those of the first; all must detect the "
                    "same, in the same order"
                )
        graphs = self.graphs = tuple(one.graph for one in members)
        own = max(one.input_size for one in members)
        stride = max(graph.max_stride for graph in graphs)
        self._begin(members[0].names, own if size is None else size, stride, report)
        for graph in graphs:
            graph.check_side(self.size)
        networks = tuple(Network(inference_form(graph), dtype) for graph in graphs)
        self._compile(networks, tuple(fold(one.graph, one.variables) for one in members), devices)

    @classmethod
    def of_files(cls, paths: Sequence[Path | str], *, model: Model | None, **options: Any) -> Ensemble:
        """The ensemble of weights files. options: of the ensemble itself.

        Raises:
            InputError: a file cannot be used, or is an artefact.
        """
        for path in paths:
            if is_artefact(path):
                raise InputError(f"{path}: an artefact cannot be one of an ensemble; give the weights it was made from")
        return cls([load(path, model=model) for path in paths], **options)

    def identity(self) -> dict[str, Any]:
        """See `Detector`."""
        common = {"size": self.size, "dtype": str(jnp.dtype(self.network[0].dtype)), "the list of classes": self.names}
        return {**common, "the network": [graph.to_json() for graph in self.graphs]}

    def with_variables(self, variables: Mapping[str, Any]) -> Detector:  # noqa: ARG002
        """Refused: there is more than one network.

        Raises:
            InputError: always.
        """
        raise InputError("an ensemble cannot be given other weights; make another one")
