"""Batch normalisation over samples and voxels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from robpicker_jax.models.voxel_sums import voxel_spread, voxel_sum


def _mean(x: jax.Array, device_axis: str | None) -> jax.Array:
    """Mean over all axes but the last, and over the devices along `device_axis`; float32 or wider."""
    mean = voxel_sum(x.astype(jnp.promote_types(x.dtype, jnp.float32))) / (x.size // x.shape[-1])
    return mean if device_axis is None else lax.pmean(mean, device_axis)


def _beside(values: jax.Array, x: jax.Array) -> jax.Array:
    """The values `(C,)` with as many axes as `x (..., C)`, of length one."""
    return lax.expand_dims(values, range(x.ndim - 1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: jax.Array, device_axis: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias` with the batch's own mean and variance per channel.

    The variance is the mean squared deviation, in two passes: `E[x²] - E[x]²` cancels where the mean is large.

    Args:
        x: `(..., C)`.
        scale: `(C,)`.
        bias: `(C,)`.
        epsilon: scalar.
        device_axis: axis of an enclosing `shard_map` or `pmap` whose devices share the statistics; None: none.

    Returns:
        The normalised array in the type of `x`, mean and biased variance `(C,)` in float32 (or wider, as `x`).
    """
    mean = _mean(x, device_axis)
    centred = x - _beside(mean, x)
    variance = _mean(centred * centred, device_axis)
    out = centred * _beside(scale * lax.rsqrt(variance + epsilon), x) + _beside(bias, x)
    return out.astype(x.dtype), mean, variance


@normalise.defjvp
def _normalise_jvp(device_axis: str | None, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> Any:
    """The tangent is written so that its transpose takes two sums over the voxels, Σg and Σg·(x - mean), no more."""
    x, scale, _, epsilon = primals
    dx, dscale, dbias, depsilon = tangents
    out, mean, variance = normalise(*primals, device_axis)
    inverse = lax.rsqrt(variance + epsilon)
    gain = scale * inverse
    centred = x - _beside(mean, x)
    dmean = _mean(dx, device_axis)
    half_dvariance = _mean(centred * dx, device_axis)
    slope = inverse * dscale - gain * inverse * inverse * (half_dvariance + 0.5 * depsilon)
    offset = dbias - gain * dmean
    dout = _beside(gain, x) * dx + centred * voxel_spread(slope, x.shape) + voxel_spread(offset, x.shape)
    return (out, mean, variance), (dout.astype(x.dtype), dmean, 2.0 * half_dvariance)


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics in the collection "batch_stats".

    Parameters and statistics are float32, whatever the type of the input.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    device_axis: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        if not train:
            gain = scale * lax.rsqrt(variance.value + self.epsilon)
            return ((x - _beside(mean.value, x)) * _beside(gain, x) + _beside(bias, x)).astype(x.dtype)
        out, batch_mean, batch_variance = normalise(
            x, scale, bias, jnp.asarray(self.epsilon, scale.dtype), self.device_axis
        )
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1.0 - self.momentum) * batch_mean
            variance.value = self.momentum * variance.value + (1.0 - self.momentum) * batch_variance
        return out
