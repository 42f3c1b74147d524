"""Alignment of subtomograms to a reference: every rotation's scores at every shift as one matrix product.

The score of rotation R and shift t is the normalised cross-correlation over the frequencies k of a band, in the tomogram's
frame, where weight W (missing wedge, CTF) is known:

    c(R, t) = Re Σ w W T(Rᵀk) e^{−2πi k·t / edge} F(k)* / √(Σ w W² |T(Rᵀk)|² · Σ w |F(k)|² [W > 0]),

F the subtomogram, T the masked reference, w whitening weights by shell. The reference is read at rotated frequencies once
for a set of rotations; with particles phase-shifted to each candidate t, all scores are the product of a matrix (rotations ×
frequencies) and one (frequencies × shifts). There are few frequencies below the reference's resolution (2,000 for a
radius of 10 Fourier voxels), which is why this is fast.

A global search tries a covering of SO(3), at no finer resolution and no finer shifts than its angular step can tell apart.
A local one is a pattern search: a small turn about each axis, its opposite and none are tried with all 27 shifts by a step
or none along each axis; the best is kept, a few times over, and then the steps are halved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.averaging.frequencies import LINEAR, at_whole, half_space, read, transform
from robpicker_jax.averaging.weights import Transfer, TransferArrays
from robpicker_jax.averaging.weights import weight as weight_at
from robpicker_jax.system.compilation import jit

_LOWEST_SHELL = 1.0  # k = 0 is the mean, which normalisation has made meaningless
_ROTATIONS_AT_ONCE = 512
_TRIALS_PER_LEVEL = 3


@dataclass(frozen=True, eq=False)
class Poses:
    """What an alignment found for each particle of a batch.

    Attributes:
        rotations: float64 (n, 3, 3), reference to tomogram frame.
        offsets: float64 (n, 3), the particle's distance from its box's centre, x y z, voxels.
        scores: float64 (n,), the cross-correlation.
    """

    rotations: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class LocalSearch:
    """Steps of a pattern search.

    Attributes:
        angle_deg: first angular step; 0 keeps the orientations.
        shift_vox: first step of the shift; 0 keeps the positions.
        levels: how many times steps are tried; each level halves them.
    """

    angle_deg: float
    shift_vox: float
    levels: int = 5


class Aligner:
    """Aligns subtomograms to one reference.

    Args:
        reference: (edge, edge, edge), filtered and masked, particle bright.
        resolution_angstrom: finer frequencies are not compared.
        voxel_size_angstrom: of reference and subtomograms.
        whitening: weight by shell, (edge // 2,); None: 1 everywhere.
        shift_limit_vox: largest distance of a particle from where it was listed, on each axis.
    """

    def __init__(
        self,
        reference: np.ndarray,
        resolution_angstrom: float,
        voxel_size_angstrom: float,
        *,
        whitening: np.ndarray | None = None,
        shift_limit_vox: float = 4.0,
    ) -> None:
        self.edge = edge = reference.shape[0]
        self.voxel_size_angstrom = voxel_size_angstrom
        high = band_limit(edge, voxel_size_angstrom, resolution_angstrom)
        self._band = (edge, _LOWEST_SHELL, high)
        k = half_space(*self._band)
        shells = np.floor(np.linalg.norm(k, axis=1) + 0.5).astype(int)
        weights = np.ones(edge // 2) if whitening is None else whitening
        self._w = jnp.asarray(weights[np.minimum(shells, edge // 2 - 1)], jnp.float32)
        self._table = transform(jnp.asarray(reference, jnp.float32), LINEAR)
        self.shift_limit_vox = shift_limit_vox

    def local(
        self,
        volumes: np.ndarray,
        offsets: np.ndarray,
        rotations: np.ndarray,
        transfer: Transfer,
        search: LocalSearch,
        *,
        drift: np.ndarray | None = None,
    ) -> Poses:
        """Refine given poses.

        Args:
            volumes: float32 (n, edge, edge, edge).
            offsets: (n, 3), where each particle is thought to be, from its box's centre, x y z, voxels.
            rotations: (n, 3, 3).
            transfer: of the tomogram.
            search: the steps.
            drift: (n, 3), how far each particle is from where it was listed already, which counts against the limit.
        """
        gone = np.zeros_like(offsets) if drift is None else drift
        run = _local(self._band, search.levels)
        steps = jnp.asarray([np.deg2rad(search.angle_deg), search.shift_vox, self.shift_limit_vox], jnp.float32)
        arrays = transfer.arrays(self.edge, self.voxel_size_angstrom)
        found = run(self._table, self._w, arrays, steps, volumes, _single(offsets), _single(rotations), _single(gone))
        return _poses(found)

    def globally(
        self,
        volumes: np.ndarray,
        offsets: np.ndarray,
        transfer: Transfer,
        rotations: np.ndarray,
        search: LocalSearch,
        *,
        drift: np.ndarray | None = None,
        step_vox: float = 1.0,
    ) -> Poses:
        """Search a set of rotations and all shifts within the limit, then locally around the best.

        Args:
            volumes, offsets, transfer, drift: as for `local`.
            rotations: (m, 3, 3), the set.
            search: steps of the local search that follows.
            step_vox: distance between neighbouring shifts.
        """
        gone = np.zeros_like(offsets) if drift is None else drift
        run = _global(self._band, shifts_within(self.shift_limit_vox, step_vox))
        count = len(rotations)
        size = min(_ROTATIONS_AT_ONCE, count)
        blocks = -(-count // size)
        filled = np.concatenate([rotations, np.repeat(rotations[:1], blocks * size - count, axis=0)])
        blocked = _single(filled).reshape(blocks, size, 3, 3)
        arrays = transfer.arrays(self.edge, self.voxel_size_angstrom)
        index, moved = run(self._table, self._w, arrays, blocked, volumes, _single(offsets), _single(gone))
        best = filled[np.asarray(index)]
        after = np.asarray(moved, np.float64)
        return self.local(volumes, after, best, transfer, search, drift=gone + after - offsets)


def band_limit(edge: int, voxel_size_angstrom: float, resolution_angstrom: float) -> float:
    """Radius of the band in Fourier voxels: whole numbers, so that iterations share compiled programs."""
    return float(np.clip(np.ceil(edge * voxel_size_angstrom / resolution_angstrom), 3, edge / 2))


@functools.lru_cache(maxsize=8)
def shifts_within(limit_vox: float, step_vox: float = 1.0) -> tuple[tuple[float, float, float], ...]:
    """All shifts on a grid of `step_vox` within a ball."""
    reach = int(limit_vox / step_vox)
    axis = np.arange(-reach, reach + 1) * step_vox
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[(grid**2).sum(1) <= limit_vox**2]
    return tuple((float(x), float(y), float(z)) for x, y, z in grid)


def _single(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def _poses(found: Sequence[Any]) -> Poses:
    rotations, offsets, scores = (np.asarray(part, np.float64) for part in found)
    # Single precision leaves a turned matrix a little off: the nearest rotation.
    left, _, right = np.linalg.svd(rotations)
    return Poses(left @ right, offsets, scores)


class _Scored:
    """One subtomogram at the frequencies of a band, ready to be compared."""

    def __init__(
        self, box: jax.Array, k: jax.Array, whole: np.ndarray, w: jax.Array, weight: jax.Array, edge: int
    ) -> None:
        self.k, self.edge, self.w, self.weight = k, edge, w, weight
        self.values = at_whole(box, whole)
        seen = weight != 0
        self.power = jnp.sum(w * seen * jnp.abs(self.values) ** 2)

    def shifted(self, shifts: jax.Array) -> jax.Array:
        """w W F(k) e^{2πi k·t / edge} as real numbers, (2 frequencies, shifts)."""
        phase = 2 * jnp.pi / self.edge * (self.k @ shifts.T)
        moved = (self.w * self.weight * self.values)[:, None] * jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
        return jnp.concatenate([moved.real, moved.imag], axis=0)

    def scores(self, turned: jax.Array, shifts: jax.Array) -> jax.Array:
        """Cross-correlations (rotations, shifts) of the reference read for each rotation, complex (rotations, k)."""
        norm = reference_power(turned, self.w, self.weight) * self.power
        return (stacked(turned) @ self.shifted(shifts)) / jnp.sqrt(jnp.maximum(norm, 1e-30))[:, None]


def reference_power(turned: jax.Array, w: jax.Array, weight: jax.Array) -> jax.Array:
    """Σ w W² |T|² of each rotation."""
    return jnp.abs(turned) ** 2 @ (w * weight**2)


def stacked(turned: jax.Array) -> jax.Array:
    """Complex (rotations, k) as real (rotations, 2 k)."""
    return jnp.concatenate([turned.real, turned.imag], axis=1)


def _turned(table: jax.Array, k: jax.Array, rotations: jax.Array) -> jax.Array:
    """The reference's transform at Rᵀk for each rotation, complex (rotations, k)."""
    return read(table, jnp.einsum("kj,rji->rki", k, rotations), LINEAR)


def _axis_angle(vectors: jax.Array) -> jax.Array:
    """Rotation matrices (n, 3, 3) of rotation vectors (n, 3), radians; Rodrigues' formula."""
    angle = jnp.sqrt(jnp.sum(vectors**2, axis=-1) + 1e-20)
    x, y, z = jnp.moveaxis(vectors / angle[..., None], -1, 0)
    zero = jnp.zeros_like(x)
    cross = jnp.stack([jnp.stack([zero, -z, y], -1), jnp.stack([z, zero, -x], -1), jnp.stack([-y, x, zero], -1)], -2)
    sine, cosine = jnp.sin(angle)[..., None, None], jnp.cos(angle)[..., None, None]
    return jnp.eye(3)[None] + sine * cross + (1 - cosine) * (cross @ cross)


# No step comes first in both, so that a tie moves nothing.
_SHIFTS = np.stack(np.meshgrid(*[[0.0, -1.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
_TURNS = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])


@functools.lru_cache(maxsize=32)
def _local(band: tuple[int, float, float], levels: int) -> Callable[..., Any]:
    """The pattern search of a batch, compiled."""
    edge, whole = band[0], half_space(*band)
    k = jnp.asarray(whole, jnp.float32)
    steps_down = jnp.repeat(0.5 ** jnp.arange(levels), _TRIALS_PER_LEVEL if levels > 1 else 1)

    def many(
        table: jax.Array,
        w: jax.Array,
        transfer: TransferArrays,
        steps: jax.Array,
        volumes: jax.Array,
        offsets: jax.Array,
        rotations: jax.Array,
        drift: jax.Array,
    ) -> Any:
        weight = weight_at(transfer, k)

        def one(row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
            box, offset, rotation, gone = row
            particle = _Scored(box, k, whole, w, weight, edge)

            def level(carry: tuple[jax.Array, jax.Array, jax.Array], scale: jax.Array) -> Any:
                turn, place, _ = carry
                turns = turn[None] @ _axis_angle(jnp.asarray(_TURNS) * (steps[0] * scale))
                places = place[None] + jnp.asarray(_SHIFTS) * (steps[1] * scale)
                scores = particle.scores(_turned(table, k, turns), places)
                too_far = jnp.any(jnp.abs(places + (gone - offset)[None]) > steps[2] + 1e-3, axis=1)
                too_far = too_far.at[0].set(False)
                scores = jnp.where(too_far[None, :], -jnp.inf, scores)
                best = jnp.argmax(scores)
                a, b = best // scores.shape[1], best % scores.shape[1]
                return (turns[a], places[b], scores[a, b]), None

            start = (rotation, offset, jnp.float32(0))
            return jax.lax.scan(level, start, steps_down)[0]

        return jax.lax.map(one, (volumes, offsets, rotations, drift))

    return jit(many)


@functools.lru_cache(maxsize=32)
def _global(
    band: tuple[int, float, float],
    shifts: tuple[tuple[float, float, float], ...],
) -> Callable[..., Any]:
    """The search of a batch over all rotations and shifts, compiled: index of the rotation, and the place."""
    edge, whole = band[0], half_space(*band)
    k, grid = jnp.asarray(whole, jnp.float32), jnp.asarray(shifts, jnp.float32)

    def many(
        table: jax.Array,
        w: jax.Array,
        transfer: TransferArrays,
        blocks: jax.Array,
        volumes: jax.Array,
        offsets: jax.Array,
        drift: jax.Array,
    ) -> Any:
        weight = weight_at(transfer, k)
        particles = [_Scored(box, k, whole, w, weight, edge) for box in volumes]
        power = jnp.stack([particle.power for particle in particles])
        # Positions are tried around where each was listed, so that the limit holds over all iterations.
        places = offsets[:, None] - drift[:, None] + grid[None]
        moved = jnp.stack([particle.shifted(places[i]) for i, particle in enumerate(particles)], axis=1)
        moved = moved.reshape(moved.shape[0], -1)  # so that one product serves all particles

        def block(carry: tuple[jax.Array, jax.Array], row: tuple[jax.Array, jax.Array]) -> Any:
            number, rotations = row
            turned = _turned(table, k, rotations)
            product = (stacked(turned) @ moved).reshape(len(rotations), len(particles), -1)
            norm = reference_power(turned, w, weight)[:, None] * power[None]
            scores = product / jnp.sqrt(jnp.maximum(norm, 1e-30))[..., None]
            scores = scores.transpose(1, 0, 2).reshape(len(particles), -1)
            index = jnp.argmax(scores, axis=1)
            best = jnp.take_along_axis(scores, index[:, None], axis=1)[:, 0]
            better = best > carry[0]
            flat = index.astype(jnp.int32) + number * scores.shape[1]
            return (jnp.where(better, best, carry[0]), jnp.where(better, flat, carry[1])), None

        first = jnp.full(len(particles), -jnp.inf), jnp.zeros(len(particles), jnp.int32)
        numbers = jnp.arange(blocks.shape[0], dtype=jnp.int32)
        (_, flat), _ = jax.lax.scan(block, first, (numbers, blocks))
        rotation, place = flat // len(shifts), flat % len(shifts)
        return rotation, jnp.take_along_axis(places, place[:, None, None], axis=1)[:, 0]

    return jit(many)
