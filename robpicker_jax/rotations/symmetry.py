"""Point groups of particles: their rotations, the asymmetric unit of orientations, symmetrised volumes.

The axes are those of Heymann, Chagoyen and Belnap (2005): Cn has its n-fold axis along z, Dn a 2-fold one along x too; T and I
have 2-fold axes along x, y and z, O has 4-fold axes along them. I is their setting in which the 5-fold axes nearest to z
lie in the x–z plane (RELION's I2).
"""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robpicker_jax.rotations.quaternions import matrices_from_quaternions
from robpicker_jax.rotations.volumes import oversample, rotate_volume
from robpicker_jax.system.errors import InputError

_GOLDEN = (1 + math.sqrt(5)) / 2
_SAME = 1e-6  # quaternions nearer than this are one rotation


def point_group(name: str) -> NDArray[np.float64]:
    """The rotations (order, 3, 3) of a point group; the first is the identity.

    Args:
        name: Cn or Dn with n ≥ 1, T, O or I; lower case too.

    Raises:
        InputError: an unknown name.
    """
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})|([TOI])", name.strip().upper())
    if match is None:
        raise InputError(f"unknown symmetry {name!r}", fix="one of C1, C2, …, D2, D3, …, T, O, I")
    x2, z2 = np.array([0.0, 1, 0, 0]), np.array([0.0, 0, 0, 1])
    diagonal = np.array([0.5, 0.5, 0.5, 0.5])  # a third of a turn about (1, 1, 1)
    if match[3] is None:
        half = math.pi / int(match[2])
        generators = [np.array([math.cos(half), 0, 0, math.sin(half)])] + [x2] * (match[1] == "D")
    elif match[3] == "T":
        generators = [x2, z2, diagonal]
    elif match[3] == "O":
        generators = [np.array([1.0, 0, 0, 1]) / math.sqrt(2), diagonal]
    else:
        fifth = math.pi / 5
        axis = np.array([1.0, 0, _GOLDEN]) / math.hypot(1, _GOLDEN)
        generators = [x2, z2, diagonal, np.concatenate([[math.cos(fifth)], math.sin(fifth) * axis])]
    return _closure(generators)


def _closure(generators: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All products of the generators, as matrices."""
    found = [np.array([1.0, 0, 0, 0])]
    waiting = list(found)
    while waiting:
        current = waiting.pop()
        for generator in generators:
            product = _product(current, generator)
            if all(abs(abs(float(product @ known)) - 1) > _SAME for known in found):
                found.append(product)
                waiting.append(product)
    return matrices_from_quaternions(np.array(found))


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    w, v, s, u = left[0], left[1:], right[0], right[1:]
    return np.concatenate([[w * s - v @ u], w * u + s * v + np.cross(v, u)])


def asymmetric_unit(rotations: ArrayLike, symmetry: str) -> NDArray[np.bool_]:
    """Which rotations lie in the asymmetric unit of orientations of a symmetric particle, bool (n,).

    R and R g are the same picture for every g of the point group. Kept are those that turn by no more than any of
    their equivalents, tr R ≥ tr R g; on the common faces of two units both are kept.
    """
    matrices = np.asarray(rotations, np.float64)
    group = point_group(symmetry)
    inside = np.ones(len(matrices), bool)
    own = np.trace(matrices, axis1=1, axis2=2)
    for element in group[1:]:
        inside &= own >= np.einsum("nij,ji->n", matrices, element) - 1e-9
    return inside


def nearest_equivalent(rotations: ArrayLike, reference: ArrayLike, symmetry: str) -> NDArray[np.float64]:
    """Of each rotation's equivalents R g the one nearest to the reference, (n, 3, 3); `reference` is (3, 3) or (n, 3, 3)."""
    matrices, near = np.asarray(rotations, np.float64), np.asarray(reference, np.float64)
    equivalents = matrices[:, None] @ point_group(symmetry)[None]
    traces = np.einsum("ngij,nij->ng", equivalents, np.broadcast_to(near, matrices.shape))
    return np.asarray(equivalents[np.arange(len(matrices)), np.argmax(traces, axis=1)])


def symmetrise(volume: ArrayLike, symmetry: str) -> NDArray[np.float32]:
    """The mean of a cube over a point group's rotations about voxel `size // 2`, float32."""
    group = point_group(symmetry)
    data = np.asarray(volume, np.float32)
    if len(group) == 1:
        return data.copy()
    fine = oversample(data, 2)
    turned = jax.jit(lambda rotation: rotate_volume(fine, rotation, oversampling=2))
    total = sum(np.asarray(turned(jnp.asarray(element, jnp.float32)), np.float64) for element in group)
    return np.asarray(total / len(group), np.float32)
