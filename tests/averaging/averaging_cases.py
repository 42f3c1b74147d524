"""Particles with known maps and poses, for tests of averaging."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.averaging.frequencies import half_space, volume
from robpicker_jax.averaging.weights import Transfer, weight
from robpicker_jax.volumes.volume import ArrayReader

VOXEL = 16.0


def lumps(edge: int, seed: int = 0) -> np.ndarray:
    """An asymmetric, band-limited map: five Gaussian balls off the centre."""
    rng = np.random.default_rng(seed)
    axis = np.arange(edge) - edge // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    box = np.zeros((edge,) * 3)
    for _ in range(5):
        cx, cy, cz = rng.uniform(-edge / 6, edge / 6, 3)
        box += rng.uniform(0.5, 1) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 1.6**2))
    return box.astype(np.float32)


def gaussian_copies(edge: int, rotations: np.ndarray, offsets: np.ndarray, seed: int = 0) -> np.ndarray:
    """`lumps` turned and moved exactly, in closed form: the balls' centres are, r_tomogram = R r_reference + offset."""
    axis = np.arange(edge) - edge // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    copies = np.zeros((len(rotations), edge, edge, edge))
    for copy, rotation, offset in zip(copies, rotations, offsets, strict=True):
        rng = np.random.default_rng(seed)
        for _ in range(5):
            centre = rotation @ rng.uniform(-edge / 6, edge / 6, 3) + offset
            height = rng.uniform(0.5, 1)
            squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
            copy += height * np.exp(-squared / (2 * 1.6**2))
    return copies.astype(np.float32)


def wedged(copies: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Copies as a tomogram shows them: multiplied by its weight in Fourier space, by plain FFTs."""
    edge = copies.shape[-1]
    k = half_space(edge, 0.0, edge / 2)
    seen = np.asarray(weight(transfer.arrays(edge, VOXEL), jnp.asarray(k, jnp.float32)))
    result = []
    for copy in copies:
        spectrum = np.fft.fftn(np.fft.ifftshift(copy))
        x, y, z = (k % edge).T
        result.append(volume(spectrum[z, y, x] * seen, k, edge))
    return np.array(result)


def tomogram_of(
    copies: np.ndarray, centres_zyx: np.ndarray, shape_zyx: tuple[int, int, int], noise: float, seed: int = 0
) -> ArrayReader:
    """A volume with the copies added at whole voxels, and white noise."""
    rng = np.random.default_rng(seed)
    data = (noise * rng.standard_normal(shape_zyx)).astype(np.float32)
    edge = copies.shape[-1]
    for copy, centre in zip(copies, centres_zyx, strict=True):
        z, y, x = (slice(c - edge // 2, c - edge // 2 + edge) for c in centre.tolist())
        data[z, y, x] += copy
    return ArrayReader(Path("memory.mrc"), data, (VOXEL,) * 3)


def poses(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random rotations and offsets within half a voxel."""
    rng = np.random.default_rng(seed)
    return random_rotations(n, rng), rng.uniform(-0.5, 0.5, (n, 3))


def spline_copy(box: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """A map turned about voxel edge // 2 by SciPy's spline of order 3."""
    middle = box.shape[0] // 2
    back = rotation[::-1, ::-1].T  # z y x
    return ndimage.affine_transform(box, back, offset=middle - back @ np.full(3, middle), order=3)
