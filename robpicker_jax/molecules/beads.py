"""Gold beads: what has the highest contrast in many tomograms and is no particle."""

from __future__ import annotations

import numpy as np

from robpicker_jax.molecules.phantoms import PROTEIN_DENSITY

_GOLD_OVER_PROTEIN = 8.0
"""Density of gold over that of protein, in effect: about the ratio of their mean inner potentials above that of ice."""

_SAMPLES = 4  # in each voxel, along each axis


def bead_density(diameter_angstrom: float, voxel_size_angstrom: float) -> np.ndarray:
    """A gold bead on a cubic grid centred on its middle voxel.

    Args:
        diameter_angstrom: its diameter.
        voxel_size_angstrom: of the grid.

    Returns:
        float32 (n, n, n) with n odd, in Da/Å³ of protein of the same contrast; voxels on the rim are partly filled.
    """
    radius = diameter_angstrom / 2 / voxel_size_angstrom
    half = int(np.ceil(radius + 0.5))
    n = 2 * half + 1
    axis = (np.arange(n * _SAMPLES) + 0.5) / _SAMPLES - 0.5 - half
    inside = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2 <= radius**2
    filled = inside.reshape(n, _SAMPLES, n, _SAMPLES, n, _SAMPLES).mean(axis=(1, 3, 5))
    return np.asarray(_GOLD_OVER_PROTEIN * PROTEIN_DENSITY * filled, np.float32)
