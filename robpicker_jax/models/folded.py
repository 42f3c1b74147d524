"""3D convolution on CPU, and its weight gradient, out of the two things XLA does well there: 2D convolutions and
matrix products.

XLA's own 3D convolution reaches about a tenth of the machine's matrix-product rate. Depth is therefore folded: the
taps along depth become channels of one 2D convolution over `(n*D, H, W)`. The weight gradient is a few products
`(kd*C, voxels) @ (voxels, F)`, one for each of the kh*kw shifts in the plane; the left operand channels-first and with
the depth taps stacked, because XLA contracts two row-major `(voxels, channels)` arrays at half the speed.

`lax.optimization_barrier` keeps XLA from fusing the cheap shifts and pads into every consumer, where they would be
computed again element by element.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax


def taps(size: int, mirrored: bool = False) -> list[int]:
    """Offset of each tap of a "SAME" kernel of `size` voxels; `mirrored` swaps the padding of even sizes."""
    before = size // 2 if mirrored else (size - 1) // 2
    return [tap - before for tap in range(size)]


def shifted(x: jax.Array, offset: int, axis: int) -> jax.Array:
    """`out[i] = x[i + offset]` along `axis`, zero beyond the ends."""
    length = x.shape[axis]
    if offset == 0:
        return x
    if abs(offset) >= length:
        return jnp.zeros_like(x)
    gap = jnp.zeros_like(lax.slice_in_dim(x, 0, abs(offset), axis=axis))
    if offset < 0:
        return lax.concatenate([gap, lax.slice_in_dim(x, 0, length + offset, axis=axis)], axis)
    return lax.concatenate([lax.slice_in_dim(x, offset, length, axis=axis), gap], axis)


def _conv2d(x: jax.Array, kernel: jax.Array, mirrored: bool) -> jax.Array:
    padding = [(-offsets[0], offsets[-1]) for offsets in (taps(size, mirrored) for size in kernel.shape[:2])]
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolution(x: jax.Array, kernel: jax.Array, mirrored: bool = False) -> jax.Array:
    """Convolution of `x (n, D, H, W, C)` with `kernel (kd, kh, kw, C, F)`, stride 1, "SAME" padding.

    The depth taps go to the side with fewer channels: either the input is gathered into `kd*C` channels first, or the
    convolution has `kd*F` outputs that are shifted and added afterwards. With `mirrored`, an even kernel has its extra
    voxel of padding in front (what its own input gradient needs).
    """
    n, depth, height, width, channels = x.shape
    kd, kh, kw, _, features = kernel.shape
    offsets = taps(kd, mirrored)
    x = lax.optimization_barrier(x)
    if channels < features:
        folded = x if kd == 1 else lax.concatenate([shifted(x, offset, 1) for offset in offsets], 4)
        folded = lax.optimization_barrier(folded).reshape(n * depth, height, width, kd * channels)
        flat = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kd * channels, features)
        y = _conv2d(folded, flat, mirrored).reshape(n, depth, height, width, features)
    else:
        flat = kernel.transpose(1, 2, 3, 0, 4).reshape(kh, kw, channels, kd * features)
        by_tap = _conv2d(x.reshape(n * depth, height, width, channels), flat, mirrored)
        by_tap = by_tap.reshape(n, depth, height, width, kd * features)
        parts = [lax.slice_in_dim(by_tap, i * features, (i + 1) * features, axis=4) for i in range(kd)]
        y = functools.reduce(jnp.add, [shifted(part, offset, 1) for part, offset in zip(parts, offsets, strict=True)])
    return lax.optimization_barrier(y)


def _correlate(left: jax.Array, right: jax.Array, size: tuple[int, int, int], mirrored: bool) -> jax.Array:
    """`out[a, b, c, l, r] = sum over voxels p of left[p + (a, b, c) - before, l] * right[p, r]`."""
    n, depth, height, width, channels = left.shape
    features = right.shape[-1]
    kd, kh, kw = size
    first = left.reshape(-1, channels).T.reshape(channels, n, depth, height * width)
    first = lax.optimization_barrier(first)
    stacked = first if kd == 1 else lax.concatenate([shifted(first, offset, 2) for offset in taps(kd, mirrored)], 0)
    stacked = lax.optimization_barrier(stacked.reshape(kd * channels, -1))
    # left[p + s] * right[p] summed over p is left[q] * right[q - s] summed over q: the plane shifts go to the right.
    rows, columns = taps(kh, mirrored), taps(kw, mirrored)
    padded = jnp.pad(right, ((0, 0), (0, 0), (rows[-1], -rows[0]), (columns[-1], -columns[0]), (0, 0)))
    padded = lax.optimization_barrier(padded)
    products = []
    for row in rows:
        for column in columns:
            top, side = rows[-1] - row, columns[-1] - column
            window = padded[:, :, top : top + height, side : side + width].reshape(-1, features)
            products.append(stacked @ lax.optimization_barrier(window))
    return jnp.stack(products).reshape(kh, kw, kd, channels, features).transpose(2, 0, 1, 3, 4)


def weight_gradient(x: jax.Array, g: jax.Array, size: tuple[int, int, int], mirrored: bool = False) -> jax.Array:
    """Gradient of `sum(g * convolution(x, kernel, mirrored))` with respect to a kernel of `size`: `(*size, C, F)`."""
    x, g = lax.optimization_barrier((x, g))
    if x.shape[-1] <= g.shape[-1]:
        return _correlate(x, g, size, mirrored)
    # The smaller side is stacked: exchange the two, which mirrors the shifts.
    return _correlate(g, x, size, not mirrored)[::-1, ::-1, ::-1].transpose(0, 1, 2, 4, 3)
