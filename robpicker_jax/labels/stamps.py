"""Which voxels one particle covers: a sphere, or a mask turned into the particle's orientation.

The centre of a shape mask is its voxel `size // 2` on each axis, as in SHREC 2019's masks (40³, bounding boxes
centred on voxel 20 within half a voxel, all twelve) and in the simulations behind them. That voxel lands on the
particle's position, and the mask turns about it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

_BINARY_REACH = 0.87  # a trilinear value >= 0.5 of a 0/1 mask lies at most √3/2 from the hull of its ones
_SOFT_REACH = 1.74  # of a soft mask: at most one cell's diagonal from a voxel >= 0.5


class Stamp(Protocol):
    """The voxels of one particle of a species."""

    reach: float
    """No voxel further than this from the particle's position belongs to it, in voxels."""

    def inside(self, fraction_zyx: np.ndarray, rotation: np.ndarray | None) -> np.ndarray:
        """Voxels of the particle as int offsets (3, m), z y x, from the voxel nearest to its position.

        Args:
            fraction_zyx: (3,) position minus that voxel, within ±0.5.
            rotation: (3, 3) reference frame to tomogram frame, x y z.
        """


class Sphere:
    """Voxels whose centres lie within `radius` of the position."""

    def __init__(self, radius: float) -> None:
        self.reach = float(radius)
        self._squared = float(radius) ** 2
        self._offsets = _ball(radius + np.sqrt(3) / 2)
        self._float = self._offsets.astype(np.float64)
        self._whole = self._offsets[:, (self._float**2).sum(axis=0) <= self._squared]

    def inside(self, fraction_zyx: np.ndarray, rotation: np.ndarray | None) -> np.ndarray:
        if not fraction_zyx.any():  # most object lists hold positions in whole voxels
            return self._whole
        away = self._float - fraction_zyx[:, None]
        away *= away
        return self._offsets[:, away[0] + away[1] + away[2] <= self._squared]


class Point:
    """The one voxel nearest to the position."""

    reach = 0.5

    def inside(self, fraction_zyx: np.ndarray, rotation: np.ndarray | None) -> np.ndarray:
        return np.zeros((3, 1), np.int32)


class Shape:
    """Voxels where the rotated mask, interpolated trilinearly, is at least 0.5.

    Each candidate voxel is carried back into the mask's frame. Cells of the mask whose eight corners all lie on
    one side of 0.5 need no interpolation; a table knows them, and only the surface is interpolated.
    """

    def __init__(self, mask: np.ndarray) -> None:
        grid = np.clip(np.asarray(mask, dtype=np.float32), 0.0, 1.0)
        ones = np.argwhere(grid >= 0.5)
        centre = np.array(grid.shape) // 2
        radius = float(np.sqrt(((ones - centre) ** 2).sum(1).max()))
        self.reach = radius + (_BINARY_REACH if ((grid == 0) | (grid == 1)).all() else _SOFT_REACH)
        self._offsets = _ball(self.reach + np.sqrt(3) / 2)
        self._float = np.ascontiguousarray(self._offsets, dtype=np.float32)
        half = int(np.ceil(self.reach + np.sqrt(3))) + 1  # candidates carried back stay inside a cube of this half-edge
        edge = 2 * half + 1
        cube = np.zeros((edge, edge, edge), np.float32)
        low = np.maximum(centre - half, 0)
        high = np.minimum(centre + half + 1, grid.shape)
        middle = tuple(slice(a - c + half, b - c + half) for a, b, c in zip(low, high, centre, strict=True))
        cube[middle] = grid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        corners = [
            cube[z : edge - 1 + z, y : edge - 1 + y, x : edge - 1 + x] for z in (0, 1) for y in (0, 1) for x in (0, 1)
        ]
        least, most = np.minimum.reduce(corners), np.maximum.reduce(corners)
        cells = np.zeros((edge, edge, edge), np.uint8)  # 0 outside, 1 surface, 2 inside
        cells[:-1, :-1, :-1] = np.where(least >= 0.5, 2, np.where(most >= 0.5, 1, 0))
        self._cells, self._values = cells.ravel(), cube.ravel()
        self._half, self._edge = half, edge

    def inside(self, fraction_zyx: np.ndarray, rotation: np.ndarray | None) -> np.ndarray:
        # r_reference = Rᵀ r_tomogram in x y z; with the axes reversed, the same in z y x.
        back = np.eye(3) if rotation is None else rotation[::-1, ::-1].T
        at = back.astype(np.float32) @ self._float
        at += (self._half - back @ fraction_zyx).astype(np.float32)[:, None]
        z, y, x = at.astype(np.int32)  # all coordinates are positive: truncation is floor
        z *= self._edge
        z += y
        z *= self._edge
        z += x
        kind = self._cells.take(z)
        surface = np.flatnonzero(kind == 1)
        weight = at.take(surface, axis=1)
        weight -= np.floor(weight)
        kind[surface] = self._interpolate(weight, z[surface]) >= 0.5
        return self._offsets[:, kind > 0]

    def _interpolate(self, weight: np.ndarray, flat: np.ndarray) -> np.ndarray:
        wz, wy, wx = weight

        def value(start: np.ndarray) -> np.ndarray:
            return self._values.take(start)

        def line(start: np.ndarray) -> np.ndarray:
            return _between(value(start), value(start + 1), wx)

        def plane(start: np.ndarray) -> np.ndarray:
            return _between(line(start), line(start + self._edge), wy)

        return _between(plane(flat), plane(flat + self._edge**2), wz)


def _between(left: np.ndarray, right: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation: `share` of the way from `left` to `right`."""
    return np.asarray(left + share * (right - left))


def _ball(radius: float) -> np.ndarray:
    """Integer offsets (3, m), z y x, within `radius` of the origin."""
    r = int(np.floor(radius))
    axis = np.arange(-r, r + 1, dtype=np.int32)
    zz, yy, xx = np.meshgrid(axis, axis, axis, indexing="ij")
    keep = zz**2 + yy**2 + xx**2 <= radius**2
    return np.stack([zz[keep], yy[keep], xx[keep]])
