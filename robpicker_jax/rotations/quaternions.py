"""Unit quaternions (w, x, y, z) and rotation matrices, any number of axes before them; by SciPy's `Rotation`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def matrices_from_quaternions(quaternions: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrices (…, 3, 3) of quaternions (…, 4) in the order w, x, y, z; their length does not count.

    Raises:
        ValueError: a quaternion of length zero.
    """
    from scipy.spatial.transform import Rotation

    given = np.asarray(quaternions, np.float64)
    if not given.size:  # SciPy before 1.16 refuses to make no rotation at all
        return np.zeros((*given.shape[:-1], 3, 3))
    matrices = Rotation.from_quat(given.reshape(-1, 4), scalar_first=True).as_matrix()
    return np.asarray(matrices, np.float64).reshape(*given.shape[:-1], 3, 3)


def quaternions_from_matrices(matrices: ArrayLike) -> NDArray[np.float64]:
    """Unit quaternions (…, 4), w, x, y, z with w ≥ 0, of rotation matrices (…, 3, 3).

    Raises:
        ValueError: a matrix whose determinant is not positive.
    """
    from scipy.spatial.transform import Rotation

    given = np.asarray(matrices, np.float64)
    if not given.size:
        return np.zeros((*given.shape[:-2], 4))
    quaternions = Rotation.from_matrix(given.reshape(-1, 3, 3)).as_quat(canonical=True, scalar_first=True)
    return np.asarray(quaternions, np.float64).reshape(*given.shape[:-2], 4)
