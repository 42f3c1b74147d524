"""Orientations of particles: Euler-angle conventions of the field, and rotation matrices.

One matrix says it all: R maps a vector (x, y, z) of the particle's reference frame (its average, density map or
mask) to the tomogram's frame, `r_tomogram = R r_reference + position`. With the active, right-handed elemental
rotations Rz(a) = [[cos a, −sin a, 0], [sin a, cos a, 0], [0, 0, 1]] and Rx, Ry likewise, and angles in the order
in which the files carry them:

| convention | angles | R | files |
| --- | --- | --- | --- |
| `deepfinder` | phi, psi, the | Rz(psi) Rx(the) Rz(phi) | DeepFinder's object lists; TOM, PyTom |
| `relion` | rot, tilt, psi | [Rz(rot) Ry(tilt) Rz(psi)]ᵀ = Rz(−psi) Ry(−tilt) Rz(−rot) | RELION, Warp, M |
| `dynamo` | tdrot, tilt, narot | [Rz(narot) Rx(tilt) Rz(tdrot)]ᵀ = Rz(−tdrot) Rx(−tilt) Rz(−narot) | Dynamo |

DeepFinder's own rotation of a mask samples the reference at Rz(−phi) Rx(−the) Rz(−psi) r, the inverse of the R
above. RELION's matrix of (rot, tilt, psi) (the ZYZ standard of Heymann, Chagoyen and Belnap 2005) and Dynamo's take
the particle to the reference, whence the transposes; Dynamo's manual says the same as "the template turns clockwise
about z, its new x, its new z".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robpicker_jax.system.errors import InputError

__all__ = ["CONVENTIONS", "euler_from_matrix", "matrix_from_euler", "random_rotations", "rotation_angle_deg"]

_GIMBAL = 1e-7  # below this sine of the middle angle the outer two cannot be told apart in float64


@dataclass(frozen=True)
class _Convention:
    """One convention: index of each angle in Rz(first + shift) Rx(middle) Rz(last − shift), or in its transpose.

    A shift of 90° turns Rx into Ry: Ry(b) = Rz(90°) Rx(b) Rz(−90°).
    """

    names: tuple[str, str, str]
    first: int
    middle: int
    last: int
    shift_deg: float
    transposed: bool


_TABLE = {
    "deepfinder": _Convention(("phi", "psi", "the"), first=1, middle=2, last=0, shift_deg=0.0, transposed=False),
    "relion": _Convention(("rot", "tilt", "psi"), first=0, middle=1, last=2, shift_deg=90.0, transposed=True),
    "dynamo": _Convention(("tdrot", "tilt", "narot"), first=2, middle=1, last=0, shift_deg=0.0, transposed=True),
}

CONVENTIONS: dict[str, tuple[str, str, str]] = {name: entry.names for name, entry in _TABLE.items()}
"""Names of the conventions, each with the names of its three angles in order."""


def _look_up(convention: str) -> _Convention:
    try:
        return _TABLE[convention]
    except KeyError:
        raise InputError(
            f"unknown Euler-angle convention {convention!r}", fix=f"use one of {', '.join(_TABLE)}"
        ) from None


def matrix_from_euler(angles_deg: ArrayLike, convention: str) -> NDArray[np.float64]:
    """Turn Euler angles into rotation matrices R (reference frame to tomogram frame).

    Args:
        angles_deg: (..., 3) angles in degrees, in the convention's order (see `CONVENTIONS`). NaN marks an
            unknown orientation and gives a matrix of NaN.
        convention: "deepfinder", "relion" or "dynamo"; the module's docstring has the formulas.

    Returns:
        (..., 3, 3) float64 matrices acting on column vectors (x, y, z).

    Raises:
        InputError: unknown convention, or a last axis that is not 3 long.
    """
    entry = _look_up(convention)
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim == 0 or angles.shape[-1] != 3:
        raise InputError(f"Euler angles of shape {angles.shape}; expected (..., 3)")
    a = np.deg2rad(angles[..., entry.first] + entry.shift_deg)
    b = np.deg2rad(angles[..., entry.middle])
    c = np.deg2rad(angles[..., entry.last] - entry.shift_deg)
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    matrix = np.empty((*angles.shape, 3))  # Rz(a) Rx(b) Rz(c), multiplied out
    matrix[..., 0, 0] = ca * cc - sa * cb * sc
    matrix[..., 0, 1] = -ca * sc - sa * cb * cc
    matrix[..., 0, 2] = sa * sb
    matrix[..., 1, 0] = sa * cc + ca * cb * sc
    matrix[..., 1, 1] = -sa * sc + ca * cb * cc
    matrix[..., 1, 2] = -ca * sb
    matrix[..., 2, 0] = sb * sc
    matrix[..., 2, 1] = sb * cc
    matrix[..., 2, 2] = cb
    matrix[np.isnan(angles).any(axis=-1)] = np.nan
    return np.swapaxes(matrix, -1, -2).copy() if entry.transposed else matrix


def euler_from_matrix(matrices: ArrayLike, convention: str) -> NDArray[np.float64]:
    """Turn rotation matrices R (reference frame to tomogram frame) into Euler angles.

    The middle angle comes out in [0, 180]°, the outer ones in (−180, 180]°. In gimbal lock (middle angle 0 or 180°)
    only a sum or difference of the outer two is defined: the convention's last factor (phi, psi, tdrot) is set to 0.

    Args:
        matrices: (..., 3, 3) rotation matrices; NaN marks an unknown orientation and gives NaN angles.
        convention: "deepfinder", "relion" or "dynamo"; the module's docstring has the formulas.

    Returns:
        (..., 3) float64 angles in degrees, in the convention's order.

    Raises:
        InputError: unknown convention, or a shape that does not end in (3, 3).
    """
    entry = _look_up(convention)
    matrix = np.asarray(matrices, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-2:] != (3, 3):
        raise InputError(f"rotation matrices of shape {matrix.shape}; expected (..., 3, 3)")
    if entry.transposed:
        matrix = np.swapaxes(matrix, -1, -2)
    sine = np.hypot(matrix[..., 2, 0], matrix[..., 2, 1])
    locked = sine < _GIMBAL
    shift = np.deg2rad(entry.shift_deg)
    in_plane = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])  # a + c where b = 0, a − c where b = 180°
    up = np.where(matrix[..., 2, 2] > 0, 1.0, -1.0)
    last = np.where(locked, -shift, np.arctan2(matrix[..., 2, 0], matrix[..., 2, 1]))
    first = np.where(locked, in_plane - up * last, np.arctan2(matrix[..., 0, 2], -matrix[..., 1, 2]))
    middle = np.where(locked, np.where(up > 0, 0.0, np.pi), np.arctan2(sine, matrix[..., 2, 2]))
    angles = np.empty(matrix.shape[:-1])
    angles[..., entry.first] = _wrap_deg(np.rad2deg(first) - entry.shift_deg)
    angles[..., entry.middle] = np.rad2deg(middle)
    angles[..., entry.last] = _wrap_deg(np.rad2deg(last) + entry.shift_deg)
    angles[np.isnan(matrix).any(axis=(-1, -2))] = np.nan
    return angles


def random_rotations(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw n rotations uniformly over SO(3), as (n, 3, 3) matrices: random unit quaternions (Shoemake 1992)."""
    q = rng.standard_normal((n, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0).copy()


def rotation_angle_deg(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64] | np.float64:
    """Angle, in degrees within [0, 180], of the rotation that takes `first` to `second`, both (..., 3, 3)."""
    relative = np.swapaxes(np.asarray(first, dtype=np.float64), -1, -2) @ np.asarray(second, dtype=np.float64)
    # From the skew part and the trace together: arccos of the trace alone loses half the digits near 0 and 180°.
    skew = relative - np.swapaxes(relative, -1, -2)
    sine = np.sqrt(skew[..., 0, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 2] ** 2) / 2
    cosine = (np.trace(relative, axis1=-2, axis2=-1) - 1) / 2
    angle: NDArray[np.float64] | np.float64 = np.rad2deg(np.arctan2(sine, cosine))
    return angle


def _wrap_deg(angles: NDArray[np.float64] | np.float64) -> NDArray[np.float64] | np.float64:
    """Bring angles into (−180, 180]."""
    wrapped = 180.0 - np.mod(180.0 - angles, 360.0)
    # The remainder of a number just below zero is rounded up to 360 itself.
    return np.where(wrapped <= -180.0, 180.0, wrapped)
