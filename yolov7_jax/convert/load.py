"""Opens weights whatever they are kept in: a PyTorch checkpoint, a `.safetensors` file or the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolov7_jax.convert.forms import State, best_fit, forms, with_module_activations
from yolov7_jax.convert.torch_file import read_torch_file
from yolov7_jax.convert.torch_names import LoadReport, classes_in_state, from_torch_state, head_in_state
from yolov7_jax.convert.weights_file import FORMAT, Weights, from_safetensors, read_safetensors
from yolov7_jax.errors import GraphError, WeightsError
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo, zoo_names

Model = Graph | str | Path | Mapping[str, Any]

RUN_WEIGHTS = "weights.safetensors"
"""In the folder of a training run: its averaged weights."""


def load(path: Path | str, *, model: Model | None = None) -> Weights:
    """The network and its weights from a file. Nothing in the file is executed.

    `.pt` and `.pth` are checkpoints of yolov5, yolov7 and their kin (whole models or state dicts; the EMA is taken
    where there is one), `.safetensors` those that `save` or a PyTorch user wrote. model names the architecture where
    the file does not: a zoo name, a model YAML, the dict of one, or a graph. The form (`forms.forms`), the number of
    classes and the anchors are those of the file, and so are the activations where it has modules. A folder is that of
    a training run: its averaged weights at the last checkpoint are taken.

    Raises:
        WeightsError: the file cannot be read, is not safe, or does not fit the network. GraphError: so the model.
    """
    return load_with_report(path, model=model)[0]


def load_with_report(path: Path | str, *, model: Model | None = None) -> tuple[Weights, LoadReport]:
    """As `load`, with the account of every tensor in the file."""
    path = weights_file_of(path)
    if path.is_file() and path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") == FORMAT:
            return from_safetensors(path, tensors, metadata)
        return _from_state(path, tensors, model)
    checkpoint = read_torch_file(path)
    return _from_state(
        path,
        checkpoint.state,
        model or checkpoint.config,
        names=checkpoint.names,
        activations=checkpoint.activations,
        origin={
            **checkpoint.meta,
            "part": checkpoint.source,
            "hyperparameters": dict(checkpoint.hyperparameters or {}),
        },
    )


def weights_file_of(path: Path | str) -> Path:
    """The file that `load` reads: of a run's folder its weights.

    Raises:
        WeightsError: the folder has none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / RUN_WEIGHTS).is_file():
        raise WeightsError(
            f"{path}: has no {RUN_WEIGHTS}; expected a weights file, or the folder of a run that has a checkpoint"
        )
    return path / RUN_WEIGHTS


def _from_state(
    path: Path,
    state: State,
    model: Model | None,
    *,
    names: tuple[str, ...] | None = None,
    activations: Mapping[str, str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> tuple[Weights, LoadReport]:
    if model is None:
        raise WeightsError(
            f"{path}: holds weights but no model description; name the model they were made for "
            f"(a model YAML, or one of {', '.join(zoo_names())})"
        )
    try:
        fit = best_fit(candidates(model, state, activations), state)
        names = names or tuple(str(number) for number in range(fit.graph.num_classes))
        variables = from_torch_state(fit.graph, fit.state)
        return Weights(fit.graph, variables, names, {"source": path.name, **(origin or {})}), fit.report
    except (GraphError, WeightsError) as error:
        raise type(error)(f"{path}: {error}") from error


def candidates(model: Model, state: State, activations: Mapping[str, str] | None = None) -> list[Graph]:
    """The forms of a model, with what a file says of classes, anchors, scoring and activations.

    Raises:
        GraphError: there is no such model, or the anchors do not fit it.
    """
    plain = resolve(model)
    counts = {classes_in_state(form, state) for form in forms(plain)} - {None} or {plain.num_classes}
    sized = [form for count in counts for form in forms(resolve(model, num_classes=count))]
    return [with_module_activations(head_in_state(form, state), activations or {}) for form in sized]


def resolve(model: Model, *, num_classes: int | None = None) -> Graph:
    """The graph that a zoo name, a model YAML (path or dict), a weights file or a graph stands for.

    Raises:
        GraphError: no such name or file, or the file is wrong. WeightsError: the weights file cannot be read.
    """
    if isinstance(model, Graph):
        return model if num_classes is None else replace(model, num_classes=num_classes)
    if isinstance(model, Mapping) or Path(model).suffix in (".yaml", ".yml"):
        return parse(model, num_classes=num_classes)
    if Path(model).suffix in (".pt", ".pth", ".safetensors"):
        return load(model).graph
    return zoo(str(model)) if num_classes is None else zoo(str(model), num_classes=num_classes)
