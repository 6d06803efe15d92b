"""Computational blocks and transitions of the YOLOv7 and YOLOv5 papers, as small functions that add nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from yolov7_jax.graph.builder import Builder


def conv(b: Builder, x: str, channels: int, kernel: int = 1, stride: int = 1, *, tag: str = "") -> str:
    """Convolution, batch normalization, activation."""
    return b.add("Conv", x, channels, kernel, stride, tag=tag)


def concat(b: Builder, xs: Sequence[str], *, tag: str = "") -> str:
    """Channels of all inputs, in the order listed."""
    return b.add("Concat", xs, 1, tag=tag)


def upsample(b: Builder, x: str, *, tag: str = "") -> str:
    """Nearest neighbor, twice the size."""
    return b.add("nn.Upsample", x, None, 2, "nearest", tag=tag)


def elan(
    b: Builder,
    x: str,
    *,
    branch: int,
    chain: int,
    out: int,
    taps: Sequence[int] = (2, 4),
    depth: int = 4,
    rep: Collection[int] = (),
    planned: bool = True,
    tag: str = "",
) -> str:
    """Efficient layer aggregation network (YOLOv7, section 3.1, figure 2).

    Two 1×1 convolutions of the input to `branch` channels, a chain of `depth` 3×3 convolutions of `chain` channels
    on the second; the outputs numbered in `taps` (from 1) and both 1×1 outputs are joined, a 1×1 brings `out` channels.

    rep: numbers of the chain's convolutions that are RepConv (section 4.1). planned: those of them that go into the
    concatenation, which is a way around them already, have no identity branch (the paper's RepConvN).
    """
    cross = conv(b, x, branch, tag=tag)
    links = [conv(b, x, branch, tag=tag)]
    for link in range(1, depth + 1):
        if link in rep:
            identity = not (planned and link in taps)
            links.append(b.add("RepConv", links[-1], chain, 3, 1, identity=identity, tag=tag))
        else:
            links.append(conv(b, links[-1], chain, 3, tag=tag))
    joined = concat(b, [*(links[i] for i in sorted(taps, reverse=True)), links[0], cross], tag=tag)
    return conv(b, joined, out, tag=tag)


def extended(b: Builder, x: str, block: Callable[[str], str], blocks: int, *, tag: str = "") -> tuple[str, str]:
    """Extended ELAN (E-ELAN, section 3.1): equal blocks side by side on one input, summed.

    That is the paper's group convolution, shuffle and merge of cardinality, written as parallel blocks.
    block: adds one block on its input and returns its output. Returns the sum, and the last block before the sum.
    """
    total = last = block(x)
    for _ in range(blocks - 1):
        last = block(x)
        total = b.add("Shortcut", [last, total], tag=tag)
    return total, last


def transition(b: Builder, x: str, channels: int, *, joined: Sequence[str] = (), tag: str = "") -> str:
    """Halves the size: max pool and 1×1 beside 1×1 and 3×3 of stride 2, concatenated with each other and `joined`."""
    pooled = conv(b, b.add("MP", x, tag=tag), channels, tag=tag)
    strided = conv(b, conv(b, x, channels, tag=tag), channels, 3, 2, tag=tag)
    return concat(b, [strided, pooled, *joined], tag=tag)


def halve(b: Builder, x: str, channels: int, *, down: str = "Conv", tag: str = "") -> str:
    """Halves the size: a 3×3 of stride 2 (`down` = "Conv"), or that beside a max pool ("DownC")."""
    return b.add("DownC", x, channels, tag=tag) if down == "DownC" else conv(b, x, channels, 3, 2, tag=tag)


def lateral(b: Builder, coarse: str, fine: str, channels: int, *, tag: str = "") -> str:
    """Top-down step of the pyramid: the coarse map, reduced and upsampled, joined to the reduced fine one."""
    up = upsample(b, conv(b, coarse, channels, tag=tag), tag=tag)
    return concat(b, [conv(b, fine, channels, tag=tag), up], tag=tag)


def spp_csp(b: Builder, x: str, channels: int, *, kernels: Sequence[int] = (5, 9, 13), tag: str = "") -> str:
    """Spatial pyramid pooling in a cross-stage partial block, the light form of YOLOv7-tiny."""
    cross = conv(b, x, channels, tag=tag)
    main = conv(b, x, channels, tag=tag)
    pools = [b.add("SP", main, k, tag=tag) for k in kernels]
    pooled = conv(b, concat(b, [*reversed(pools), main], tag=tag), channels, tag=tag)
    return conv(b, concat(b, [pooled, cross], tag=tag), channels, tag=tag)
