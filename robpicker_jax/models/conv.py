"""3D convolution, pooling and upsampling, channels last: one definition, lowered per platform.

A convolution here is `lax.conv_general_dilated` with stride 1 and "SAME" padding; kernels of 1 to 5 voxels an
edge, odd or even. XLA's own 3D convolution is slow on CPU, so there depth is folded into the channels and one
2D convolution over `(n*D, H, W, kd*C)` does the work. GPU and TPU take the native channels-last convolution.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Lowering = Literal["folded", "native"]


def same_padding(size: int) -> tuple[int, int]:
    """Voxels of zero padding before and after one axis for a kernel of `size` ("SAME" of XLA, stride 1)."""
    return (size - 1) // 2, size // 2


def _native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def fold_depth(x: jax.Array, size: int) -> jax.Array:
    """`(n, D, H, W, C)` to `(n*D, H, W, size*C)`: each slice with its depth neighbours as further channels."""
    n, depth, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), same_padding(size), (0, 0), (0, 0), (0, 0)))
    folded = jnp.concatenate([padded[:, i : i + depth] for i in range(size)], axis=-1) if size > 1 else x
    return folded.reshape(n * depth, height, width, size * channels)


def _folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    kd, kh, kw, channels, features = kernel.shape
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kd * channels, features)
    y = lax.conv_general_dilated(fold_depth(x, kd), flat, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(*x.shape[:4], features)


def conv3d(x: jax.Array, kernel: jax.Array, *, lowering: Lowering | None = None) -> jax.Array:
    """3D convolution with stride 1 and "SAME" zero padding.

    Args:
        x: `(n, z, y, x, C)`.
        kernel: `(kz, ky, kx, C, F)`.
        lowering: "folded" or "native"; None takes the platform's.

    Returns:
        `(n, z, y, x, F)`.
    """
    if kernel.shape[:3] == (1, 1, 1):
        return x @ kernel[0, 0, 0]
    lowering = lowering or ("folded" if jax.default_backend() == "cpu" else "native")
    return _folded(x, kernel) if lowering == "folded" else _native(x, kernel)


def transposed_conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2 with a 2×2×2 kernel, as a matrix product and a reshape.

    Args:
        x: `(n, z, y, x, C)`.
        kernel: `(2, 2, 2, C, F)`; `out[2z+a, 2y+b, 2x+c] = x[z, y, x] @ kernel[a, b, c]`.

    Returns:
        `(n, 2z, 2y, 2x, F)`.
    """
    n, depth, height, width, _ = x.shape
    y = jnp.einsum("nzyxc,abdcf->nzaybxdf", x, kernel)
    return y.reshape(n, 2 * depth, 2 * height, 2 * width, kernel.shape[-1])


def max_pool3d(x: jax.Array) -> jax.Array:
    """2× max-pool of `(n, z, y, x, C)`; z, y and x even. Tied maxima share the gradient equally."""
    n, depth, height, width, channels = x.shape
    return x.reshape(n, depth // 2, 2, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4, 6))


def upsample_nearest3d(x: jax.Array) -> jax.Array:
    """Each voxel of `(n, z, y, x, C)` repeated twice along z, y and x."""
    n, depth, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :, None], (n, depth, 2, height, 2, width, 2, channels))
    return wide.reshape(n, 2 * depth, 2 * height, 2 * width, channels)
