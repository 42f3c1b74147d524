"""The species of a copick project, from the objects of its `copick_config.json`, for configurations that list none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robpicker_jax.system.errors import InputError


def with_species(data: Mapping[str, Any]) -> dict[str, Any]:
    """The section `data` with the project's particles as species, where `dir` is a project and no species is listed.

    Labels are the order of the objects; copick's radii are in Å, so that the voxel size is needed.

    Raises:
        InputError: the file cannot be read, an object has no radius, or the voxel size is not given.
    """
    result = dict(data)
    path = result.get("dir")
    if result.get("species") or not isinstance(path, str) or not path.lower().endswith(".json"):
        return result
    try:
        objects = json.loads(Path(path).read_bytes())["pickable_objects"]
        particles = [entry for entry in objects if entry.get("is_particle")]
        names = [str(entry["name"]) for entry in particles]
        radii = [entry.get("radius") for entry in particles]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("not a copick configuration", where=path, fix="give a copick_config.json") from None
    section = result.get("copick")
    spacing = section.get("voxel_spacing_angstrom") if isinstance(section, Mapping) else None
    spacing = spacing or result.get("voxel_size_angstrom")
    if not isinstance(spacing, int | float) or spacing <= 0:
        fix = "set data.copick.voxel_spacing_angstrom, or list data.species"
        raise InputError("copick's radii are in Å, and the voxel size is not given", where=path, fix=fix)
    for name, radius in zip(names, radii, strict=True):
        if not isinstance(radius, int | float) or not radius > 0:
            raise InputError(f"object {name!r} has no radius", where=path, fix="add it, or list data.species")
    result["species"] = [{"name": n, "radius_vox": float(r) / spacing} for n, r in zip(names, radii, strict=True)]
    return result
