"""From particles to a sample: every density rotated, moved to its position and added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError


def draw_sample(shape_zyx: Sequence[int], particles: Particles, densities: Sequence[np.ndarray]) -> np.ndarray:
    """Add every particle's density, rotated and moved to its position (trilinear), to an empty volume.

    What reaches beyond the volume is cut off.

    Args:
        shape_zyx: the volume, voxels.
        particles: positions, labels from 1, and rotations, all known.
        densities: odd cubes, one a species in the order of the labels.

    Returns:
        float32 (z, y, x), in the unit of the densities.

    Raises:
        InputError: a label without a density.
        ValueError: unknown rotations.
    """
    check_labels(particles, len(densities))
    shape = np.array(tuple(shape_zyx))
    sample = np.zeros(shape, np.float32)
    if not len(particles):
        return sample
    if particles.rotations is None or not np.isfinite(particles.rotations).all():
        raise ValueError("every particle needs a rotation")
    flat = sample.reshape(-1)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    prepared: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, int]] = {}
    for position, label, rotation in zip(particles.positions_vox, particles.labels, particles.rotations, strict=True):
        if label not in prepared:
            prepared[label] = _prepare(densities[label - 1], strides)
        density, offsets, steps, half = prepared[label]
        centre = position[::-1]
        nearest = nearest_voxel(centre)
        # r_reference = Rᵀ r_tomogram; in z, y, x order both axes of Rᵀ are reversed.
        back = rotation.T[::-1, ::-1]
        start = (density.shape[0] - 1) / 2 - back @ (centre - nearest)
        if (nearest >= half).all() and (nearest + half < shape).all():
            local = back.astype(np.float32) @ offsets
            target = np.int64(nearest @ strides) + steps
        else:
            voxels = nearest[:, None] + offsets.astype(int)
            inside = ((voxels >= 0) & (voxels < shape[:, None])).all(axis=0)
            local = back.astype(np.float32) @ offsets[:, inside]
            target = steps[inside] + nearest @ strides
        local += start.astype(np.float32)[:, None]
        values = scipy.ndimage.map_coordinates(density, local, np.float32, order=1, mode="constant", prefilter=False)
        filled = np.flatnonzero(values)
        flat[target[filled]] += values[filled]  # a particle's voxels are distinct: no add.at needed
    return sample


def check_labels(particles: Particles, n_species: int) -> None:
    """Refuse particles whose label has no species."""
    bad = (particles.labels < 1) | (particles.labels > n_species)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"particle {first + 1} has class label {particles.labels[first]}, but there are {n_species} species",
            fix="list every class in data.species",
        )


def _prepare(density: np.ndarray, strides: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """What all particles of a species share.

    Returns:
        The density in a rim of zeros; the voxels that it can reach, as (3, m) offsets z y x and as steps in the flat
        volume; the largest offset.
    """
    padded = np.pad(np.asarray(density, np.float32), 1)
    filled = np.argwhere(density != 0) - (np.array(density.shape) - 1) / 2
    reach = (float(np.linalg.norm(filled, axis=1).max()) if len(filled) else 0.0) + np.sqrt(3)
    half = int(reach)
    axis = np.arange(-half, half + 1)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    ball = z**2 + y**2 + x**2 <= reach**2
    offsets = np.stack([z[ball], y[ball], x[ball]])
    return padded, offsets.astype(np.float32), strides @ offsets, half
