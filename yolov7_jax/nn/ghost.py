"""Ghost layers (GhostNet, arXiv 1911.11907): half of the channels are made cheaply from the other half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.nn.conv import Conv, Form
from yolov7_jax.nn.csp import CSP, Chain, repeated

_KERNEL = 3  # of a ghost bottleneck within C3Ghost, where it has no stride and so no use
_CHEAP_KERNEL = 5


class GhostConv(nn.Module):
    """Half of the channels by a convolution, the other half from those by a depth-wise one of 5×5."""

    channels: int
    kernel: int
    stride: int
    groups: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/stride, W/stride, channels]."""
        half = self.channels // 2

        def conv(x: jax.Array, kernel: int, stride: int, groups: int, name: str) -> jax.Array:
            layer = Conv(half, kernel, stride, groups=groups, activation=self.activation, form=self.form, name=name)
            return layer(x, train=train)

        primary = conv(x, self.kernel, self.stride, self.groups, "cv1")
        return jnp.concatenate([primary, conv(primary, _CHEAP_KERNEL, 1, half, "cv2")], axis=-1)


class GhostBottleneck(nn.Module):
    """Two 1×1 ghost convolutions around a depth-wise one where the stride is not 1, plus the input.

    With another stride than 1 the input comes by a depth-wise and a 1×1 convolution.
    """

    channels: int
    kernel: int
    stride: int
    activation: str
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/stride, W/stride, channels]."""
        strided = self.stride != 1
        half, form, activation = self.channels // 2, self.form, self.activation
        size = self.kernel, self.stride

        def depthwise(name: str) -> Conv:
            return Conv(None, *size, groups=None, activation="Identity", form=form, name=name)

        # Free functions, not methods: what a method makes belongs to its own module, not to the chain.
        main: dict[str, Callable[[str], nn.Module]] = {
            "0": lambda name: GhostConv(half, 1, 1, 1, activation, form, name=name),
            "1": depthwise,
            "2": lambda name: GhostConv(2 * half, 1, 1, 1, "Identity", form, name=name),
        }
        past: dict[str, Callable[[str], nn.Module]] = {
            "0": depthwise,
            "1": lambda name: Conv(2 * half, activation="Identity", form=form, name=name),
        }
        y = Chain(lambda name: main[name](name), tuple(main) if strided else ("0", "2"), name="conv")(x, train=train)
        z = Chain(lambda name: past[name](name), tuple(past), name="shortcut")(x, train=train) if strided else x
        return y + z


def ghost_blocks(channels: int, *, repeats: int, activation: str, form: Form, name: str, **_: Any) -> Chain:
    """Ghost bottlenecks in sequence, the `inner` of C3Ghost; each has its residual sum whatever is asked."""

    def make(place: str) -> GhostBottleneck:
        return GhostBottleneck(channels, _KERNEL, 1, activation, form, name=place)

    return repeated(make, repeats, name=name)


def c3_ghost(*, form: Form, **options: Any) -> CSP:
    """C3 of ghost bottlenecks."""
    return CSP(layout="A", inner=ghost_blocks, form=form, **options)
