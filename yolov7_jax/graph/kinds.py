"""The table of layer kinds: one entry each, made by `register_layer`, the built-in ones too.

Names, arguments and meaning follow the public model files of YOLOv5, YOLOR and YOLOv7; those have no word for
`Chunk`, the route by groups of YOLOv4-tiny, and `AuxDetect`, an auxiliary head without implicit vectors.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from yolov7_jax.errors import GraphError
from yolov7_jax.graph import shapes
from yolov7_jax.graph.shapes import ShapeRule
from yolov7_jax.registry import nearest

Value = Any
"""None, bool, int, float, str or a tuple of these."""

REQUIRED = object()
"""Stands for the default of an argument that has none."""

Check = tuple[Callable[[Any], bool], str]
"""Whether a value of an argument is right, and what is: "a positive integer"."""

Reference = Callable[..., Any] | str
"""A function or class, or where it is: "package.module:name", which is imported when it is first needed."""

_NETWORK_GIVES = ("form", "name", "parent")  # fields of a module that are no arguments of the model YAML


@dataclass(frozen=True)
class LayerKind:
    """All that is known of a layer kind; see `register_layer`.

    positional: arguments by position or name, in their order, with their defaults. named: those by name alone.
    """

    name: str
    layer: Reference
    shape: ShapeRule
    positional: Mapping[str, Value]
    named: Mapping[str, Value]
    fixed: Mapping[str, Any]
    checks: Mapping[str, Check]
    fold: Reference | None
    head: str

    @property
    def arguments(self) -> dict[str, Value]:
        """All arguments with their defaults."""
        return {**self.positional, **self.named}

    @property
    def built_in(self) -> bool:
        """Whether it comes with the package."""
        return self.name in _BUILT_IN

    def load(self) -> tuple[Callable[..., Any], bool]:
        """The layer, and whether it is a Flax module (or makes one): it is if it takes `form`."""
        layer = resolve(self.layer)
        return layer, "form" in inspect.signature(layer).parameters


KINDS: dict[str, LayerKind] = {}


def kind_of(op: str) -> LayerKind:
    """The entry of a layer kind.

    Raises:
        GraphError: no such kind; lists those there are and the nearest.
    """
    if op not in KINDS:
        raise GraphError(f"layer kind {op!r} is not known{nearest(op, KINDS)}; expected one of {', '.join(KINDS)}")
    return KINDS[op]


def resolve(reference: Reference) -> Callable[..., Any]:
    """What a reference stands for."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def register_layer(
    name: str,
    layer: Reference | None = None,
    *,
    shape: ShapeRule = shapes.by_arguments,
    arguments: Mapping[str, Value] | None = None,
    named: Mapping[str, Value] | None = None,
    fixed: Mapping[str, Any] | None = None,
    checks: Mapping[str, Check] | None = None,
    fold: Reference | None = None,
    head: str = "",
) -> Any:
    """Adds a layer kind, which model files, `Builder` and stored graphs then name. A decorator without `layer`.

    Args:
        name: of the kind.
        layer: a Flax module with a field `form: Form = Form()`, called as `layer(**arguments, form=form, name=name)(x,
            train=train)`, with an array for each input; or a function of arrays, called as `layer(*xs, **arguments)`.
            Feature maps are [B, H, W, c].
        shape: the shape of the output: a function of the inputs' shapes and of all arguments by name.
        arguments: those of the model file in their order, with their defaults (`REQUIRED` for none). By default the
            fields of the module, or the keyword-only arguments of the function; none where `layer` is a text.
            `activation` is that of the network where none is given; `channels` follow its width; `repeats` marks a
            kind that holds its own repeats.
        named: arguments that are given by name alone.
        fixed: what else the layer is made with.
        checks: of arguments, where their names do not say enough (`graph.layers.CHECKS`).
        fold: (params, batch_stats) → params of the inference form, numpy trees of one layer. By default `Conv`,
            `RepConv` and `BatchNorm` are folded wherever they stand in it.
        head: for detect layers, "plain", or "auxiliary" if the second half of the inputs is there in training only.
            They are made with anchors (how many a level has), num_classes and strides as well, and called with the
            list of their inputs. In the inference form `Detect` stands in their place.

    Raises:
        ValueError: the name is that of a built-in kind, or a module has no field `form`.
    """
    if layer is None:
        return lambda layer: register_layer(
            name, layer, shape=shape, arguments=arguments, named=named, fixed=fixed, checks=checks, fold=fold, head=head
        )
    if name in _BUILT_IN:
        raise ValueError(f"{name!r} is a built-in layer kind; choose another name")
    named, fixed = named or {}, fixed or {}
    if arguments is None:
        own = {} if isinstance(layer, str) else _signature(layer)
        arguments = {key: value for key, value in own.items() if key not in (*named, *fixed)}
    KINDS[name] = LayerKind(name, layer, shape, arguments, named, fixed, checks or {}, fold, head)
    return layer


def _signature(layer: Callable[..., Any]) -> dict[str, Value]:
    """Arguments and defaults from the definition: fields of a class, keyword-only arguments of a function."""
    parameters = inspect.signature(layer).parameters
    if isinstance(layer, type) and "form" not in parameters:
        raise ValueError(f"{layer.__name__} needs a field `form: Form = Form()`: how the layers of a network are built")
    return {
        key: REQUIRED if parameter.default is parameter.empty else parameter.default
        for key, parameter in parameters.items()
        if key not in _NETWORK_GIVES and (isinstance(layer, type) or parameter.kind is parameter.KEYWORD_ONLY)
    }


_BUILT_IN: frozenset[str] = frozenset()  # until all of them are entered

_NN = "yolov7_jax.nn"
_ACTIVATION = {"activation": "SiLU"}
_CHANNELS = {"channels": REQUIRED}
_WINDOW = {**_CHANNELS, "kernel": 1, "stride": 1}
_CONV = {**_WINDOW, "padding": None, "groups": 1, **_ACTIVATION}
_RESIDUAL = {**_CHANNELS, "shortcut": True, "groups": 1, "expansion": 0.5}
_CSP = {**_CHANNELS, "repeats": 1, "shortcut": True, "groups": 1, "expansion": 0.5}
_REVERSED = {"reversed": False}
_IDENTITY = {"identity": True}
_KERNELS = {"kernels": (5, 9, 13)}
_RES = {"kernels": (1, 3, 1)}  # the bottleneck of ResNet


def _enter(
    name: str, layer: str, shape: ShapeRule, arguments: Mapping[str, Value] | None = None, **options: Any
) -> None:
    """A built-in kind; `layer` is named within the room nn."""
    register_layer(name, f"{_NN}.{layer}", shape=shape, arguments=arguments, **options)


_enter("Conv", "conv:Conv", shapes.conv, _CONV)
_enter("DWConv", "conv:Conv", shapes.conv, {**_WINDOW, **_ACTIVATION}, fixed={"groups": None})
_enter("RepConv", "rep:RepConv", shapes.rep_conv, {**_CONV, "kernel": 3}, named=_IDENTITY)
_enter("GhostConv", "ghost:GhostConv", shapes.ghost_conv, {**_WINDOW, "groups": 1, **_ACTIVATION})
_enter("Focus", "transition:Focus", shapes.focus, _CONV)
_enter("Stem", "transition:Stem", shapes.stem, _CHANNELS, named=_ACTIVATION)
_enter("DownC", "transition:DownC", shapes.down, {**_CHANNELS, "repeats": 1, "kernel": 2}, named=_ACTIVATION)
_enter(
    "GhostBottleneck",
    "ghost:GhostBottleneck",
    shapes.ghost_bottleneck,
    {**_CHANNELS, "kernel": 3, "stride": 1},
    named=_ACTIVATION,
)
_enter("Bottleneck", "csp:Residual", shapes.residual, _RESIDUAL, named={**_REVERSED, **_ACTIVATION})
_enter(
    "RepBottleneck",
    "csp:Residual",
    shapes.residual,
    _RESIDUAL,
    named={**_REVERSED, **_IDENTITY, **_ACTIVATION},
    fixed={"rep": True},
)
for _name, _groups in (("Res", 1), ("ResX", 32)):
    _arguments = {**_RESIDUAL, "groups": _groups}
    _enter(_name, "csp:Residual", shapes.residual, _arguments, named=_ACTIVATION, fixed=_RES)
    _enter(
        f"Rep{_name}",
        "csp:Residual",
        shapes.residual,
        _arguments,
        named={**_IDENTITY, **_ACTIVATION},
        fixed={**_RES, "rep": True},
    )
_enter(
    "BottleneckCSP",
    "csp:BottleneckCSP",
    shapes.csp,
    _CSP,
    named={"csp_activation": None, **_ACTIVATION},
    fold=f"{_NN}.fold:bottleneck_csp",
)
_enter("C3", "csp:csp_of_residuals", shapes.csp, _CSP, named=_ACTIVATION, fixed={"layout": "A"})
_enter("C3TR", "attention:c3tr", shapes.csp_of(shapes.ATTENTION_HEADS), _CSP, named=_ACTIVATION)
_enter("C3Ghost", "ghost:c3_ghost", shapes.csp_of(4), _CSP, named=_ACTIVATION)
_BLOCKS: tuple[tuple[str, int, dict[str, Value], dict[str, Value]], ...] = (
    ("Bottleneck", 1, _REVERSED, {}),
    ("Res", 1, {}, {**_RES, "block_expansion": 0.5}),
    ("ResX", 32, {}, _RES),
)
for _block, _groups, _named, _fixed in _BLOCKS:
    for _layout in "ABC":
        _sums = _block != "Bottleneck" or _layout != "B"  # its layout B has none by default
        for _rep in ("", "Rep"):
            _enter(
                f"{_rep}{_block}CSP{_layout}",
                "csp:csp_of_residuals",
                shapes.csp,
                {**_CSP, "groups": _groups, "shortcut": _sums},
                named={**_named, **(_IDENTITY if _rep else {}), **_ACTIVATION},
                fixed={**_fixed, "layout": _layout, "rep": bool(_rep)},
            )
_enter("SPP", "spp:SPP", shapes.pyramid_pool, {**_CHANNELS, **_KERNELS}, named=_ACTIVATION)
_enter("SPPF", "spp:SPPF", shapes.pyramid_pool, {**_CHANNELS, "kernel": 5}, named=_ACTIVATION)
_enter("SPPCSPC", "spp:SPPCSPC", shapes.csp, {**_CSP, "shortcut": False, **_KERNELS}, named=_ACTIVATION)

_enter("MP", "functional:tiled_max_pool", shapes.tiled_pool, {"kernel": 2})
_enter("SP", "functional:same_max_pool", shapes.same_pool, {"kernel": 3, "stride": 1})
_enter(
    "nn.MaxPool2d",
    "functional:max_pool_2d",
    shapes.max_pool,
    {"kernel": REQUIRED, "pool_stride": None, "padding": 0},
)
_enter("nn.ZeroPad2d", "functional:zero_pad", shapes.zero_pad, {"margins": REQUIRED})
_enter("nn.Upsample", "functional:upsample", shapes.upsample, {"size": None, "factor": 2, "mode": "nearest"})
_enter("ReOrg", "functional:space_to_depth", shapes.space_to_depth, fixed={"columns_first": True})
_enter("Contract", "functional:space_to_depth", shapes.space_to_depth, {"gain": 2})
_enter("Expand", "functional:depth_to_space", shapes.depth_to_space, {"gain": 2})
_enter("Concat", "functional:concat", shapes.concat, {"dimension": 1})
_enter("Shortcut", "functional:shortcut", shapes.shortcut, {"dimension": 1})
_enter("Chuncat", "functional:chuncat", shapes.chuncat, {"dimension": 1})
_enter("Foldcut", "functional:foldcut", shapes.foldcut, {"dimension": 1})
_enter("Chunk", "functional:chunk", shapes.chunk, {"groups": 2, "place": 1})

for _name, _fixed in (("Detect", {"implicit": False}), ("IDetect", {"implicit": True})):
    _enter(_name, "heads:Detect", shapes.detect, head="plain", fixed=_fixed, fold=f"{_NN}.fold:head")
for _name, _implicit in (("IAuxDetect", True), ("AuxDetect", False)):
    _enter(
        _name,
        "heads:Detect",
        shapes.detect_aux,
        head="auxiliary",
        fixed={"implicit": _implicit, "auxiliary": True},
        fold=f"{_NN}.fold:head",
    )

_BUILT_IN = frozenset(KINDS)  # from here on their names are taken
