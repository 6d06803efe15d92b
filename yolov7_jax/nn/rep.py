"""Re-parameterizable convolution (YOLOv7, section 4.1)."""

from __future__ import annotations

import jax
from flax import linen as nn

from yolov7_jax.nn.conv import BatchNorm, Conv2d, Form, activate


class _ConvNorm(nn.Module):
    """Convolution "0" and batch normalization "1", as PyTorch names a sequence of two."""

    channels: int
    kernel: int
    stride: int
    padding: int
    groups: int
    form: Form

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv2d(self.channels, self.kernel, self.stride, self.padding, self.groups, form=self.form, name="0")(x)
        return BatchNorm(self.form, name="1")(x, train=train)


class RepConv(nn.Module):
    """act(bn(3×3 x) + bn(1×1 x) [+ bn(x)]); in folded form one 3×3 convolution with bias.

    The branch of x alone exists where `identity` is set, input and output channels are equal and the stride is 1;
    without it this is the paper's RepConvN.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    activation: str = "SiLU"
    identity: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H/stride, W/stride, channels]."""
        if self.form.folded:
            y = Conv2d(
                self.channels,
                self.kernel,
                self.stride,
                groups=self.groups,
                use_bias=True,
                form=self.form,
                name="rbr_reparam",
            )(x)
            return activate(y, self.activation)

        def branch(kernel: int, name: str) -> jax.Array:
            size = (self.channels, kernel, self.stride, kernel // 2, self.groups)
            return _ConvNorm(*size, self.form, name=name)(x, train=train)

        y = branch(self.kernel, "rbr_dense") + branch(1, "rbr_1x1")
        if self.identity and self.stride == 1 and x.shape[-1] == self.channels:
            y = y + BatchNorm(self.form, name="rbr_identity")(x, train=train)
        return activate(y, self.activation)
