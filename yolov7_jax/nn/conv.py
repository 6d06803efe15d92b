"""Convolution, batch normalization and activation: what all layers are made of. NHWC, kernels HWIO."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from yolov7_jax.nn import cpu
from yolov7_jax.nn.parameters import ONES, ZEROS, Initializer, parameter, statistic, uniform_by_fan_in

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.97  # the share of the old running statistics that stays at each step

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "SiLU": nn.silu,
    "ReLU": nn.relu,
    "Hardswish": nn.hard_swish,
    "Mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "Sigmoid": nn.sigmoid,
    "Identity": lambda x: x,
}


@dataclass(frozen=True)
class Form:
    """How the layers of one network are built.

    dtype: of the computation. folded: batch normalization is folded into convolutions. frozen: regular expression
    over whole tree paths; batch normalization whose path/mean it describes keeps its running statistics in training.
    """

    dtype: DTypeLike = jnp.float32
    folded: bool = False
    frozen: str = ""

    def is_frozen(self, path: Sequence[str]) -> bool:
        """Whether the batch normalization at a tree path is to normalize as in inference."""
        return re.fullmatch(self.frozen, "/".join((*path, "mean"))) is not None


def activate(x: jax.Array, activation: str) -> jax.Array:
    """Applies an activation by its canonical text, as `graph.layers.activation_name` gives it."""
    leaky = re.fullmatch(r"LeakyReLU\((.+)\)", activation)
    return nn.leaky_relu(x, float(leaky[1])) if leaky else _ACTIVATIONS[activation](x)


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The dtype that statistics and outputs of a computation in `dtype` have."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def affine(x: jax.Array, factor: jax.Array | None = None, shift: jax.Array | None = None) -> jax.Array:
    """Factor [c] times x [..., c] plus shift [c], in the dtype of x.

    Computed in at least float32: else the gradients of factor and shift would be sums over all pixels in bfloat16.
    """
    wide = at_least_float32(x.dtype)
    y = x.astype(wide)
    across = (1,) * (x.ndim - 1) + (-1,)
    if factor is not None:
        y = y * factor.astype(wide).reshape(across)
    if shift is not None:
        y = y + shift.astype(wide).reshape(across)
    return y.astype(x.dtype)


CONV, STAGE = "conv", "stage"
"""What `jax.checkpoint` can keep by these names: outputs of convolutions; feature maps that end a stage."""

Pair = tuple[int, int]


@cpu.quick_as(cpu.convolve)
def convolve(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], groups: int = 1) -> jax.Array:
    """The convolution [B, H, W, c1] → [B, H', W', c2].

    Args:
        x: [B, H, W, c1].
        kernel: [k, k', c1 / groups, c2].
        strides: of rows and columns.
        padding: zeros before and after the rows, and the columns.
        groups: of channels.
    """
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout, feature_group_count=groups)


class Conv2d(nn.Module):
    """A plain convolution. [B, H, W, c1] → [B, H', W', channels]."""

    channels: int
    kernel: int = 1
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False
    bias_init: Initializer = ZEROS
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The convolution of x, computed in the form's dtype."""
        k, s = self.kernel, self.stride
        p = k // 2 if self.padding is None else self.padding
        shape = (k, k, x.shape[-1] // self.groups, self.channels)
        kernel = parameter(self, "kernel", uniform_by_fan_in, shape).astype(self.form.dtype)
        y = checkpoint_name(convolve(x, kernel, (s, s), ((p, p), (p, p)), self.groups), CONV)
        if not self.use_bias:
            return y
        return affine(y, shift=parameter(self, "bias", self.bias_init, (self.channels,)))


class BatchNorm(nn.Module):
    """Batch normalization with PyTorch's running statistics: their variance is the unbiased one.

    Statistics are taken in at least float32 over batch, height and width (over the whole batch of a sharded step). In
    folded form, where it is not part of a `Conv` or `RepConv`, it is the scale and the bias alone.
    """

    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalized x; in training the `batch_stats` collection is updated when it is mutable."""
        channels = x.shape[-1:]
        scale = parameter(self, "scale", ONES, channels)
        bias = parameter(self, "bias", ZEROS, channels)
        if self.form.folded:
            return affine(x.astype(self.form.dtype), scale, bias)
        running_mean = statistic(self, "mean", 0.0, channels)
        running_var = statistic(self, "var", 1.0, channels)
        wide = at_least_float32(self.form.dtype)
        if train and not self.form.is_frozen(self.path):
            mean = x.astype(wide).mean((0, 1, 2))
            var = jnp.maximum(jnp.square(x.astype(wide)).mean((0, 1, 2)) - jnp.square(mean), 0)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                count = x.size // x.shape[-1]
                running_mean.value = _moved(running_mean.value, mean)
                running_var.value = _moved(running_var.value, var * (count / max(count - 1, 1)))
        else:
            mean, var = running_mean.value.astype(wide), running_var.value.astype(wide)
        factor = scale.astype(wide) * lax.rsqrt(var + BATCH_NORM_EPSILON)
        shift = bias.astype(wide) - mean * factor
        return affine(x.astype(self.form.dtype), factor, shift)


class Conv(nn.Module):
    """Convolution without bias → batch normalization → activation; in folded form a convolution with bias.

    channels: None for those of the input. groups: None for the most that there can be, one a channel where input and
    output have as many (depth-wise).
    """

    channels: int | None
    kernel: int = 1
    stride: int = 1
    padding: int | None = None
    groups: int | None = 1
    activation: str = "SiLU"
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H', W', channels]."""
        folded = self.form.folded
        channels = x.shape[-1] if self.channels is None else self.channels
        x = Conv2d(
            channels,
            self.kernel,
            self.stride,
            self.padding,
            gcd(x.shape[-1], channels) if self.groups is None else self.groups,
            use_bias=folded,
            form=self.form,
            name="conv",
        )(x)
        if not folded:
            x = BatchNorm(self.form, name="bn")(x, train=train)
        return activate(x, self.activation)


def _moved(old: jax.Array, new: jax.Array) -> jax.Array:
    return BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new.astype(old.dtype)
