"""All that exists only to be quick on CPUs, chosen here and switched off here. NHWC, kernels HWIO.

Skip this file to learn what a network computes: `nn.conv` and `nn.functional` define it, and `tuned` switches all of
this off. What is here gives the same numbers, up to the order of sums, and has derivatives of every order in both
modes, as the plain definitions have. Three things are slow where XLA's CPU back end is left alone:

- Gradients of convolutions. That of a 1×1 kernel is a product whose first operand XLA reads across rows, those of other
  kernels take the batch for channels; that of a strided convolution's input multiplies mostly zeros. Here they are
  products of matrices that lie well in memory; other devices compute what XLA makes of them.
- Max pools, for which `reduce_window` pays k² a pixel.
- Batches in inference, whose feature maps leave the caches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from yolov7_jax.errors import InputError
from yolov7_jax.ops.by_device import on_each_device

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_SWITCH = "YOLOV7_JAX_CPU_TUNING"
_tuning: ContextVar[bool | None] = ContextVar("cpu_tuning", default=None)

_FEW_CHANNELS = 4  # of images, against the 16 and more of every other layer
_BAND = 1600
"""Pixels whose windows are laid out at a time: with the product's operands they fit the caches of a core."""


def tuning() -> bool:
    """Whether networks that are made now are tuned: as `tuned` says, else the variable YOLOV7_JAX_CPU_TUNING.

    Raises:
        InputError: the variable is neither "on" nor "off".
    """
    if (chosen := _tuning.get()) is not None:
        return chosen
    if (value := os.environ.get(_SWITCH, "on")) not in ("on", "off"):
        raise InputError(f"{_SWITCH} must be on or off, got {value!r}")
    return value == "on"


@contextmanager
def tuned(on: bool = True) -> Iterator[None]:
    """Within it, networks are made, and layers without a network traced, with this tuning or without.

    A `Network` keeps in its field `cpu_tuning` what held when it was made, so that it is part of what compiled
    programs are known by.
    """
    token = _tuning.set(on)
    try:
        yield
    finally:
        _tuning.reset(token)


def quick_as(quick: Callable[..., jax.Array]) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Where tuning is on, calls `quick` in place of a definition, which it takes as its first argument."""

    def decorate(plain: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        @wraps(plain)
        def either(*args: Any, **kwargs: Any) -> jax.Array:
            return quick(plain, *args, **kwargs) if tuning() else plain(*args, **kwargs)

        return either

    return decorate


def by_image(function: Callable[[jax.Array], Any], batch: jax.Array) -> Any:
    """`function` of a batch, a tree of arrays [B, ...] from an array [B, ...]; on a CPU one image after another.

    The feature maps of one image fit the caches of a CPU: inference is a fifth faster than on the batch as a whole,
    and takes a fraction of the memory. On other devices images go together.
    """

    def in_turn(batch: jax.Array) -> Any:
        return lax.map(lambda one: jax.tree.map(lambda leaf: leaf[0], function(one[None])), batch)

    if batch.shape[0] == 1 or not tuning():  # no `len`: it may be symbolic
        return function(batch)
    return lax.platform_dependent(batch, cpu=in_turn, default=function)


# Max pools


def max_pool(plain: Callable[..., jax.Array], x: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """`nn.functional.max_pool`, bit-exact. Among equal largest values, gradients are shared; XLA picks the first.

    Tiles are a reshape. With stride 1 and an odd kernel padded to keep the size it is a chain of small pools, each of
    them rows, then columns: pools of 5, 9 and 13 share their work.
    """
    if kernel == stride and padding == 0:
        return _tiled_max_pool(x, kernel)
    if stride != 1 or kernel != 2 * padding + 1:
        return plain(x, kernel, stride, padding)
    radius = padding
    while radius > 0:
        x = _sliding_max(_sliding_max(x, min(radius, 2), axis=1), min(radius, 2), axis=2)
        radius -= 2
    return x


def _tiled_max_pool(x: jax.Array, kernel: int) -> jax.Array:
    """Rows and columns that fill no tile are left out."""
    b, h, w, c = x.shape
    x = x[:, : h // kernel * kernel, : w // kernel * kernel]
    return x.reshape(b, h // kernel, kernel, w // kernel, kernel, c).max((2, 4))


def _sliding_max(x: jax.Array, radius: int, *, axis: int) -> jax.Array:
    size = x.shape[axis]
    lowest = jnp.array(-jnp.inf, x.dtype)
    padded = lax.pad(x, lowest, [(radius, radius, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)])
    out = lax.slice_in_dim(padded, 0, size, axis=axis)
    for offset in range(1, 2 * radius + 1):
        out = jnp.maximum(out, lax.slice_in_dim(padded, offset, offset + size, axis=axis))
    return out


# Convolutions


def convolve(
    plain: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int = 1
) -> jax.Array:
    """`nn.conv.convolve`; kernels have gradients by products, strided ones their inputs too, images go in by pairs."""
    if groups > 1:
        return plain(x, kernel, strides, padding, groups)
    few, even = x.shape[-1] <= _FEW_CHANNELS, x.shape[2] % 2 == 0
    if strides == (2, 2) and few and even:
        return _products(*_by_pairs(x, kernel, padding))
    return _products(x, kernel, strides, padding)


def _by_pairs(x: jax.Array, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, jax.Array, Pair, Padding]:
    """A convolution of stride 2, as one of stride (2, 1) over pairs of neighboring columns.

    Pairing columns is a free reshape and doubles the channels, which are too few in images for vector units: the
    stem runs about four times faster. The kernel gets columns of zeros where it does not begin or end a pair.
    """
    b, h, w, c = x.shape
    rows, columns, _, out = kernel.shape
    left = padding[1][0] % 2
    right = (columns + left) % 2
    pairs = (columns + left + right) // 2
    widened = jnp.pad(kernel, ((0, 0), (left, right), (0, 0), (0, 0))).reshape(rows, pairs, 2 * c, out)
    before = (padding[1][0] + left) // 2
    after = (w + sum(padding[1]) - columns) // 2 + pairs - before - w // 2
    return x.reshape(b, h, w // 2, 2 * c), widened, (2, 1), (padding[0], (before, after))


# With y = convolution(x, kernel), three maps belong to the one sum ⟨y, dy⟩: y of (x, kernel), dx of (dy, kernel) and
# dkernel of (x, dy). Each is linear in both of its arguments, and the gradient with respect to either is another of the
# three. So as primitives of JAX they have derivatives of every order in both modes, all of them by these maps.


class _Geometry(NamedTuple):
    """What a convolution is beside its arrays. image: height and width of x. window: of the kernel."""

    image: Pair
    window: Pair
    strides: Pair
    padding: Padding


def _products(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    (_, *image, _), (*window, _, _) = x.shape, kernel.shape
    geometry = _Geometry((image[0], image[1]), (window[0], window[1]), strides, padding)
    return _values_p.bind(x, kernel, geometry=geometry)


def _values(x: jax.Array, kernel: jax.Array, *, geometry: _Geometry) -> jax.Array:
    """A 1×1 convolution is written as the product over channels that it is: XLA's CPU back end runs that faster."""
    _, window, strides, padding = geometry
    if (*window, *strides, *padding) == (1, 1, 1, 1, (0, 0), (0, 0)):
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _of_input(dy: jax.Array, kernel: jax.Array, *, geometry: _Geometry) -> jax.Array:
    """Dx [B, H, W, c1], of dy [B, H', W', c2] and the kernel."""
    shape = jax.ShapeDtypeStruct((len(dy), *geometry.image, kernel.shape[2]), dy.dtype)

    def of_xla(dy: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(partial(_values, kernel=kernel, geometry=geometry), shape)(dy)[0]

    if geometry.strides == (1, 1):
        return of_xla(dy, kernel)

    def of_products(dy: jax.Array, kernel: jax.Array) -> jax.Array:
        of_images: Callable[[jax.Array], jax.Array] = on_each_device(partial(_input_gradient, geometry, kernel))
        return of_images(dy)

    return lax.platform_dependent(dy, kernel, cpu=of_products, default=of_xla)


def _of_kernel(x: jax.Array, dy: jax.Array, *, geometry: _Geometry) -> jax.Array:
    """Dkernel [k, k', c1, c2], of x [B, H, W, c1] and dy [B, H', W', c2]."""
    shape = jax.ShapeDtypeStruct((*geometry.window, x.shape[3], dy.shape[3]), x.dtype)

    def of_xla(x: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.linear_transpose(partial(_values, x, geometry=geometry), shape)(dy)[0]

    def of_products(x: jax.Array, dy: jax.Array) -> jax.Array:
        parts: jax.Array = on_each_device(lambda x, dy: _kernel_gradient(geometry, x, dy)[None])(x, dy)
        return parts.sum(0)  # over devices

    return lax.platform_dependent(x, dy, cpu=of_products, default=of_xla)


def _primitive(name: str, function: Callable[..., jax.Array], shape: Callable[..., tuple[int, ...]]) -> Primitive:
    """A function of two arrays and a geometry as a primitive; shape: of its output, from theirs and the geometry."""

    def abstract(a: Any, b: Any, *, geometry: _Geometry) -> Any:
        return jax.core.ShapedArray(shape(a.shape, b.shape, geometry), a.dtype)

    def batch(arrays: tuple[jax.Array, ...], axes: tuple[int | None, ...], *, geometry: _Geometry) -> Any:
        return jax.vmap(partial(function, geometry=geometry), axes)(*arrays), 0

    primitive = Primitive(name)
    primitive.def_impl(jax.jit(function, static_argnames="geometry"))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    return primitive


def _output_shape(x: tuple[int, ...], kernel: tuple[int, ...], geometry: _Geometry) -> tuple[int, ...]:
    sides = zip(geometry.image, geometry.window, geometry.strides, geometry.padding, strict=True)
    return (x[0], *((side + sum(margin) - k) // stride + 1 for side, k, stride, margin in sides), kernel[3])


_values_p = _primitive("convolution", _values, _output_shape)
_of_input_p = _primitive(
    "convolution_input_gradient", _of_input, lambda dy, kernel, geometry: (dy[0], *geometry.image, kernel[2])
)
_of_kernel_p = _primitive(
    "convolution_kernel_gradient", _of_kernel, lambda x, dy, geometry: (*geometry.window, x[3], dy[3])
)
# Gradients with respect to the first argument and to the second, each from what comes back and both arguments, of which
# the one that is asked for is a placeholder.
ad.defbilinear(
    _values_p,
    lambda dy, _, kernel, **geometry: _of_input_p.bind(dy, kernel, **geometry),
    lambda dy, x, _, **geometry: _of_kernel_p.bind(x, dy, **geometry),
)
ad.defbilinear(
    _of_input_p,
    lambda dx, _, kernel, **geometry: _values_p.bind(dx, kernel, **geometry),
    lambda dx, dy, _, **geometry: _of_kernel_p.bind(dx, dy, **geometry),
)
ad.defbilinear(
    _of_kernel_p,
    lambda dkernel, _, dy, **geometry: _of_input_p.bind(dy, dkernel, **geometry),
    lambda dkernel, x, _, **geometry: _values_p.bind(x, dkernel, **geometry),
)


def _kernel_gradient(geometry: _Geometry, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Sum over bands of pixels of (windows)ᵀ · dy, as matrices [kk'c1, pixels] and [pixels, c2]."""
    _, window, strides, padding = geometry
    shape = (*window, x.shape[3], dy.shape[3])
    b, rows, columns, _ = dy.shape
    at_once = dy.size if window == (1, 1) else _BAND  # windows of one pixel need no layout
    band = _largest_divisor(rows, at_once // columns)
    images = _largest_divisor(b, at_once // (rows * columns)) if band == rows else 1
    bands = rows // band
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height = (band - 1) * strides[0] + window[0]

    def add(i: jax.Array | int, total: jax.Array) -> jax.Array:
        image, row = i // bands * images, i % bands * band
        part = lax.dynamic_slice(x, (image, row * strides[0], 0, 0), (images, height, *x.shape[2:]))
        windows = _windows(part, window, strides, (band, columns))
        # Without the barrier XLA transposes within the product, element by element.
        windows = lax.optimization_barrier(windows.reshape(-1, windows.shape[-1]).T)
        gradient = lax.dynamic_slice(dy, (image, row, 0, 0), (images, band, *dy.shape[2:]))
        gradient = gradient.reshape(-1, dy.shape[-1])
        return total + lax.dot(windows, gradient, preferred_element_type=total.dtype)

    wide = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32  # bands are many: bfloat16 would lose
    zeros = jnp.zeros((prod(shape[:3]), shape[3]), wide)
    total = lax.fori_loop(0, b // images * bands, add, zeros)
    return total.reshape(shape).astype(x.dtype)


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


def _input_gradient(geometry: _Geometry, kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """The products dy · kernelᵀ, image after image, each added to the pixel that it came from."""
    image, _, strides, padding = geometry
    rows, columns, c, out = kernel.shape
    transposed = lax.optimization_barrier(kernel.reshape(-1, out).T)

    def one(dy: jax.Array) -> jax.Array:
        taps = (dy.reshape(-1, out) @ transposed).reshape(*dy.shape[:2], rows, columns, c)
        by_row = [
            _spread([taps[:, :, i, j] for j in range(columns)], 1, strides[1], padding[1][0], image[1])
            for i in range(rows)
        ]
        return _spread(by_row, 0, strides[0], padding[0][0], image[0])

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
