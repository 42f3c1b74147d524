"""What a search takes, known before it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robpicker_jax.matching.correlation import tile_shape


@dataclass(frozen=True)
class Cost:
    """Work and memory of a search.

    Attributes:
        window: size of the template's window, voxels.
        units: units of work of a tile, for the progress bar.
        held: bytes that the search takes as long as it is there.
        per_core: bytes that a tile takes further, for each voxel of its core.
        per_tile: likewise for each voxel of the tile, which the template's window makes larger.
        fixed: likewise, whatever the tile's size.
    """

    window: int
    units: int
    held: int
    per_core: int
    per_tile: int
    fixed: int = 0

    def bytes(self, core_zyx: Sequence[int]) -> int:
        """The most memory that a tile takes beside what the search holds, on all devices together."""
        tile = math.prod(tile_shape(core_zyx, self.window))
        return self.per_core * math.prod(core_zyx) + self.per_tile * tile + self.fixed
