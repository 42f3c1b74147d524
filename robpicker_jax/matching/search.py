"""Searching a whole tomogram tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from robpicker_jax.matching.correlation import tile_shape
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import MapStore, Tiling, Voxels, read_box


@runtime_checkable
class Search(Protocol):
    """Scores a tile; `ExactSearch` and `CascadeSearch` are such."""

    @property
    def template(self) -> Template: ...

    @property
    def rotations(self) -> np.ndarray: ...

    @property
    def maps(self) -> tuple[str, ...]: ...

    @property
    def cost(self) -> Cost: ...

    def tile(
        self, tile: np.ndarray, core_zyx: tuple[int, int, int], on_angles: Callable[[int], None] | None = None
    ) -> Mapping[str, np.ndarray]: ...


def search_volume(
    volume: Voxels,
    search: Search,
    tiling: Tiling,
    *,
    store: MapStore | None = None,
    mask: np.ndarray | None = None,
    on_units: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Score maps of a tomogram.

    Args:
        volume: the tomogram, with mean 0 and standard deviation 1.
        search: how a tile is scored.
        tiling: its division.
        store: where the maps are kept; finished tiles are not done again.
        mask: bool (z, y, x); tiles that it leaves out altogether are not searched: score 0, angle −1.
        on_units: called with the number of units of work just done, `search.cost.units` for each tile in all.

    Returns:
        The maps by name, (z, y, x), see `ExactSearch.tile`.
    """
    kept = store or MapStore(tiling.shape_zyx, search.maps)
    core, (first, last) = tiling.core_zyx, search.template.window
    before, shape = search.template.edge // 2 - first, tile_shape(core, last - first)
    for start in list(kept.waiting(tiling)):
        region, _ = tiling.region(start)
        if mask is not None and not mask[region].any():
            nothing = {
                name: np.full(core, -1 if name == "angles" else 0, stored.dtype) for name, stored in kept.maps.items()
            }
            kept.put(tiling, start, nothing)
            if on_units is not None:
                on_units(search.cost.units)
            continue
        box = read_box(volume, [at - before for at in start], shape)
        kept.put(tiling, start, search.tile(box, core, on_units))
    return kept.maps


def core_for(
    cost: Cost, shape_zyx: tuple[int, int, int], memory_bytes: int | None, largest: int = 256, rim_vox: int = 0
) -> Tiling:
    """The division with the largest tiles that fit into a part of memory, up to an edge of `largest` voxels."""
    edge = largest
    tiling = Tiling.of(shape_zyx, edge, rim_vox)
    while memory_bytes is not None and edge > 32 and cost.bytes(tiling.core_zyx) > memory_bytes:
        edge = int(edge * 0.8)
        tiling = Tiling.of(shape_zyx, edge, rim_vox)
    return tiling
