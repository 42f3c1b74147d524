"""Layers that several backbones are made of, channels last."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.models.conv import conv3d, strided_conv3d, transposed_conv3d
from robpicker_jax.models.voxel_sums import voxel_spread

# Kernels start at zero here and are drawn by the network's `init`.
zeros = nn.initializers.zeros


class Conv(nn.Module):
    """A 3D convolution of `size`³ with an optional bias, in the compute dtype; `stride` is 1 or 2."""

    features: int
    size: int
    dtype: Any
    bias: bool = True
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", zeros, (self.size,) * 3 + (x.shape[-1], self.features), jnp.float32)
        convolve = conv3d if self.stride == 1 else strided_conv3d
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.bias:
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            y = y + voxel_spread(bias.astype(self.dtype), y.shape)
        return y


class TransposedConv(nn.Module):
    """2× upsampling by a transposed convolution of 2³ with stride 2 and a bias, in the compute dtype."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", zeros, (2, 2, 2, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        y = transposed_conv3d(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + voxel_spread(bias.astype(self.dtype), y.shape)


class GroupNorm(nn.Module):
    """Normalisation of each sample over its voxels and the channels of a group (Wu & He 2018, arXiv 1803.08494).

    It keeps no running statistics, and a patch is normalised alike whatever else is in the batch. There are `groups` groups,
    or as many fewer as divide the channels. Two passes: mean, then mean squared deviation.
    """

    groups: int = 8
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, channels = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        groups = math.gcd(self.groups, channels)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(n, -1, groups, channels // groups)
        centred = wide - jnp.mean(wide, axis=(1, 3), keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=(1, 3), keepdims=True) + self.epsilon)
        y = normal.reshape(x.shape)
        return (y * voxel_spread(scale, x.shape) + voxel_spread(bias, x.shape)).astype(x.dtype)


def wide_scores(scores: jax.Array) -> jax.Array:
    """Class scores in float32 at least."""
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
