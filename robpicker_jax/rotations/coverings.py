"""Sets of rotations that cover SO(3), or the surroundings of one rotation, evenly."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.rotations.quaternions import matrices_from_quaternions
from robpicker_jax.rotations.symmetry import asymmetric_unit, point_group
from robpicker_jax.system.errors import InputError

_SECOND = 1.533751168755204288118041  # the positive root of ψ⁴ = ψ + 4
_LARGEST = 5_000_000


def rotation_count(step_deg: float) -> int:
    """Rotations of the covering at a step: ⌈8π² / step³⌉, the volume of SO(3) over that of a cube of this edge.

    15° takes 4,401 and 7° 43,298, close to the sets of HEALPix directions with in-plane angles at the same step.

    Raises:
        InputError: a step that is not in (0, 180]°, or so small that the set has more than five million rotations.
    """
    if not 0 < step_deg <= 180:
        raise InputError(f"an angular step of {step_deg:g}°", fix="give more than 0 and at most 180 degrees")
    count = math.ceil(8 * math.pi**2 / math.radians(step_deg) ** 3)
    if count > _LARGEST:
        raise InputError(f"an angular step of {step_deg:g}° takes {count:,} rotations", fix="give a larger step")
    return count


def covering(step_deg: float, symmetry: str = "C1") -> NDArray[np.float64]:
    """Evenly spread rotations (n, 3, 3), those of the asymmetric unit alone where the particle is symmetric.

    They are a super-Fibonacci spiral of quaternions (Alexa, CVPR 2022) of `rotation_count(step_deg)` points: about every
    rotation lies within `step_deg` of one of them.

    Args:
        step_deg: angle between neighbours, degrees.
        symmetry: point group, see `point_group`.

    Raises:
        InputError: as `rotation_count` and `point_group`.
    """
    count = rotation_count(step_deg)
    s = np.arange(count) + 0.5
    inner, outer = np.sqrt(s / count), np.sqrt(1 - s / count)
    first, second = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / _SECOND
    quaternions = np.stack(
        [outer * np.cos(second), inner * np.sin(first), inner * np.cos(first), outer * np.sin(second)], axis=1
    )
    rotations = matrices_from_quaternions(quaternions)
    if len(point_group(symmetry)) == 1:
        return rotations
    kept = asymmetric_unit(rotations, symmetry)
    # A coarse set may miss a small unit altogether.
    return rotations[kept] if kept.any() else np.eye(3)[None]


def local_covering(reach_deg: float, step_deg: float) -> NDArray[np.float64]:
    """Small rotations (n, 3, 3) on a grid of rotation vectors within `reach_deg`, `step_deg` apart, the identity first."""
    steps = math.floor(reach_deg / step_deg + 1e-9)
    axis = np.arange(-steps, steps + 1) * math.radians(step_deg)
    vectors = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    angles = np.linalg.norm(vectors, axis=1)
    order = np.argsort(angles, kind="stable")
    order = order[angles[order] <= math.radians(reach_deg) * (1 + 1e-9)]
    vectors, angles = vectors[order], angles[order]
    scale = np.where(angles > 0, np.sin(angles / 2) / np.where(angles > 0, angles, 1), 0.5)
    return matrices_from_quaternions(np.column_stack([np.cos(angles / 2), vectors * scale[:, None]]))
