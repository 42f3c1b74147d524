"""Self-attention within windows of a 3D grid of tokens, shifted in every second block (Liu et al. 2021, arXiv 2103.14030)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from robpicker_jax.models.layers import zeros

_MASKED = -1e9


class LayerNorm(nn.Module):
    """Normalisation of each token over its channels, in two passes; float32 at least inside."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", zeros, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + self.epsilon)
        return (normal * _beside(scale, x) + _beside(bias, x)).astype(x.dtype)


class Linear(nn.Module):
    """A linear map of the channels, in the compute dtype."""

    features: int
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", zeros, (x.shape[-1], self.features), jnp.float32)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.bias:
            y = y + _beside(self.param("bias", zeros, (self.features,), jnp.float32).astype(self.dtype), y)
        return y


class WindowBlock(nn.Module):
    """Attention within windows, then a network of two layers, each after layer norm and beside the identity.

    Attributes:
        heads: attention heads; they divide the channels.
        window: edge of a window, tokens; it divides the grid.
        shifted: windows moved by half an edge along the axes that have more than one.
        dtype: compute dtype; the softmax is float32 at least.
    """

    heads: int
    window: int
    shifted: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        grid, channels = x.shape[1:4], x.shape[-1]
        shifts = tuple(self.window // 2 if self.shifted and edge > self.window else 0 for edge in grid)
        y = jnp.roll(LayerNorm(name="norm0")(x), [-shift for shift in shifts], (1, 2, 3))
        y = self._attention(to_windows(y, self.window), grid, shifts)
        x = x + jnp.roll(from_windows(y, grid, self.window), shifts, (1, 2, 3))
        y = jax.nn.gelu(Linear(4 * channels, self.dtype, name="mlp0")(LayerNorm(name="norm1")(x)), approximate=False)
        return x + Linear(channels, self.dtype, name="mlp1")(y)

    def _attention(self, x: jax.Array, grid: tuple[int, ...], shifts: tuple[int, ...]) -> jax.Array:
        """softmax(q kᵀ / √d + b) v within each window of `x (n, windows, tokens, C)`, b by relative position."""
        n, windows, tokens, channels = x.shape
        qkv = Linear(3 * channels, self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(n, windows, tokens, 3, self.heads, -1), 3, 0)
        scores = jnp.einsum("nwthd,nwshd->nwhts", q, k) * q.shape[-1] ** -0.5
        scores = scores.astype(jnp.promote_types(self.dtype, jnp.float32))
        table = self.param("table", zeros, ((2 * self.window - 1) ** 3, self.heads), jnp.float32)
        scores = scores + jnp.moveaxis(table[relative_positions(self.window)], -1, 0)[None, None]
        if any(shifts):
            scores = scores + jnp.asarray(_MASKED * apart(grid, self.window, shifts), scores.dtype)[None, :, None]
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        out = jnp.einsum("nwhts,nwshd->nwthd", weights, v).reshape(n, windows, tokens, channels)
        return Linear(channels, self.dtype, name="out")(out)


def _beside(values: jax.Array, x: jax.Array) -> jax.Array:
    return jax.lax.expand_dims(values, range(x.ndim - 1))


def to_windows(x: jax.Array, window: int) -> jax.Array:
    """Tokens `(n, z, y, x, C)` by windows: `(n, windows, window³, C)`."""
    n, *grid, channels = x.shape
    z, y, w = (edge // window for edge in grid)
    x = x.reshape(n, z, window, y, window, w, window, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(n, z * y * w, window**3, channels)


def from_windows(x: jax.Array, grid: tuple[int, ...], window: int) -> jax.Array:
    """The inverse of `to_windows`."""
    n, channels = x.shape[0], x.shape[-1]
    z, y, w = (edge // window for edge in grid)
    x = x.reshape(n, z, y, w, window, window, window, channels).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(n, *grid, channels)


@functools.lru_cache
def relative_positions(window: int) -> np.ndarray:
    """Number of the relative position of each pair of a window's tokens, from 0 to (2 window − 1)³ − 1."""
    at = np.indices((window,) * 3).reshape(3, -1)
    difference = at[:, :, None] - at[:, None, :] + window - 1
    numbers: np.ndarray = np.ravel_multi_index(tuple(difference), (2 * window - 1,) * 3)
    return numbers


@functools.lru_cache
def apart(grid: tuple[int, ...], window: int, shifts: tuple[int, ...]) -> np.ndarray:
    """Pairs of tokens in a window of the rolled grid that are no neighbours in the image: `(windows, window³, window³)`.

    Rolling brings the grid's first tokens behind its last ones, into the last windows; they must not see each other.
    """
    regions = np.zeros(grid, int)
    for axis, (edge, shift) in enumerate(zip(grid, shifts, strict=True)):
        wrapped = np.arange(edge) >= edge - shift
        regions += (wrapped << axis).reshape([-1 if a == axis else 1 for a in range(3)])
    z, y, x = (edge // window for edge in grid)
    regions = regions.reshape(z, window, y, window, x, window).transpose(0, 2, 4, 1, 3, 5).reshape(z * y * x, -1)
    differ: np.ndarray = regions[:, :, None] != regions[:, None, :]
    return differ
