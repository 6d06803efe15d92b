"""Residual blocks and cross-stage partial layers (CSPNet, arXiv 1911.11929, as YOLOv4 to YOLOv7 have them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.nn.conv import BatchNorm, Conv, Conv2d, Form, activate
from yolov7_jax.nn.rep import RepConv

DARK = (1, 3)
"""Kernels of the dark block, the residual block of YOLOv3 and of all Bottleneck layers."""


class Chain(nn.Module):
    """Layers in sequence, named by their places."""

    make: Callable[[str], nn.Module]
    places: Sequence[str]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Each layer applied to what the one before gave."""
        for place in self.places:
            x = self.make(place)(x, train=train)
        return x


def repeated(make: Callable[[str], nn.Module], length: int, *, name: str) -> Chain:
    """So many layers in sequence, named by their numbers from 0."""
    return Chain(make, tuple(map(str, range(length))), name=name)


class Residual(nn.Module):
    """Convolutions of the given kernels, plus the input where `shortcut` is set and the channels agree.

    The kernels of Bottleneck, the residual block of YOLOv3, are `DARK`; reversed, those of the reversed dark block
    (YOLOv7, section 5.4.2, figure 7). Those of ResNet's bottleneck are (1, 3, 1).

    All but the last have channels · expansion channels. Those of 3×3 are grouped and, where `rep` is set, RepConvs,
    with the branch of their input alone where `identity` is set too.
    """

    channels: int
    shortcut: bool
    groups: int
    expansion: float
    activation: str
    kernels: tuple[int, ...] = DARK
    reversed: bool = False
    rep: bool = False
    identity: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = int(self.channels * self.expansion)
        kernels = self.kernels[::-1] if self.reversed else self.kernels
        y = x
        for place, kernel in enumerate(kernels, start=1):
            channels = self.channels if place == len(kernels) else hidden
            y = self._conv(channels, kernel, f"cv{place}")(y, train=train)
        return x + y if self.shortcut and x.shape[-1] == self.channels else y

    def _conv(self, channels: int, kernel: int, name: str) -> nn.Module:
        groups = self.groups if kernel > 1 else 1
        if self.rep and kernel > 1:
            return RepConv(
                channels,
                kernel,
                groups=groups,
                activation=self.activation,
                identity=self.identity,
                form=self.form,
                name=name,
            )
        return Conv(channels, kernel, groups=groups, activation=self.activation, form=self.form, name=name)


def blocks(
    channels: int,
    *,
    repeats: int,
    shortcut: bool,
    groups: int,
    activation: str,
    form: Form,
    name: str,
    kernels: tuple[int, ...] = DARK,
    expansion: float = 1.0,
    reversed: bool = False,
    rep: bool = False,
    identity: bool = True,
) -> Chain:
    """Residual blocks in sequence, the `inner` of cross-stage partial layers."""

    def make(place: str) -> Residual:
        return Residual(
            channels,
            shortcut=shortcut,
            groups=groups,
            expansion=expansion,
            kernels=kernels,
            reversed=reversed,
            rep=rep,
            identity=identity,
            activation=activation,
            form=form,
            name=place,
        )

    return repeated(make, repeats, name=name)


class CSP(nn.Module):
    """Part of the channels goes through blocks, part past them; a 1×1 convolution brings both together.

    With m the blocks: layout "A" is cv3(m(cv1 x), cv2 x), which C3 is too; "B" is cv3(m(y), cv2 y) of y = cv1 x, in
    which nothing is reduced; "C" is cv4(cv3(m(cv1 x)), cv2 x). Each joins what the brackets hold.

    inner: makes m from hidden channels and the keywords repeats, shortcut, groups, activation, form and name.
    """

    channels: int
    repeats: int
    shortcut: bool
    groups: int
    expansion: float
    activation: str
    layout: str
    inner: Callable[..., nn.Module]
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = self.channels if self.layout == "B" else int(self.channels * self.expansion)

        def conv(x: jax.Array, name: str, channels: int = hidden) -> jax.Array:
            return Conv(channels, activation=self.activation, form=self.form, name=name)(x, train=train)

        reduced = conv(x, "cv1")
        main = _inner(self, self.inner, hidden)(reduced, train=train)
        past = conv(reduced if self.layout == "B" else x, "cv2")
        if self.layout == "C":
            main = conv(main, "cv3")
        last = "cv4" if self.layout == "C" else "cv3"
        return conv(jnp.concatenate([main, past], axis=-1), last, self.channels)


def csp_of_residuals(
    *,
    layout: str,
    form: Form,
    kernels: tuple[int, ...] = DARK,
    block_expansion: float = 1.0,
    reversed: bool = False,
    rep: bool = False,
    identity: bool = True,
    **options: Any,
) -> CSP:
    """C3 and the layers of YOLOv4 to YOLOv7: `CSP` of `Residual` blocks."""
    inner = partial(blocks, kernels=kernels, expansion=block_expansion, reversed=reversed, rep=rep, identity=identity)
    return CSP(layout=layout, inner=inner, form=form, **options)


class BottleneckCSP(nn.Module):
    """The cross-stage partial layer of YOLOv5 before v4: one normalization and activation over both parts.

    cv2 and cv3 are plain convolutions; in folded form they have taken the normalization in. csp_activation is that of
    the joined parts, where it is not that of the convolutions.
    """

    channels: int
    repeats: int
    shortcut: bool
    groups: int
    expansion: float
    csp_activation: str | None
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        hidden = int(self.channels * self.expansion)

        def conv(x: jax.Array, channels: int, name: str) -> jax.Array:
            return Conv(channels, activation=self.activation, form=self.form, name=name)(x, train=train)

        def plain(x: jax.Array, name: str) -> jax.Array:
            return Conv2d(hidden, use_bias=self.form.folded, form=self.form, name=name)(x)

        main = _inner(self, blocks, hidden)(conv(x, hidden, "cv1"), train=train)
        joined = jnp.concatenate([plain(main, "cv3"), plain(x, "cv2")], axis=-1)
        if not self.form.folded:
            joined = BatchNorm(self.form, name="bn")(joined, train=train)
        return conv(activate(joined, self.csp_activation or self.activation), self.channels, "cv4")


def _inner(layer: CSP | BottleneckCSP, make: Callable[..., nn.Module], channels: int) -> nn.Module:
    """The blocks of a layer, with its options."""
    return make(
        channels,
        repeats=layer.repeats,
        shortcut=layer.shortcut,
        groups=layer.groups,
        activation=layer.activation,
        form=layer.form,
        name="m",
    )
