"""Whether positions lie in their volume, and what most likely went wrong when they do not."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.annotations.columns import LARGEST_LABEL
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import note

if TYPE_CHECKING:
    from robpicker_jax.annotations.format import Format
    from robpicker_jax.annotations.particles import Particles

FARTHEST_VOX = 1e9
"""Beyond this a number is no position in a tomogram, in whatever unit and however it was shifted."""

_MOST_BINNING = 20  # pixels of a tilt series per voxel of a tomogram


def inside(positions_vox: np.ndarray, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """Which positions (n, 3) x y z lie in one of the voxels of a volume: −0.5 <= position < size − 0.5 on each axis."""
    size_xyz = np.array(shape_zyx[::-1])
    return np.asarray(np.all((positions_vox >= -0.5) & (positions_vox < size_xyz - 0.5), axis=1))


def nearest_voxel(positions_vox: np.ndarray) -> np.ndarray:
    """The voxel that each position lies in, as whole numbers: floor(position + 0.5), in the positions' order of axes.

    A position half-way between two voxels belongs to the upper one, as `inside` has it.
    """
    return np.asarray(np.floor(positions_vox + 0.5).astype(np.int64))


def in_mask(positions_vox: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether the voxel nearest to each position (n, 3) x y z lies in a mask (z, y, x); False outside the volume."""
    voxels = nearest_voxel(positions_vox[:, ::-1])
    found = np.all((voxels >= 0) & (voxels < mask.shape), axis=1)
    found[found] = mask[tuple(voxels[found].T)] != 0
    return np.asarray(found, dtype=bool)


FRACTIONS = "all coordinates lie between 0 and 1: they are fractions of the box"
"""How a note or a refusal of a list in fractions begins."""


def are_fractions(positions_vox: np.ndarray) -> bool:
    """Whether positions (n, 3) are fractions of the box, as Warp's template matching writes them, and not voxels.

    No particle has its centre within a voxel of the volume's corner, let alone every particle of a list; whole numbers
    alone are left as they are.
    """
    if not len(positions_vox) or positions_vox.min() < 0 or positions_vox.max() > 1:
        return False
    return bool((positions_vox != np.rint(positions_vox)).any())


def in_voxels(positions: np.ndarray, size_xyz: np.ndarray | None, where: Path | str) -> np.ndarray:
    """Positions (n, 3) that are fractions of the box in voxels, with a note; others as they are.

    Args:
        positions: (n, 3) x y z.
        size_xyz: size of the volume or of each particle's, (3,) or (n, 3) voxels; None where it is not known.
        where: the list, for messages.

    Raises:
        InputError: fractions of a box whose size is not known.
    """
    if not are_fractions(positions):
        return positions
    if size_xyz is None:
        raise InputError(f"{FRACTIONS}, whose size is not known", where=where, fix="give the volume, or its shape")
    note(f"{FRACTIONS}, and multiplied by its size", where=where)
    scaled: np.ndarray = positions * np.broadcast_to(size_xyz, positions.shape)
    return scaled


def check_size(positions_vox: np.ndarray, where: Path | str) -> None:
    """Refuse positions so far away that no tomogram can hold them.

    Raises:
        InputError: the first of them and its row.
    """
    far = np.flatnonzero(np.abs(positions_vox).max(axis=1, initial=0.0) > FARTHEST_VOX)
    if len(far):
        x, y, z = positions_vox[far[0]]
        raise InputError(
            f"row {far[0] + 1}: {x:g} {y:g} {z:g} voxels (x y z) is no position in a tomogram",
            where=where,
            fix="correct the file",
        )


def check_writable(particles: Particles, fmt: Format, where: Path | str) -> None:
    """Refuse to write what the format's own reader would refuse, or take for something else.

    Raises:
        InputError: a position that is none, a class label that the format cannot hold, or a cluster's size that is none.
    """
    check_size(particles.positions_vox, where)
    largest = int(particles.labels.max(initial=0))
    if "labels" in fmt.keeps and largest > fmt.largest_label:
        raise InputError(
            f"class label {largest}: {fmt.title} holds labels up to {fmt.largest_label}",
            where=where,
            fix="number the classes from 1, or use another format",
        )
    sizes = particles.cluster_sizes
    wrong = np.flatnonzero([]) if sizes is None else np.flatnonzero((sizes < 0) | (sizes > LARGEST_LABEL))
    if sizes is not None and len(wrong) and "cluster_sizes" in fmt.keeps:
        raise InputError(f"particle {wrong[0] + 1}: {sizes[wrong[0]]} voxels are no size of a cluster", where=where)


def check_inside(
    positions_vox: np.ndarray,
    shape_zyx: tuple[int, int, int],
    where: Path | str,
    voxel_size_angstrom: float | None = None,
) -> None:
    """Refuse positions outside the volume.

    Args:
        positions_vox: (n, 3) x y z.
        shape_zyx: size of the volume.
        where: the annotation file, for the message.
        voxel_size_angstrom: voxel size, so that positions in Å are recognised.

    Raises:
        InputError: how many lie outside, the first of them, the volume's size, and the likeliest reason.
    """
    ok = inside(positions_vox, shape_zyx)
    if ok.all():
        return
    first = int(np.flatnonzero(~ok)[0])
    x, y, z = positions_vox[first]
    depth, height, width = shape_zyx
    raise InputError(
        f"{np.count_nonzero(~ok)} of {len(ok)} positions lie outside the volume of {width} x {height} x {depth} voxels "
        f"(x y z), the first in row {first + 1}: {x:g} {y:g} {z:g}",
        where=where,
        fix=likely_reason(positions_vox, shape_zyx, voxel_size_angstrom) or "remove them or correct the file",
    )


def likely_reason(
    positions_vox: np.ndarray, shape_zyx: tuple[int, int, int], voxel_size_angstrom: float | None
) -> str | None:
    """The simplest reading of the positions that puts all of them inside the volume, as a hint; None if there is none.

    It needs more than one position to say anything, and never changes a position.
    """
    if len(positions_vox) < 2:
        return None
    if inside(positions_vox - 1, shape_zyx).all():
        return "they would fit if the file counted from 1: subtract 1"
    for order in permutations(range(3)):
        if order != (0, 1, 2) and inside(positions_vox[:, order], shape_zyx).all():
            return f"they would fit if the columns were {' '.join('xyz'[order.index(k)] for k in range(3))}, not x y z"
    size_xyz = np.array(shape_zyx[::-1])
    if positions_vox.min() < -0.5:
        centred = inside(positions_vox + size_xyz / 2, shape_zyx).all()
        return "they would fit if they were measured from the volume's centre" if centred else None
    least = float(np.max(positions_vox / (size_xyz - 0.5)))
    readings = [f"pixels at least {least:.3g} times smaller (unbinned coordinates)"] if least <= _MOST_BINNING else []
    if voxel_size_angstrom and inside(positions_vox / voxel_size_angstrom, shape_zyx).all():
        readings.insert(0, f"Å (voxels of {voxel_size_angstrom:g} Å)")
    return f"they would fit if they were in {' or in '.join(readings)}" if readings else None
