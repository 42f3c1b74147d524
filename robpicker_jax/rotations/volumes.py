"""Volumes turned about voxel `size // 2`, in JAX: trilinear weights on a grid that Fourier padding made finer."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike


def oversample(volume: ArrayLike, factor: int) -> jax.Array:
    """A volume on a finer grid by zero padding of its Fourier transform; voxel j of the result lies at j / factor.

    The volume counts as periodic: leave a rim of zeros where it does not fade out.

    Args:
        volume: real (z, y, x).
        factor: fine voxels in one voxel along each axis, at least 1.

    Returns:
        float32 (factor·z, factor·y, factor·x); every `factor`-th voxel is the volume's own.
    """
    data = np.asarray(volume, np.float64)
    if factor == 1:
        return jnp.asarray(data, jnp.float32)
    spectrum = np.fft.fftn(data)
    for axis, size in enumerate(data.shape):
        spectrum = np.moveaxis(spectrum, axis, 0)
        padded = np.zeros((factor * size, *spectrum.shape[1:]), complex)
        positive = (size + 1) // 2
        padded[:positive] = spectrum[:positive]
        padded[factor * size - size // 2 :] = spectrum[positive:]
        if size % 2 == 0:  # the Nyquist frequency belongs to both ends in equal parts
            padded[factor * size - size // 2] /= 2
            padded[size // 2] = padded[factor * size - size // 2]
        spectrum = np.moveaxis(padded, 0, axis)
    return jnp.asarray(np.fft.ifftn(spectrum).real * factor**3, jnp.float32)


def sample_trilinear(volume: jax.Array, coordinates: jax.Array) -> jax.Array:
    """Values of a volume (z, y, x) at fractional voxels (3, …), by trilinear weights; beyond its faces it is 0.

    Between a face and one voxel beyond it the value fades to 0.
    """
    padded = jnp.pad(volume, 1)
    shape = padded.shape
    limits = jnp.asarray(volume.shape, coordinates.dtype).reshape(3, *[1] * (coordinates.ndim - 1))
    at = jnp.clip(coordinates, -1.0, limits) + 1.0
    whole = jnp.minimum(jnp.floor(at), limits)
    fraction = at - whole
    z, y, x = whole.astype(jnp.int32)
    fz, fy, fx = fraction
    flat = padded.reshape(-1)
    start = (z * shape[1] + y) * shape[2] + x
    row, plane = shape[2], shape[1] * shape[2]

    def value(offset: int) -> jax.Array:
        return jnp.asarray(jnp.take(flat, start + offset, mode="clip"))

    def line(offset: int) -> jax.Array:
        first = value(offset)
        return jnp.asarray(first + fx * (value(offset + 1) - first))

    def face(offset: int) -> jax.Array:
        first = line(offset)
        return jnp.asarray(first + fy * (line(offset + row) - first))

    front = face(0)
    return jnp.asarray(front + fz * (face(plane) - front))


def rotate_volume(
    volume: jax.Array,
    rotation: jax.Array,
    shift_zyx: jax.Array | None = None,
    *,
    oversampling: int = 1,
    shape: Sequence[int] | None = None,
) -> jax.Array:
    """Turn a volume about its voxel `size // 2` and move it: result(r) = volume(Rᵀ (r − c − shift) + c₀).

    Args:
        volume: (z, y, x), or what `oversample` made of it.
        rotation: (3, 3), R acting on x, y, z.
        shift_zyx: (3,) in voxels of the result; none: 0.
        oversampling: fine voxels of `volume` in a voxel of the result.
        shape: size of the result, whose centre c is its voxel `size // 2`; by default that of the volume before it was
            made finer.

    Returns:
        (z, y, x); 0 where the turned volume does not reach. Differentiable in rotation and shift.
    """
    source = [size // oversampling for size in volume.shape]
    target = source if shape is None else list(shape)
    axes = [jnp.arange(size, dtype=volume.dtype) - size // 2 for size in target]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"))
    if shift_zyx is not None:
        grid = grid - shift_zyx.reshape(3, 1, 1, 1)
    # With the axes reversed, Rᵀ in x y z becomes the same in z y x.
    back = rotation[::-1, ::-1].T.astype(volume.dtype)
    centre = jnp.asarray([size // 2 for size in source], volume.dtype).reshape(3, 1, 1, 1)
    local = jnp.einsum("ij,jzyx->izyx", back, grid, precision="highest") + centre
    return sample_trilinear(volume, local * oversampling)
