"""Analytic solids for phantoms: approximate signed distances, in Å, combined by union and subtraction.

A solid's `distance` takes coordinates x, y, z that broadcast against each other and gives the distance to its surface,
negative inside: exact for capsules, cylinders and tori, first-order for ellipsoids, which is all that a soft edge of a
few Å needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import scipy

Vector = tuple[float, float, float]
_FAR = np.float32(1e6)


@runtime_checkable
class Solid(Protocol):
    """Anything with a signed distance and a box that holds it."""

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance to the surface, negative inside."""
        ...

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (x, y, z) of a box that holds the solid."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid with semi-axes `radii`, its z axis turned to point along `axis`, then turned about it by `spin_deg`."""

    centre: Vector
    radii: Vector
    axis: Vector = (0.0, 0.0, 1.0)
    spin_deg: float = 0.0

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        frame = _frame(self.axis, self.spin_deg).astype(np.float32)
        offset = (x - self.centre[0], y - self.centre[1], z - self.centre[2])
        level = slope = np.float32(0)
        for row, radius in zip(frame, self.radii, strict=True):
            scaled = (row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) / np.float32(radius)
            level = level + scaled**2
            slope = slope + (scaled / np.float32(radius)) ** 2
        level, slope = np.sqrt(level), np.sqrt(slope)
        # First-order distance: (level − 1) over the length of level's gradient, slope / level.
        outside = level * (level - 1) / np.maximum(slope, np.float32(1e-6))
        return np.asarray(outside - (level < 1e-6) * np.float32(min(self.radii)))

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        half = np.sqrt(((_frame(self.axis, self.spin_deg) * np.array(self.radii)[:, None]) ** 2).sum(axis=0))
        return np.array(self.centre) - half, np.array(self.centre) + half


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` of the segment from `start` to `end`."""

    start: Vector
    end: Vector
    radius: float

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        along = np.subtract(self.end, self.start).astype(np.float32)
        dx, dy, dz = x - self.start[0], y - self.start[1], z - self.start[2]
        share = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / (along @ along), 0, 1)
        squared = (dx - share * along[0]) ** 2 + (dy - share * along[1]) ** 2 + (dz - share * along[2]) ** 2
        return np.asarray(np.sqrt(squared) - np.float32(self.radius))

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        return np.minimum(self.start, self.end) - self.radius, np.maximum(self.start, self.end) + self.radius


@dataclass(frozen=True)
class Cylinder:
    """Flat-ended cylinder about the z direction through `centre`."""

    centre: Vector
    radius: float
    half_height: float

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        side = np.hypot(x - self.centre[0], y - self.centre[1]) - np.float32(self.radius)
        end = np.abs(z - self.centre[2]) - np.float32(self.half_height)
        outside = np.hypot(np.maximum(side, 0), np.maximum(end, 0))
        return outside + np.minimum(np.maximum(side, end), 0)

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        half = np.array([self.radius, self.radius, self.half_height])
        return np.array(self.centre) - half, np.array(self.centre) + half


@dataclass(frozen=True)
class Torus:
    """Ring about the z direction through `centre`: all points within `tube` of a circle of `radius`."""

    centre: Vector
    radius: float
    tube: float

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        ring = np.hypot(x - self.centre[0], y - self.centre[1]) - np.float32(self.radius)
        return np.hypot(ring, z - self.centre[2]) - np.float32(self.tube)

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        half = np.array([self.radius + self.tube, self.radius + self.tube, self.tube])
        return np.array(self.centre) - half, np.array(self.centre) + half


def ring(count: int, radius: float, z: float, radii: Vector, turn_deg: float = 0.0) -> tuple[Ellipsoid, ...]:
    """`count` equal ellipsoids on a circle about z at height `z`; `radii` are radial, tangential and along z."""
    solids = []
    for k in range(count):
        angle = 2 * math.pi * k / count + math.radians(turn_deg)
        centre = (radius * math.cos(angle), radius * math.sin(angle), z)
        solids.append(Ellipsoid(centre, radii, spin_deg=math.degrees(angle)))
    return tuple(solids)


def occupancy(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, solids: Sequence[Solid], holes: Sequence[Solid], edge: float
) -> np.ndarray:
    """Share of matter (0 to 1) on the grid of three ascending axes: union of `solids` less `holes`.

    The edge is a step smoothed by a Gaussian of standard deviation `edge`: ½ erfc(d / (√2 edge)). A solid is evaluated
    only where it can matter, in its box widened by four `edge`.

    Returns:
        float32 (len(z), len(y), len(x)).
    """
    axes = [np.asarray(axis, np.float32) for axis in (x, y, z)]
    distance = np.full((len(z), len(y), len(x)), _FAR, np.float32)
    for parts, subtract in ((solids, False), (holes, True)):
        for part in parts:
            lower, upper = part.box
            cut = [
                slice(*np.searchsorted(axis, (low - 4 * edge, high + 4 * edge)))
                for axis, low, high in zip(axes, lower, upper, strict=True)
            ]
            px, py, pz = (axis[s] for axis, s in zip(axes, cut, strict=True))
            value = part.distance(px[None, None, :], py[None, :, None], pz[:, None, None])
            region = distance[cut[2], cut[1], cut[0]]
            if subtract:
                np.maximum(region, -value, out=region)
            else:
                np.minimum(region, value, out=region)
    return np.asarray(scipy.special.erfc(distance / np.float32(math.sqrt(2) * edge)) / 2)


def _frame(axis: Vector, spin_deg: float) -> np.ndarray:
    """Rows: the local x, y, z axes; z along `axis`, x and y turned about it by `spin_deg`."""
    z = np.asarray(axis, float)
    z = z / np.linalg.norm(z)
    x = np.array([1.0, 0.0, 0.0]) - z[0] * z
    if np.linalg.norm(x) < 1e-6:
        x = np.array([0.0, 1.0, 0.0]) - z[1] * z
    x = x / np.linalg.norm(x)
    y = np.cross(z, x)
    spin = math.radians(spin_deg)
    return np.stack([math.cos(spin) * x + math.sin(spin) * y, math.cos(spin) * y - math.sin(spin) * x, z])
