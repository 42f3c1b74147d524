"""Radii of classes that a user gives in Å or in voxels."""

from __future__ import annotations

from collections.abc import Sequence

from robpicker_jax.system.errors import InputError


def in_voxels(
    vox: Sequence[float] | None,
    angstrom: Sequence[float] | None,
    voxel_size_angstrom: float | None,
    *,
    names: tuple[str, str] = ("--radii", "--radii-angstrom"),
    size: str = "--voxel-size",
) -> list[float] | None:
    """The radii in voxels, None where there are none.

    Args:
        vox, angstrom: radii in either unit; one of them at most.
        voxel_size_angstrom: voxel size in Å, None where it is not known.
        names: what the user calls the two, for messages.
        size: where the user gives the voxel size, for messages.

    Raises:
        InputError: radii in both units, a radius that is no positive number, or radii in Å without a voxel size.
    """
    if vox is not None and angstrom is not None:
        raise InputError(f"{names[0]} and {names[1]} both give the radii", fix="leave one of them out")
    if vox is not None:
        return list(_positive(vox, names[0]))
    if angstrom is None:
        return None
    radii = _positive(angstrom, names[1])
    if voxel_size_angstrom is None:
        fix = f"give {size}, or {names[0]} in voxels"
        raise InputError("the voxel size that makes voxels of Å is not known", where=names[1], fix=fix)
    return [radius / voxel_size_angstrom for radius in radii]


def _positive(radii: Sequence[float], where: str) -> Sequence[float]:
    for radius in radii:
        if not 0 < radius < float("inf"):
            raise InputError(f"{radius:g} is no radius", where=where, fix="give positive numbers")
    return radii
