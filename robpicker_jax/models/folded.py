"""3D convolution on CPU, and its weight gradient, made of the two operations that XLA does well there: 2D
convolutions and matrix products.

XLA's own 3D convolution reaches about a tenth of the machine's matrix-product rate. Depth is therefore folded: the
taps along depth become channels of one 2D convolution over `(n*D, H, W)`. The weight gradient is a 2D convolution too,
whose window is as large as its image.

`lax.optimization_barrier` keeps XLA from fusing the cheap shifts and pads into every consumer, where they would be
computed again element by element.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

_FEW_CHANNELS = 2
_ENOUGH_OUTPUTS = 48
"""With this many outputs or more, a 2D convolution gains nothing by taking neighbouring columns together (measured on
AVX2)."""


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


def _conv2d(x: jax.Array, kernel: jax.Array, mirrored: bool, block: int = 1) -> jax.Array:
    """2D convolution, `block` neighbouring columns at a time where they divide the width.

    The columns of a block are outputs of one kernel that is wider by as many columns and moves on by a block at a time.
    That takes more operations, but a matrix product with few columns is slow, and the block gives it more of them.
    """
    samples, height, width, _ = x.shape
    kh, kw, _, features = kernel.shape
    while width % block:
        block //= 2
    if block > 1:
        moved = [jnp.pad(kernel, ((0, 0), (i, block - 1 - i), (0, 0), (0, 0))) for i in range(block)]
        kernel = lax.concatenate(moved, 3)
    padding = [(-offsets[0], offsets[-1]) for offsets in (taps(size, mirrored) for size in (kh, kw))]
    y = lax.conv_general_dilated(x, kernel, (1, block), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(samples, height, width, features)


def convolution(x: jax.Array, kernel: jax.Array, mirrored: bool = False) -> jax.Array:
    """Convolution of `x (n, D, H, W, C)` with `kernel (kd, kh, kw, C, F)`, stride 1, "SAME" padding.

    With few inputs, or many more outputs than inputs, the depth taps become `kd*C` inputs. Otherwise they become `kd*F`
    outputs, which are shifted and added afterwards. With `mirrored`, an even kernel has its extra voxel of padding in
    front, as its own input gradient needs it.
    """
    n, depth, height, width, channels = x.shape
    kd, kh, kw, _, features = kernel.shape
    offsets = taps(kd, mirrored)
    x = lax.optimization_barrier(x)
    if 2 * channels <= features or channels <= _FEW_CHANNELS:
        inputs = lax.optimization_barrier(_stacked(x, offsets, 1)).reshape(n * depth, height, width, kd * channels)
        flat = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kd * channels, features)
        block = 4 if channels <= _FEW_CHANNELS else 1
        y = _conv2d(inputs, flat, mirrored, block).reshape(n, depth, height, width, features)
    else:
        flat = kernel.transpose(1, 2, 3, 0, 4).reshape(kh, kw, channels, kd * features)
        outputs = kd * features
        block = 4 if outputs <= 8 else 2 if outputs < _ENOUGH_OUTPUTS else 1
        by_tap = _conv2d(x.reshape(n * depth, height, width, channels), flat, mirrored, block)
        by_tap = by_tap.reshape(n, depth, height, width, outputs)
        parts = [lax.slice_in_dim(by_tap, i * features, (i + 1) * features, axis=4) for i in range(kd)]
        y = functools.reduce(jnp.add, [shifted(part, offset, 1) for part, offset in zip(parts, offsets, strict=True)])
    result: jax.Array = lax.optimization_barrier(y)
    return result


def _stacked(x: jax.Array, offsets: list[int], axis: int) -> jax.Array:
    """`x` once for each offset along `axis`, the copies side by side as channels."""
    return x if len(offsets) == 1 else lax.concatenate([shifted(x, offset, axis) for offset in offsets], x.ndim - 1)


def weight_gradient(x: jax.Array, g: jax.Array, size: tuple[int, int, int], mirrored: bool = False) -> jax.Array:
    """Gradient of `sum(g * convolution(x, kernel, mirrored))` with respect to a kernel of `size`: `(*size, C, F)`.

    That is `out[a, b, c] = sum over voxels p of x[p + (a, b, c) - before]^T g[p]`: a 2D convolution over depth and rows
    whose window is a whole plane of them, samples and columns being its channels. The side with fewer channels is the
    image, each of its channels a sample; the other one is the kernel, with the column taps stacked as outputs.
    """
    x, g = lax.optimization_barrier((x, g))
    channels, features = x.shape[-1], g.shape[-1]
    depths, rows, columns = (taps(edge, mirrored) for edge in size)
    if channels <= _FEW_CHANNELS:
        return _weight_gradient_of_few(x, g, size, mirrored)
    # x[p + s] g[p] summed over p is x[q] g[q - s] summed over q: a shift of either side, mirrored on the other.
    exchange = channels > features
    image, window, sign = (g, x, 1) if exchange else (x, g, -1)
    n, depth, height, width, _ = x.shape
    image = lax.optimization_barrier(image.transpose(4, 1, 2, 0, 3).reshape(-1, depth, height, n * width))
    window = _stacked(window.transpose(1, 2, 0, 3, 4), [sign * offset for offset in columns], 3)
    window = lax.optimization_barrier(window).reshape(depth, height, n * width, -1)
    ends = [(-offsets[0], offsets[-1]) for offsets in (depths, rows)]
    padding = [(after, before) for before, after in ends] if exchange else ends
    sums = lax.conv_general_dilated(image, window, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    sums = sums.reshape(len(image), len(depths), len(rows), len(columns), -1)
    return sums[:, ::-1, ::-1].transpose(1, 2, 3, 4, 0) if exchange else sums.transpose(1, 2, 3, 0, 4)


def _weight_gradient_of_few(x: jax.Array, g: jax.Array, size: tuple[int, int, int], mirrored: bool) -> jax.Array:
    """The same by one matrix product. With so few channels, the shifted copies for all taps together are still small."""
    channels, features = x.shape[-1], g.shape[-1]
    rows = jnp.moveaxis(x, 4, 0)[None]  # channels first: each tap is then one long copy
    for axis, edge in zip((3, 4, 5), size, strict=True):
        offsets = taps(edge, mirrored)
        rows = lax.optimization_barrier(lax.concatenate([shifted(rows, offset, axis) for offset in offsets], 0))
    product = rows.reshape(-1, g.size // features) @ g.reshape(-1, features)
    return product.reshape(*size[::-1], channels, features).transpose(2, 1, 0, 3, 4)
