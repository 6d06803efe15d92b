"""The network of a graph in plain PyTorch, with the names of `to_torch_state`: what tools/bench_gpu.py measures beside.

Written from the layer kinds of yolov7_jax.graph.kinds and what yolov7_jax.nn computes for them. Ghost and transformer
layers, and those that users register, are not covered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import gcd
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import yolov7_jax as yolo
from yolov7_jax.convert.torch_names import to_torch_state
from yolov7_jax.errors import InputError
from yolov7_jax.graph.kinds import kind_of
from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.spec import IMAGE, Node
from yolov7_jax.nn.conv import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM

Tensor = Any
Module = Any

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "SiLU": functional.silu,
    "ReLU": functional.relu,
    "Hardswish": functional.hardswish,
    "Mish": functional.mish,
    "Sigmoid": torch.sigmoid,
    "Identity": lambda x: x,
}


def activate(x: Tensor, activation: str) -> Tensor:
    """An activation by its canonical text."""
    leaky = re.fullmatch(r"LeakyReLU\((.+)\)", activation)
    return functional.leaky_relu(x, float(leaky[1])) if leaky else _ACTIVATIONS[activation](x)


def norm(channels: int) -> Module:
    """Batch normalization with the project's constants."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_MOMENTUM)


def conv2d(c1: int, c2: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, bias: bool = False) -> Module:
    """A convolution padded by half its kernel."""
    return nn.Conv2d(c1, c2, kernel, stride, kernel // 2, groups=groups, bias=bias)


class Layer(nn.Module):
    """A layer kind from its options; c1: channels of the input."""

    def __init__(self, c1: int, folded: bool, **options: Any) -> None:
        super().__init__()
        self.c1, self.folded, self.options = c1, folded, options
        self.channels = options.get("channels") or c1
        self.build(**options)

    build: Callable[..., None]  # makes the parts

    def unit(self, c1: int, c2: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Module:
        """A `Conv` in the form and with the activation of this layer."""
        activation = self.options["activation"]
        return Conv(c1, self.folded, channels=c2, kernel=kernel, stride=stride, groups=groups, activation=activation)


class Conv(Layer):
    """Convolution, batch normalization, activation."""

    def build(
        self,
        *,
        channels: int,
        kernel: int,
        stride: int,
        groups: int | None,
        activation: str,
        padding: int | None = None,
    ) -> None:
        groups = gcd(self.c1, channels) if groups is None else groups
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(self.c1, channels, kernel, stride, pad, groups=groups, bias=self.folded)
        self.bn = nn.Identity() if self.folded else norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.bn(self.conv(x)), self.options["activation"])


class RepConv(Layer):
    """The sum of the normalized branches; folded one convolution."""

    def build(
        self, *, channels: int, kernel: int, stride: int, groups: int, identity: bool, activation: str, **_: Any
    ) -> None:
        size = (stride, groups)
        if self.folded:
            self.rbr_reparam = conv2d(self.c1, channels, kernel, *size, bias=True)
            return
        self.rbr_dense = nn.Sequential(conv2d(self.c1, channels, kernel, *size), norm(channels))
        self.rbr_1x1 = nn.Sequential(conv2d(self.c1, channels, 1, *size), norm(channels))
        if identity and stride == 1 and self.c1 == channels:
            self.rbr_identity = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            y = self.rbr_reparam(x)
        else:
            y = self.rbr_dense(x) + self.rbr_1x1(x)
            y = y + self.rbr_identity(x) if hasattr(self, "rbr_identity") else y
        return activate(y, self.options["activation"])


class Residual(Layer):
    """Convolutions of some kernels, and the input where the channels agree."""

    def build(
        self,
        *,
        channels: int,
        shortcut: bool,
        groups: int,
        expansion: float,
        activation: str,
        kernels: tuple[int, ...] = (1, 3),
        reversed: bool = False,
        rep: bool = False,
        identity: bool = True,
    ) -> None:
        hidden, c1 = int(channels * expansion), self.c1
        kernels = kernels[::-1] if reversed else kernels
        self.adds = shortcut and self.c1 == channels
        self.places = [f"cv{place}" for place in range(1, len(kernels) + 1)]
        for place, kernel in zip(self.places, kernels, strict=True):
            c2 = channels if place == self.places[-1] else hidden
            options = {"channels": c2, "kernel": kernel, "stride": 1, "groups": groups, "activation": activation}
            if rep and kernel > 1:
                layer: Module = RepConv(c1, self.folded, identity=identity, **options)
            else:
                layer = Conv(c1, self.folded, **{**options, "groups": groups if kernel > 1 else 1})
            self.add_module(place, layer)
            c1 = c2

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for place in self.places:
            y = getattr(self, place)(y)
        return x + y if self.adds else y


def residuals(layer: Layer, channels: int, block_expansion: float = 1.0, **options: Any) -> Module:
    """The inner blocks of a cross-stage partial layer."""
    own = {key: layer.options[key] for key in ("shortcut", "groups", "activation")}
    blocks = (
        Residual(channels, layer.folded, channels=channels, expansion=block_expansion, **own, **options)
        for _ in range(layer.options["repeats"])
    )
    return nn.Sequential(*blocks)


class CSP(Layer):
    """C3 and the layouts A, B and C."""

    def build(
        self, *, channels: int, repeats: int, shortcut: bool, groups: int, expansion: float, activation: str,
        layout: str, **inner: Any,
    ) -> None:  # fmt: skip
        hidden = channels if layout == "B" else int(channels * expansion)
        self.cv1 = self.unit(self.c1, hidden)
        self.cv2 = self.unit(hidden if layout == "B" else self.c1, hidden)
        self.m = residuals(self, hidden, **inner)
        self.cv3 = self.unit(hidden, hidden) if layout == "C" else self.unit(2 * hidden, channels)
        if layout == "C":
            self.cv4 = self.unit(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        layout, reduced = self.options["layout"], self.cv1(x)
        main, past = self.m(reduced), self.cv2(reduced if layout == "B" else x)
        if layout == "C":
            return self.cv4(torch.cat([self.cv3(main), past], 1))
        return self.cv3(torch.cat([main, past], 1))


class BottleneckCSP(Layer):
    """One normalization over both parts."""

    def build(self, *, channels: int, expansion: float, activation: str, csp_activation: str | None, **_: Any) -> None:
        hidden = int(channels * expansion)
        self.last = csp_activation or activation
        self.cv1, self.cv4 = self.unit(self.c1, hidden), self.unit(2 * hidden, channels)
        self.cv2 = conv2d(self.c1, hidden, bias=self.folded)
        self.cv3 = conv2d(hidden, hidden, bias=self.folded)
        self.bn = nn.Identity() if self.folded else norm(2 * hidden)
        self.m = residuals(self, hidden)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.cv3(self.m(self.cv1(x))), self.cv2(x)], 1)
        return self.cv4(activate(self.bn(joined), self.last))


def same_pool(x: Tensor, kernel: int, stride: int = 1) -> Tensor:
    """A max pool that keeps the size at stride 1."""
    return functional.max_pool2d(x, kernel, stride, kernel // 2)


class SPP(Layer):
    """Pools of several sizes, joined (SPP), or of one in a chain (SPPF)."""

    def build(self, *, channels: int, activation: str, kernels: Any = (), kernel: int = 0) -> None:
        half = self.c1 // 2
        self.cv1, self.cv2 = self.unit(self.c1, half), self.unit(half * (1 + (len(kernels) or 3)), channels)

    def forward(self, x: Tensor) -> Tensor:
        pools = [self.cv1(x)]
        if kernels := self.options.get("kernels"):
            pools += [same_pool(pools[0], kernel) for kernel in kernels]
        else:
            for _ in range(3):
                pools.append(same_pool(pools[-1], self.options["kernel"]))
        return self.cv2(torch.cat(pools, 1))


class SPPCSPC(Layer):
    """Pools within a cross-stage partial block."""

    def build(self, *, channels: int, expansion: float, kernels: tuple[int, ...], **_: Any) -> None:
        hidden = int(2 * channels * expansion)
        self.cv1, self.cv2, self.cv3 = (
            self.unit(self.c1, hidden),
            self.unit(self.c1, hidden),
            self.unit(hidden, hidden, 3),
        )
        self.cv4, self.cv5 = self.unit(hidden, hidden), self.unit(hidden * (1 + len(kernels)), hidden)
        self.cv6, self.cv7 = self.unit(hidden, hidden, 3), self.unit(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        main = self.cv4(self.cv3(self.cv1(x)))
        pools = [same_pool(main, kernel) for kernel in self.options["kernels"]]
        main = self.cv6(self.cv5(torch.cat([main, *pools], 1)))
        return self.cv7(torch.cat([main, self.cv2(x)], 1))


class DownC(Layer):
    """A strided convolution beside a pool."""

    def build(self, *, channels: int, kernel: int, **_: Any) -> None:
        half = channels // 2
        self.cv1, self.cv2 = self.unit(self.c1, self.c1), self.unit(self.c1, half, 3, kernel)
        self.cv3 = self.unit(self.c1, half)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.options["kernel"]
        return torch.cat([self.cv2(self.cv1(x)), self.cv3(functional.max_pool2d(x, kernel, kernel))], 1)


class Stem(Layer):
    """To a quarter of the size."""

    def build(self, *, channels: int, activation: str) -> None:
        half = channels // 2
        self.cv1, self.cv2 = self.unit(self.c1, half, 3, 2), self.unit(half, half)
        self.cv3, self.cv4 = self.unit(half, half, 3, 2), self.unit(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv4(torch.cat([self.cv3(self.cv2(x)), functional.max_pool2d(x, 2, 2)], 1))


def columns_first(x: Tensor) -> Tensor:
    """Space to depth by 2, column by column."""
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


class Focus(Layer):
    """Space to depth, then a convolution."""

    def build(self, **options: Any) -> None:
        self.conv = Conv(4 * self.c1, self.folded, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(columns_first(x))


LAYERS: Mapping[str, type[Layer]] = {
    "conv:Conv": Conv,
    "rep:RepConv": RepConv,
    "transition:Focus": Focus,
    "transition:Stem": Stem,
    "transition:DownC": DownC,
    "csp:Residual": Residual,
    "csp:csp_of_residuals": CSP,
    "csp:BottleneckCSP": BottleneckCSP,
    "spp:SPP": SPP,
    "spp:SPPF": SPP,
    "spp:SPPCSPC": SPPCSPC,
}
"""Layers with weights, by what the kinds of the graph name within the room nn."""

FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "functional:tiled_max_pool": lambda x, kernel: functional.max_pool2d(x, kernel, kernel),
    "functional:same_max_pool": same_pool,
    "functional:max_pool_2d": lambda x, kernel, pool_stride, padding: functional.max_pool2d(
        x, kernel, pool_stride or kernel, padding or 0
    ),
    "functional:zero_pad": lambda x, margins: functional.pad(x, margins),
    "functional:upsample": lambda x, factor, **_: functional.interpolate(x, scale_factor=factor, mode="nearest"),
    "functional:concat": lambda *xs, **_: torch.cat(xs, 1),
    "functional:shortcut": lambda x, y, **_: x + y,
    "functional:chunk": lambda x, groups, place: torch.chunk(x, groups, 1)[place],
}


class Implicit(nn.Module):
    """Implicit knowledge: a number a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.zeros(1, channels, 1, 1))


class Head(nn.Module):
    """A detect layer: a list of raw outputs [B, N, 5 + C], lead and, in training form, auxiliary."""

    def __init__(self, graph: yolo.Graph, channels: Sequence[int]) -> None:
        super().__init__()
        fixed, levels = kind_of(graph.detect.op).fixed, len(graph.strides)
        self.levels, self.width = levels, 5 + graph.num_classes
        outputs = len(graph.anchors[0]) * self.width
        self.m = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in channels[:levels])
        self.ia = self.im = self.m2 = None
        if fixed.get("implicit"):
            self.ia = nn.ModuleList(Implicit(c) for c in channels[:levels])
            self.im = nn.ModuleList(Implicit(outputs) for _ in range(levels))
        if fixed.get("auxiliary"):
            self.m2 = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in channels[levels:])

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        lead = xs[: self.levels]
        if self.ia is not None:
            lead = [x + added.implicit for x, added in zip(lead, self.ia, strict=True)]
        lead = [conv(x) for x, conv in zip(lead, self.m, strict=True)]
        if self.im is not None:
            lead = [y * factor.implicit for y, factor in zip(lead, self.im, strict=True)]
        if self.m2 is None:
            return [self._rows(lead)]
        return [self._rows(lead), self._rows([conv(x) for x, conv in zip(xs[self.levels :], self.m2, strict=True)])]

    def _rows(self, maps: list[Tensor]) -> Tensor:
        rows = [y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, self.width) for y in maps]
        found = torch.cat(rows, 1)
        return found if found.dtype == torch.float64 else found.float()


class Twin(nn.Module):
    """The network of a graph: images [B, 3, H, W] → a list of raw outputs [B, N, 5 + C].

    Raises:
        InputError: the graph has a layer kind that is not covered; names it.
    """

    def __init__(self, graph: yolo.Graph) -> None:
        super().__init__()
        self.graph = graph
        shapes = infer_shapes(graph.nodes, graph.channels)
        self.functions = {node.name: _function(node) for node in graph.nodes[:-1]}
        modules = {
            node.name: _module(node, shapes[node.src[0]].channels, graph.folded)
            for node in graph.nodes[:-1]
            if self.functions[node.name] is None
        }
        modules[graph.detect.name] = Head(graph, [shapes[name].channels for name in graph.detect.src])
        self.model = nn.ModuleDict(modules)

    def forward(self, images: Tensor) -> list[Tensor]:
        values = {IMAGE: images}
        for node in self.graph.nodes[:-1]:
            xs = [values[name] for name in node.src]
            function = self.functions[node.name]
            values[node.name] = self.model[node.name](*xs) if function is None else function(*xs)
        found: list[Tensor] = self.model[self.graph.detect.name]([values[name] for name in self.graph.detect.src])
        return found


def _layer_name(node: Node) -> str:
    """Where the layer of a kind stands in the room nn; an error if it has no twin."""
    layer = str(kind_of(node.op).layer).removeprefix("yolov7_jax.nn.")
    if layer not in LAYERS and layer not in FUNCTIONS and layer != "functional:space_to_depth":
        raise InputError(
            f"layer {node.name} ({node.op}) has no twin in PyTorch here; measure it alone with --no-torch, or choose "
            "a network without this layer kind"
        )
    return layer


def _function(node: Node) -> Callable[..., Tensor] | None:
    """The layer of a node that has no weights."""
    layer, options = _layer_name(node), node.options
    if layer == "functional:space_to_depth" and kind_of(node.op).fixed:
        return columns_first
    if layer in LAYERS:
        return None
    if layer not in FUNCTIONS:
        raise InputError(f"layer {node.name} ({node.op}) has no twin in PyTorch here; measure it alone with --no-torch")
    function = FUNCTIONS[layer]

    def applied(*xs: Tensor) -> Tensor:
        for _ in range(node.repeat):
            xs = (function(*xs, **options),)
        return xs[0]

    return applied


def _module(node: Node, c1: int, folded: bool) -> Module:
    """The layer of a node that has weights, or a sequence of them."""
    make, options = LAYERS[_layer_name(node)], {**node.options, **kind_of(node.op).fixed}
    layers = [make(c1, folded, **options)]
    for _ in range(node.repeat - 1):
        layers.append(make(layers[-1].channels, folded, **options))
    return layers[0] if node.repeat == 1 else nn.Sequential(*layers)


def twin_of(graph: yolo.Graph, variables: Mapping[str, Any]) -> Module:
    """The twin with weights carried over, every one of them; on the CPU, in training mode.

    Raises:
        InputError: see `Twin`.
    """
    twin = Twin(graph)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in to_torch_state(graph, variables).items()}
    head = f"model.{graph.detect.name}."
    anchors = {f"{head}anchors", f"{head}anchor_grid"}  # belong to decoding
    twin.load_state_dict({name: value for name, value in tensors.items() if name not in anchors}, strict=True)
    return twin
