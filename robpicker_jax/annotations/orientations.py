"""Euler angles of files to rotation matrices and back, rows of unknown orientation being NaN."""

from __future__ import annotations

import numpy as np


def rotations_from_angles(angles_deg: np.ndarray, convention: str) -> np.ndarray:
    """Rotation matrices (n, 3, 3) of Euler angles (n, 3) in degrees; NaN where any angle of a row is NaN.

    `convention` is one of those of `robpicker_jax.geometry`.
    """
    from robpicker_jax.geometry import matrix_from_euler

    rotations = np.full((len(angles_deg), 3, 3), np.nan)
    known = np.isfinite(angles_deg).all(axis=1)
    rotations[known] = matrix_from_euler(angles_deg[known], convention)
    return rotations


def angles_from_rotations(rotations: np.ndarray, convention: str) -> np.ndarray:
    """Euler angles (n, 3) in degrees of rotation matrices (n, 3, 3); NaN where a matrix is unknown."""
    from robpicker_jax.geometry import euler_from_matrix

    angles = np.full((len(rotations), 3), np.nan)
    known = np.isfinite(rotations).all(axis=(1, 2))
    angles[known] = euler_from_matrix(rotations[known], convention)
    return angles
