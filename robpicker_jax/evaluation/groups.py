"""Size groups of species: tiny, small, medium, large.

The limits are chosen so that SHREC 2019's species fall into the groups its results are reported in: tiny 1s3x 3qm1 3gl1
(43–85 kDa), small 3h84 2cg9 3d2f 1u6g (158–239 kDa), medium 3cf3 1bxn 1qvr (542–593 kDa), large 4b4t 4d8q
(above 1 MDa).
"""

from __future__ import annotations

from collections.abc import Sequence

SIZE_GROUPS = ("tiny", "small", "medium", "large")
GROUP_LIMITS_KDA = (100.0, 400.0, 1000.0)  # tiny below the first, large from the last on
GROUP_LIMITS_ANGSTROM = (35.0, 55.0, 75.0)  # radii; a coarse stand-in where no molecular weight is known


def size_group(molecular_weight_kda: float | None = None, *, radius_angstrom: float | None = None) -> str | None:
    """Size group by molecular weight, or by radius where the weight is unknown; None where both are.

    A weight or radius on a limit belongs to the larger group.
    """
    value, limits = molecular_weight_kda, GROUP_LIMITS_KDA
    if value is None:
        value, limits = radius_angstrom, GROUP_LIMITS_ANGSTROM
    if value is None:
        return None
    return SIZE_GROUPS[sum(value >= limit for limit in limits)]


def size_groups(
    molecular_weights_kda: Sequence[float | None] | None,
    radii_vox: Sequence[float] | None,
    voxel_size_angstrom: float | None,
    n_species: int,
) -> list[str | None]:
    """Size group of each species. Weights serve when all are known, else radii: the two are never mixed."""
    weights = list(molecular_weights_kda or [None] * n_species)
    if all(weight is not None for weight in weights):
        return [size_group(weight) for weight in weights]
    if radii_vox is not None and voxel_size_angstrom:
        return [size_group(radius_angstrom=radius * voxel_size_angstrom) for radius in radii_vox]
    return [size_group(weight) for weight in weights]
