"""What augmentations need so that one piece of code serves NumPy arrays and traced JAX arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray


def namespace(array: Array) -> Any:
    """`numpy` or `jax.numpy`: the module whose functions take this array."""
    return array.__array_namespace__()


def select(index: Array | np.bool | np.number[Any], options: Sequence[Array]) -> Array:
    """options[index]; on the host nothing but a choice between views, under `jit` a selection element by element."""
    if namespace(options[0]) is np:
        return options[int(index)]
    return jax.lax.select_n(index, *options)


def interpolated(patch: Array, at: Sequence[Array], *, nearest: bool) -> Array:
    """The values of a cube at places between its voxels: trilinear, or those of the nearest voxels.

    Args:
        patch: (n, n, n).
        at: float32 coordinates along z, y and x, of one shape, counted from the first voxel; beyond the last voxels nothing
            sensible is returned.
        nearest: whether values must not be mixed.

    Returns:
        Of the coordinates' shape and the cube's type.
    """
    xp, edge = namespace(patch), patch.shape[0]
    voxels = patch.reshape(-1)

    def value(z: Any, y: Any, x: Any) -> Any:
        return xp.take(voxels, (z * edge + y) * edge + x, mode="clip")

    if nearest:
        z, y, x = (xp.floor(c + np.float32(0.5)).astype(np.int32) for c in at)
        labels: Array = value(z, y, x)
        return labels
    low = [xp.floor(c) for c in at]
    wz, wy, wx = (c - floor for c, floor in zip(at, low, strict=True))
    z, y, x = (floor.astype(np.int32) for floor in low)

    def line_at(dz: int, dy: int) -> Any:
        left, right = value(z + dz, y + dy, x), value(z + dz, y + dy, x + 1)
        return left + wx * (right - left)

    def plane_at(dz: int) -> Any:
        near = line_at(dz, 0)
        return near + wy * (line_at(dz, 1) - near)

    near = plane_at(0)
    density: Array = (near + wz * (plane_at(1) - near)).astype(patch.dtype)
    return density


def uniforms(seed: Array, shape: Sequence[int], stream: int) -> Array:
    """Random numbers in (0, 1), float32, from a seed and the place in the array alone, the same by NumPy and by JAX.

    Whole arrays of random numbers need not be drawn on the host and sent to the device. Each place's number is hashed with
    the seed by MurmurHash3's finaliser (Appleby, public domain), twice.

    Args:
        seed: uint32 (2,).
        shape: of the result.
        stream: tells apart the arrays that one seed gives.
    """
    xp = namespace(seed)
    count = int(np.prod(shape))
    start = _hashed(seed[:1] + np.uint32(0x9E3779B9) * xp.full(1, stream + 1, np.uint32))
    place = xp.arange(count, dtype=np.uint32)
    mixed = _hashed(_hashed(place + start) ^ seed[1:])
    numbers: Array = ((mixed >> np.uint32(8)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
    return numbers.reshape(tuple(shape))


def normals(seed: Array, shape: Sequence[int], stream: int) -> Array:
    """Standard normal numbers, float32, by Box and Muller's transform of two arrays of `uniforms`."""
    xp = namespace(seed)
    radius = xp.sqrt(np.float32(-2) * xp.log(uniforms(seed, shape, 2 * stream)))
    numbers: Array = radius * xp.cos(np.float32(2 * np.pi) * uniforms(seed, shape, 2 * stream + 1))
    return numbers


def _hashed(x: Array) -> Array:
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
