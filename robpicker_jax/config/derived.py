"""Defaults that follow the species' radii, where the user gives no value of his own.

A patch, a tile and an overlap that suit ribosomes do not suit ATPases. Sizes that are not given are taken from the
largest radius r, so that a patch shows a particle with its surroundings, and a particle that a tile cuts is whole in
the next one:

    patches.size            6 r, rounded up to a multiple of 16, at least 32; never more than a simulated tomogram
    patches.shift_vox       a fifth of the patch
    inference.overlap_vox   2 r + 2, at most half a tile (a tile is a patch unless inference.tile says otherwise)

`picking.min_cluster_vox` and `picking.min_distance_vox` follow the radii too, each species its own; see
`PickingConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from robpicker_jax.config.data_sections import SimulationConfig

_STRIDE = 16
"""Every preset of the U-Net halves a patch four times at most."""

_LEAST_PATCH = 32
_RADII_IN_PATCH = 6


def patch_edge(largest_radius_vox: float, most: int | None = None) -> int:
    """Edge of the patches for a largest radius; both in voxels. `most` bounds it, where that leaves a whole stride."""
    edge = max(_LEAST_PATCH, -(-math.ceil(_RADII_IN_PATCH * largest_radius_vox) // _STRIDE) * _STRIDE)
    return edge if most is None or most < _STRIDE else min(edge, most // _STRIDE * _STRIDE)


def overlap_of_tiles(largest_radius_vox: float, tile: int) -> int:
    """Overlap of the tiles for a largest radius; all in voxels."""
    return min(math.ceil(2 * largest_radius_vox) + 2, tile // 2)


def with_derived(data: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's values with the sizes filled in that were not given.

    What cannot be read as it should be is left alone: the check of types, which comes after, says what is wrong.
    """
    result = dict(data)
    radius = _largest_radius(data)
    if radius is None:
        return result
    patches, inference = data.get("patches") or {}, data.get("inference") or {}
    if not isinstance(patches, Mapping) or not isinstance(inference, Mapping):
        return result
    patches, inference = dict(patches), dict(inference)
    if patches.get("size") is None:
        patches["size"] = patch_edge(radius, _simulated_edge(data))
    size = patches["size"]
    tile = size if inference.get("tile") is None else inference["tile"]
    if patches.get("shift_vox") is None and _is_size(size):
        patches["shift_vox"] = size // 5
    if inference.get("overlap_vox") is None and _is_size(tile):
        inference["overlap_vox"] = overlap_of_tiles(radius, tile)
    return result | {"patches": patches, "inference": inference}


def _largest_radius(data: Mapping[str, Any]) -> float | None:
    section = data.get("data")
    species = section.get("species") if isinstance(section, Mapping) else None
    if not isinstance(species, list) or not species:
        return None
    radii = [entry.get("radius_vox") if isinstance(entry, Mapping) else None for entry in species]
    numbers = [float(radius) for radius in radii if isinstance(radius, int | float) and 0 < radius < math.inf]
    return max(numbers) if len(numbers) == len(radii) else None


def _simulated_edge(data: Mapping[str, Any]) -> int | None:
    """Shortest edge of the simulated tomograms; None where there are none."""
    if data["data"].get("dir") is not None:
        return None
    simulation = data.get("simulation")
    shape = simulation.get("shape_zyx") if isinstance(simulation, Mapping) else None
    shape = SimulationConfig().shape_zyx if shape is None else shape
    sizes = [size for size in shape if _is_size(size)] if isinstance(shape, list | tuple) else []
    return min(sizes, default=None)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
