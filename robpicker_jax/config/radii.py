"""Radii of species that are given in Å, turned into voxels before anything else looks at them.

    radius_vox = radius_angstrom / voxel size

The voxel size is `data.voxel_size_angstrom`; for simulated data it is `simulation.voxel_size_angstrom`, and for a
copick project `data.copick.voxel_spacing_angstrom` serves as well. A radius on the command line replaces that of the
file, whichever unit either has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from robpicker_jax.config.data_sections import SimulationConfig
from robpicker_jax.system.errors import InputError

_SAME = 0.005
"""Radii in voxels and in Å agree where they differ by no more than this share: either may be rounded."""

_RADIUS = re.compile(r"(data\.species\.\d+\.radius_)(vox|angstrom)")


def replaced_radii(keys: Sequence[str]) -> list[str]:
    """The keys of radii that others on the command line replace, being the same radius in the other unit."""
    found = [match for key in keys if (match := _RADIUS.fullmatch(key))]
    others = [match[1] + ("angstrom" if match[2] == "vox" else "vox") for match in found]
    return [other for other in others if other not in keys]


def with_radii(
    data: Mapping[str, Any], source: object, *, stated: tuple[str, float | None] | None = None
) -> dict[str, Any]:
    """A configuration's values with every species' radius in voxels.

    What cannot be read as it should be is left alone: the check of types, which comes after, says what is wrong.

    Args:
        data: nested values, as in YAML.
        source: where they come from, for messages.
        stated: the key that should state the voxel size, and the voxel size in Å; by default `voxel_size(data)`.

    Raises:
        InputError: a radius in Å without a voxel size, or a species with two radii that disagree.
    """
    result = dict(data)
    section = data.get("data")
    species = section.get("species") if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or not isinstance(species, list):
        return result
    key, size = stated or voxel_size(data)
    entries = [
        _in_voxels(entry, f"data.species.{number}", key, size, source) if isinstance(entry, Mapping) else entry
        for number, entry in enumerate(species)
    ]
    return result | {"data": {**section, "species": entries}}


def voxel_size(data: Mapping[str, Any]) -> tuple[str, float | None]:
    """The voxel size in Å that a configuration's values state, None where they do not, and the key that should."""
    key, section = "data.voxel_size_angstrom", data["data"]
    simulation, copick = data.get("simulation"), section.get("copick")
    size = section.get("voxel_size_angstrom")
    if section.get("dir") is None:
        key = "simulation.voxel_size_angstrom"
        size = simulation.get("voxel_size_angstrom") if isinstance(simulation, Mapping) else None
        size = SimulationConfig().voxel_size_angstrom if size is None else size
    elif size is None and isinstance(copick, Mapping):
        size = copick.get("voxel_spacing_angstrom")
    return key, float(size) if _is_length(size) else None


def _in_voxels(entry: Mapping[str, Any], where: str, key: str, size: float | None, source: object) -> dict[str, Any]:
    result = dict(entry)
    angstrom, vox = result.pop("radius_angstrom", None), result.get("radius_vox")
    if angstrom is None:
        return result
    if not _is_length(angstrom):
        raise InputError(f"{where}.radius_angstrom: must be a positive number, got {angstrom!r}", where=source)
    if size is None:
        raise InputError(
            f"{where}.radius_angstrom: the voxel size that makes voxels of it is not given",
            where=source,
            fix=f"set {key}",
        )
    radius = float(angstrom) / size
    if vox is None:
        return result | {"radius_vox": radius}
    if _is_length(vox) and abs(vox - radius) > _SAME * radius:
        raise InputError(
            f"{where}: radius_vox {vox:g} and radius_angstrom {angstrom:g}, which is {radius:.4g} voxels of {size:g} Å, "
            "contradict each other",
            where=source,
            fix="keep one of them",
        )
    return result


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
