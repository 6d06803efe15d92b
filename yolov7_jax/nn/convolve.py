"""Convolutions whose gradients are quick on a CPU. NHWC, kernels HWIO.

XLA's CPU back end runs convolutions well, but not all of their gradients. That of a 1×1 kernel is a product whose first
operand it reads across rows; that of a strided convolution's input multiplies mostly zeros, and that of its kernel
takes the batch for channels. Here they are products of matrices that lie well in memory. Other devices compute what XLA
makes of the convolution.
"""

from __future__ import annotations

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]

_BAND = 1600
"""Pixels whose windows are laid out at a time: with the product's operands they fit the caches of a core."""


def convolve(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], groups: int = 1) -> jax.Array:
    """The convolution [B, H, W, c1] → [B, H', W', c2].

    Strided and 1×1 ones have derivatives in reverse mode only: JAX refuses to push tangents forward through them.

    Args:
        x: [B, H, W, c1].
        kernel: [k, k', c1 / groups, c2].
        strides: of rows and columns.
        padding: zeros before and after the rows, and the columns.
        groups: of channels.
    """
    if groups == 1 and (strides != (1, 1) or kernel.shape[:2] == (1, 1)):
        return _by_products(x, kernel, strides, padding)
    return _convolve(x, kernel, strides, padding, groups)


def _convolve(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], groups: int = 1) -> jax.Array:
    """A 1×1 convolution is written as the product over channels that it is: XLA's CPU back end runs that faster."""
    if (*kernel.shape[:2], *strides, *padding, groups) == (1, 1, 1, 1, (0, 0), (0, 0), 1):
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_products(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]) -> jax.Array:
    return _convolve(x, kernel, strides, padding)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: Pair, padding: tuple[Pair, Pair], saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of_xla(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        dx, dkernel = jax.vjp(partial(_convolve, strides=strides, padding=padding), x, kernel)[1](dy)
        return dx, dkernel

    def products(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        plain = strides == (1, 1)
        dx = of_xla(x, kernel, dy)[0] if plain else _input_gradient(x.shape, kernel, dy, strides, padding)
        return dx, _kernel_gradient(x, kernel, dy, strides, padding)

    dx, dkernel = lax.platform_dependent(*saved, dy, cpu=products, default=of_xla)
    return dx, dkernel


_by_products.defvjp(_forward, _backward)


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    """Sum over bands of pixels of (windows)ᵀ · dy, as matrices [kk'c1, pixels] and [pixels, c2]."""
    b, rows, columns, _ = dy.shape
    at_once = dy.size if kernel.shape[:2] == (1, 1) else _BAND  # windows of one pixel need no layout
    band = _largest_divisor(rows, at_once // columns)
    images = _largest_divisor(b, at_once // (rows * columns)) if band == rows else 1
    bands = rows // band
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height = (band - 1) * strides[0] + kernel.shape[0]

    def add(i: jax.Array | int, total: jax.Array) -> jax.Array:
        image, row = i // bands * images, i % bands * band
        part = lax.dynamic_slice(x, (image, row * strides[0], 0, 0), (images, height, *x.shape[2:]))
        windows = _windows(part, kernel.shape[:2], strides, (band, columns))
        # Without the barrier XLA transposes within the product, element by element.
        windows = lax.optimization_barrier(windows.reshape(-1, windows.shape[-1]).T)
        gradient = lax.dynamic_slice(dy, (image, row, 0, 0), (images, band, *dy.shape[2:]))
        gradient = gradient.reshape(-1, dy.shape[-1])
        return total + lax.dot(windows, gradient, preferred_element_type=total.dtype)

    wide = kernel.dtype if jnp.finfo(kernel.dtype).bits >= 32 else jnp.float32  # bands are many: bfloat16 would lose
    zeros = jnp.zeros((prod(kernel.shape[:3]), kernel.shape[3]), wide)
    total = lax.fori_loop(0, b // images * bands, add, zeros)
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _windows(x: jax.Array, kernel: tuple[int, ...], strides: Pair, size: Pair) -> jax.Array:
    """[B, H, W, c] → [B, *size, kk'c]: what lies under the kernel at each of its places."""
    b, _, _, c = x.shape
    ends = [(n - 1) * stride + 1 for n, stride in zip(size, strides, strict=True)]
    parts = [
        lax.slice(x, (0, i, j, 0), (b, i + ends[0], j + ends[1], c), (1, *strides, 1))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return jnp.concatenate(parts, axis=-1)


def _input_gradient(
    shape: tuple[int, ...], kernel: jax.Array, dy: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    """The products dy · kernelᵀ, image after image, each added to the pixel that it came from."""
    rows, columns, c, out = kernel.shape
    transposed = lax.optimization_barrier(kernel.reshape(-1, out).T)

    def one(dy: jax.Array) -> jax.Array:
        taps = (dy.reshape(-1, out) @ transposed).reshape(*dy.shape[:2], rows, columns, c)
        by_row = [
            _spread([taps[:, :, i, j] for j in range(columns)], 1, strides[1], padding[1][0], shape[2])
            for i in range(rows)
        ]
        return _spread(by_row, 0, strides[0], padding[0][0], shape[1])

    return lax.map(one, dy)


def _spread(taps: list[jax.Array], axis: int, stride: int, padding: int, size: int) -> jax.Array:
    """What each tap i of a kernel has at places q of an axis, added up at pixels stride · q + i - padding of `size`."""
    places = -(-size // stride)
    zero = jnp.zeros((), taps[0].dtype)

    def phase(remainder: int) -> jax.Array:
        total = jnp.zeros((*taps[0].shape[:axis], places, *taps[0].shape[axis + 1 :]), zero.dtype)
        for i in range((remainder + padding) % stride, len(taps), stride):
            shift = (remainder + padding - i) // stride
            edges = [(0, 0, 0)] * total.ndim
            edges[axis] = (-shift, places + shift - taps[i].shape[axis], 0)
            total += lax.pad(taps[i], zero, edges)
        return total

    stacked = jnp.stack([phase(remainder) for remainder in range(stride)], axis + 1)
    shape = (*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])
    return lax.slice_in_dim(stacked.reshape(shape), 0, size, axis=axis)


def _largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of n that is not over the limit; at least 1."""
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(limit, 1))
