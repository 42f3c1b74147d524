"""Where tiles lie, in which order they are predicted, and with which weight a tile's prediction counts at a voxel.

Tiles are taken in *layers* along z, within a layer in *rows* along y, within a row along x. Nothing later reaches the
planes (lines) before the next layer's (row's) start, so these are final and only what later tiles still reach is kept.
The last tile of an axis is moved back to the axis's end and may overlap its forerunner by nearly a whole tile; along z
the two are taken as one layer, so that what is kept from layer to layer is never more than the overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.system.errors import InputError

BLENDS = ("average", "gaussian")
_GAUSSIAN_SIGMA = 1 / 8  # of the tile's edge


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover an axis: a constant stride of tile − overlap, the last tile moved back to the end.

    An axis shorter than a tile gets one tile at 0 (it is mirrored at its far side).
    """
    if size <= tile:
        return [0]
    stride = tile - overlap
    return [*range(0, size - tile, stride), size - tile]


def number_of_tiles(shape_zyx: Sequence[int], tile: int, overlap_vox: int) -> int:
    """Tiles that `segment` will predict."""
    return int(np.prod([len(tile_starts(size, tile, overlap_vox)) for size in shape_zyx]))


def window(tile: int, blend: str) -> np.ndarray:
    """Weights (tile,) float32 of a tile's prediction along one axis; a voxel's weight is their product over the axes.

    `average` weighs all voxels of a tile the same. `gaussian` is exp(−½ (d/σ)²), d being the distance from the tile's
    centre and σ an eighth of its edge: predictions near a tile's faces, where the network sees half of the
    surroundings, count little.

    Raises:
        InputError: an unknown blend.
    """
    if blend not in BLENDS:
        raise InputError(f"unknown blend {blend!r}", fix=f"one of {', '.join(BLENDS)}")
    if blend == "average":
        return np.ones(tile, np.float32)
    distance = np.arange(tile) - (tile - 1) / 2
    weights: np.ndarray = np.exp(-0.5 * (distance / (_GAUSSIAN_SIGMA * tile)) ** 2).astype(np.float32)
    return weights


@dataclass(frozen=True)
class Tile:
    """One tile: its row (counted over the whole tomogram), and its first voxel."""

    row: int
    z: int
    y: int
    x: int


@dataclass(frozen=True)
class Row:
    """The tiles of one layer at one y.

    Attributes:
        z, y: first plane of the layer, line of the row.
        planes: planes of the layer that are final once its rows are done.
        lines: lines of the row that are final once it is done.
    """

    z: int
    y: int
    planes: int
    lines: int


@dataclass(frozen=True)
class TilePlan:
    """All tiles of a tomogram, in order.

    Attributes:
        shape_zyx: the tomogram's size.
        tile: edge of the tiles, voxels.
        starts: starts of the tiles along z, y, x.
        layers: the starts along z, those taken together in one tuple.
    """

    shape_zyx: tuple[int, int, int]
    tile: int
    starts: tuple[list[int], list[int], list[int]]
    layers: list[tuple[int, ...]]

    @property
    def padded(self) -> tuple[int, int, int]:
        """The tomogram's size, no axis shorter than a tile."""
        z, y, x = (max(size, self.tile) for size in self.shape_zyx)
        return z, y, x

    @property
    def height(self) -> int:
        """Planes of the highest layer."""
        return max(layer[-1] - layer[0] for layer in self.layers) + self.tile

    @property
    def carried(self) -> int:
        """Planes that a layer shares with those before it."""
        pairs = zip(self.layers, self.layers[1:], strict=False)
        return max((before[-1] + self.tile - after[0] for before, after in pairs), default=0)

    def rows(self) -> list[Row]:
        """The rows, in order."""
        following_z = [layer[0] for layer in self.layers[1:]] + [self.padded[0]]
        following_y = [*self.starts[1][1:], self.padded[1]]
        return [
            Row(layer[0], y, next_z - layer[0], next_y - y)
            for layer, next_z in zip(self.layers, following_z, strict=True)
            for y, next_y in zip(self.starts[1], following_y, strict=True)
        ]

    def tiles(self) -> list[Tile]:
        """The tiles, row by row."""
        rows = [(layer, y) for layer in self.layers for y in self.starts[1]]
        return [Tile(row, z, y, x) for row, (layer, y) in enumerate(rows) for z in layer for x in self.starts[2]]

    def total_weights(self, weights: np.ndarray) -> list[np.ndarray]:
        """Sum of the tiles' weights at each voxel, as three vectors whose product it is (tiles form a grid)."""
        totals = []
        for size, starts in zip(self.padded, self.starts, strict=True):
            total = np.zeros(size, np.float32)
            for start in starts:
                total[start : start + self.tile] += weights
            totals.append(total)
        return totals


def plan_tiles(shape_zyx: Sequence[int], tile: int, overlap_vox: int) -> TilePlan:
    """Lay tiles over a tomogram.

    Raises:
        InputError: an overlap that leaves no stride.
    """
    if not 0 <= overlap_vox < tile:
        raise InputError(f"overlap {overlap_vox} must be at least 0 and smaller than the tile {tile}")
    z, y, x = (int(size) for size in shape_zyx)
    starts = (tile_starts(z, tile, overlap_vox), tile_starts(y, tile, overlap_vox), tile_starts(x, tile, overlap_vox))
    layers: list[tuple[int, ...]] = [(start,) for start in starts[0]]
    if len(layers) > 1 and starts[0][-1] - starts[0][-2] < tile - overlap_vox:
        layers[-2:] = [(starts[0][-2], starts[0][-1])]
    return TilePlan((z, y, x), tile, starts, layers)
