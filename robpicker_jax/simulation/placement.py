"""Random placement of particles without overlap.

A particle's outline is a set of equal balls, one for a round particle, several along an elongated one, so that
crowded samples can be packed as densely as real ones. Two particles are apart when all their balls are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

_BALLS = (1, 2, 3, 4, 6, 8)
_ROUNDS = 16  # of rejection sampling, before free voxels are listed
_RESTARTS = 5
_TRIES = 8  # orientations tried for a particle that fits nowhere


@dataclass(frozen=True)
class Outline:
    """The space that a particle occupies: balls of one radius.

    Attributes:
        centres: (k, 3) centres, x y z from the particle's position, in its reference frame, voxels.
        radius: of each ball, voxels.
    """

    centres: np.ndarray
    radius: float

    @classmethod
    def ball(cls, radius: float) -> Outline:
        """One ball about the position."""
        return cls(np.zeros((1, 3)), float(radius))


def outline(density: np.ndarray, *, level: float = 0.1, margin_vox: float = 1.0) -> Outline:
    """The balls that cover a density, as many as leave the least volume.

    Args:
        density: odd cube.
        level: fraction of its maximum above which a voxel counts.
        margin_vox: what the union is widened by when volumes are compared, about half of the gap between particles.
    """
    zyx = np.argwhere(density >= level * density.max())
    points = (zyx - (np.array(density.shape) - 1) / 2)[:, ::-1]
    half = int(np.ceil(np.abs(points).max() + np.linalg.norm(points, axis=1).max()))
    axis = np.arange(-half, half + 1, 2.0)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    best, least = Outline.ball(np.linalg.norm(points, axis=1).max()), float("inf")
    for k in _BALLS:
        if k >= len(points):
            break
        centres = np.zeros((1, 3))
        if k > 1:  # seeded: the outline of a density is always the same
            centres = scipy.cluster.vq.kmeans2(points, k, minit="++", rng=np.random.default_rng(k))[0]
        radius = float(scipy.spatial.cKDTree(centres).query(points)[0].max())
        volume = float(np.count_nonzero(scipy.spatial.cKDTree(centres).query(grid)[0] < radius + margin_vox))
        if volume < 0.95 * least:  # more balls cost time: they must save volume
            best, least = Outline(centres, radius), volume
    return best


def place_particles(
    shape_zyx: Sequence[int],
    outlines: Sequence[Outline],
    copies: Sequence[int],
    rng: np.random.Generator,
    *,
    min_gap_vox: float = 1.0,
) -> Particles:
    """Place particles without overlap at uniformly random positions, in uniformly random orientations.

    Random sequential adsorption, the bulkiest species first: a particle's orientation is drawn once, then a position from
    those where it still fits. Every outline lies inside the volume. While there is room, positions are drawn and rejected;
    when few are accepted any more, the free voxels are listed and drawn from; when none is left, everything starts
    again, up to five times.

    Args:
        shape_zyx: the volume, voxels.
        outlines: of each species.
        copies: how many of each species; species k gets label k + 1.
        rng: source of randomness.
        min_gap_vox: smallest gap between the outlines of two particles.

    Returns:
        The particles in random order, with labels and rotations.

    Raises:
        InputError: the volume is too thin for a species, or too full.
    """
    shape_xyz = np.array(tuple(shape_zyx)[::-1], float)
    for attempt in range(_RESTARTS):
        try:
            return _place_once(shape_xyz, outlines, copies, rng, min_gap_vox)
        except InputError:  # an unlucky start can jam a crowded volume
            if attempt == _RESTARTS - 1:
                raise
    raise AssertionError("unreachable")


def _place_once(
    shape_xyz: np.ndarray, outlines: Sequence[Outline], copies: Sequence[int], rng: np.random.Generator, gap: float
) -> Particles:
    balls: list[tuple[np.ndarray, float]] = []  # centres and radius of all placed balls, one entry a species
    positions, rotations, labels = [np.zeros((0, 3))], [np.zeros((0, 3, 3))], [np.zeros(0, np.int32)]
    bulk = [len(o.centres) * o.radius**3 for o in outlines]
    for species in sorted(range(len(outlines)), key=lambda k: -bulk[k]):
        count = int(copies[species])
        if count == 0:
            continue
        filler = _Filler(shape_xyz, outlines[species], balls, gap, rng, label=species + 1)
        placed, turned = filler.place(count)
        positions.append(placed)
        rotations.append(turned)
        labels.append(np.full(count, species + 1, np.int32))
        balls.append((filler.own, outlines[species].radius))
    order = rng.permutation(sum(map(len, labels)))
    return Particles(
        np.concatenate(positions)[order], np.concatenate(labels)[order], rotations=np.concatenate(rotations)[order]
    )


class _Filler:
    """Places the particles of one species among those placed before."""

    def __init__(
        self,
        shape_xyz: np.ndarray,
        outline_: Outline,
        balls: list[tuple[np.ndarray, float]],
        gap: float,
        rng: np.random.Generator,
        label: int,
    ) -> None:
        self.shape, self.outline, self.rng, self.label = shape_xyz, outline_, rng, label
        self.others = [(scipy.spatial.cKDTree(centres), radius + outline_.radius + gap) for centres, radius in balls]
        self.own_distance = 2 * outline_.radius + gap
        self.own = np.zeros((0, 3))  # centres of the species' balls so far
        self.blocked: np.ndarray | None = None

    def place(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        rotations = random_rotations(count, self.rng)
        positions = np.full((count, 3), np.nan)
        self._reject(positions, rotations)
        for index in np.flatnonzero(np.isnan(positions[:, 0])):
            for _ in range(_TRIES):
                position = self._search(rotations[index])
                if position is not None:
                    break
                rotations[index] = random_rotations(1, self.rng)[0]
            if position is None:
                self._refuse(int(np.isfinite(positions[:, 0]).sum()), count)
            positions[index] = position
        return positions, rotations

    def _refuse(self, placed: int, count: int) -> None:
        shape = tuple(int(edge) for edge in self.shape[::-1])
        raise InputError(
            f"only {placed} of {count} particles of class {self.label} fit into a volume of shape {shape}",
            where="simulation.shape_zyx",
            fix="lower the copies of the species, make the volume larger or lower simulation.min_gap_vox",
        )

    def _bounds(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest position at which balls at (..., k, 3) from it lie inside the volume."""
        radius = self.outline.radius
        return radius - offsets.min(axis=-2), self.shape - 1 - radius - offsets.max(axis=-2)

    def _is_free(self, centres: np.ndarray) -> np.ndarray:
        """Which bodies, balls at (n, k, 3), are clear of everything placed."""
        free = np.ones(len(centres), bool)
        own = [(scipy.spatial.cKDTree(self.own), self.own_distance)] if len(self.own) else []
        for tree, distance in [*self.others, *own]:
            left = np.flatnonzero(free)
            near = tree.query(centres[left], distance_upper_bound=distance)[0] < distance
            free[left] = ~near.any(axis=1)
        return free

    def _reject(self, positions: np.ndarray, rotations: np.ndarray) -> None:
        """Rejection sampling, a few draws for every particle not placed yet, in rounds."""
        for round_ in range(_ROUNDS):
            pending = np.flatnonzero(np.isnan(positions[:, 0]))
            if not len(pending):
                return
            who = np.repeat(pending, 4 if round_ < 4 else 16)
            offsets = np.einsum("nij,kj->nki", rotations[who], self.outline.centres)
            low, high = self._bounds(offsets)
            drawn = low + self.rng.random(low.shape) * (high - low)
            drawn[(high < low).any(axis=1)] = np.nan  # no room in this orientation
            keep = np.isfinite(drawn[:, 0])
            who, drawn, offsets = who[keep], drawn[keep], offsets[keep]
            keep = self._is_free(drawn[:, None] + offsets)
            who, drawn, offsets = who[keep], drawn[keep], offsets[keep]
            _, first = np.unique(who, return_index=True)
            who, drawn, centres = who[first], drawn[first], (drawn[:, None] + offsets)[first]
            chosen = _independent(centres, self.own_distance)
            positions[who[chosen]] = drawn[chosen]
            self.own = np.concatenate([self.own, centres[chosen].reshape(-1, 3)]).reshape(-1, 3)

    def _search(self, rotation: np.ndarray) -> np.ndarray | None:
        """A position for one particle from the list of all free voxels, None when there is none."""
        if self.blocked is None:
            self.blocked = np.zeros(self.shape[::-1].astype(int), bool)
            for tree, distance in self.others:
                for centre in tree.data:
                    _carve(self.blocked, centre, distance)
            for centre in self.own:
                _carve(self.blocked, centre, self.own_distance)
        offsets = self.outline.centres @ rotation.T
        low, high = self._bounds(offsets[None])
        start, stop = np.ceil(low[0]).astype(int), np.floor(high[0]).astype(int) + 1
        if (stop <= start).any():
            return None
        free = np.ones((stop - start)[::-1], bool)
        for shift in np.rint(offsets).astype(int):
            x, y, z = (slice(a + d, b + d) for a, b, d in zip(start, stop, shift, strict=True))
            free &= ~self.blocked[z, y, x]
        flat = np.flatnonzero(free)
        for pick in self.rng.permutation(flat)[:200] if len(flat) < 10**6 else self.rng.choice(flat, 200):
            zyx = np.array(np.unravel_index(int(pick), free.shape))
            voxel = zyx[::-1] + start
            jittered: np.ndarray = np.clip(voxel + self.rng.uniform(-0.5, 0.5, 3), low[0], high[0])
            for candidate in (jittered, voxel.astype(float)):
                centres = candidate + offsets
                if self._is_free(centres[None])[0]:
                    self.own = np.concatenate([self.own, centres])
                    for centre in centres:
                        _carve(self.blocked, centre, self.own_distance)
                    return candidate
        return None


def _independent(centres: np.ndarray, distance: float) -> np.ndarray:
    """Which bodies, balls at (n, k, 3), to keep so that each is clear of all kept before it."""
    n, k = centres.shape[:2]
    keep = np.ones(n, bool)
    if n > 1:
        pairs = scipy.spatial.cKDTree(centres.reshape(-1, 3)).query_pairs(distance, output_type="ndarray") // k
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        for first, second in pairs:
            if keep[first]:
                keep[second] = False
    return keep


def _carve(blocked: np.ndarray, centre_xyz: np.ndarray, distance: float) -> None:
    """Block the voxels closer than `distance` to the centre."""
    centre = centre_xyz[::-1]
    low = np.maximum(np.ceil(centre - distance).astype(int), 0)
    high = np.minimum(np.floor(centre + distance).astype(int) + 1, blocked.shape)
    if (high <= low).any():
        return
    z, y, x = (np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True))
    near = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < distance**2
    blocked[low[0] : high[0], low[1] : high[1], low[2] : high[2]] |= near
