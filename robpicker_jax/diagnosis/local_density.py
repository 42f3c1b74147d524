"""Density about given positions of a tomogram: how a position differs from its surroundings, radial profiles, centroids.

Volumes are averaged in blocks first, so that a particle's radius is four to eight blocks: that is enough to see it, and a
tomogram of any size takes about a second.
"""

from __future__ import annotations

import numpy as np

from robpicker_jax.annotations.bounds import nearest_voxel

_BLOCKS_PER_RADIUS = 4
_OFFSETS = 128  # voxels sampled of a ball or shell
DIRECTIONS = 48
_CHUNK = 4096
_RANDOM_POSITIONS = 800
RINGS = 33
REACH = 4.0  # profiles go out to this many radii


class LocalDensity:
    """A tomogram, sampled about positions.

    Args:
        density: (z, y, x) float32.
        mask: (z, y, x) bool, where random positions may lie; everywhere by default.
        seed: of the random positions.
    """

    def __init__(self, density: np.ndarray, mask: np.ndarray | None = None, *, seed: int = 0) -> None:
        self.shape_zyx = density.shape
        self._levels = {1: np.ascontiguousarray(density, np.float32)}
        self._mask, self._seed = mask, seed
        self._null: dict[float, tuple[float, float, float, float]] = {}

    def standard_contrast(self, positions_vox: np.ndarray, radius_vox: float) -> np.ndarray:
        """Mean density in a ball less that of the shell about it, in standard deviations over random positions.

        Args:
            positions_vox: (n, 3) x y z; positions outside count as their nearest voxel.
            radius_vox: radius of the ball; the shell goes from 1.5 to 2.2 radii.

        Returns:
            (n,) of mean 0 and standard deviation 1 over random positions; outliers such as gold beads are clipped at six
            times the median absolute deviation.
        """
        median, spread, mean, deviation = self._random_positions(radius_vox)
        clipped = np.clip((self.contrast(positions_vox, radius_vox) - median) / spread, -6, 6)
        return np.asarray((clipped - mean) / deviation)

    def contrast(self, positions_vox: np.ndarray, radius_vox: float) -> np.ndarray:
        """Mean density in the ball less that of the shell, (n,)."""
        factor = self._factor(radius_vox)
        ball = _offsets(0, radius_vox / factor)
        shell = _offsets(1.5 * radius_vox / factor, 2.2 * radius_vox / factor)
        return np.asarray(self._means(positions_vox, ball, factor) - self._means(positions_vox, shell, factor))

    def profile(self, positions_vox: np.ndarray, radius_vox: float) -> np.ndarray:
        """Mean density over particles and directions at `RINGS` distances from 0 to `REACH` radii, in the volume's
        standard deviations."""
        factor = self._factor(radius_vox)
        distances = np.linspace(0, REACH * radius_vox / factor, RINGS)
        offsets = (distances[:, None, None] * _sphere(DIRECTIONS)).reshape(-1, 3)
        values = self._mean_at_offsets(positions_vox, offsets, factor).reshape(RINGS, -1).mean(axis=1)
        return np.asarray(values / self._scale(factor))

    def centroid(self, positions_vox: np.ndarray, radius_vox: float, sign: float) -> np.ndarray:
        """Where the centre of the averaged particle lies, x y z, voxels from the picks.

        The average's excess over its surroundings weighs a ball of twice the radius.
        """
        factor = self._factor(radius_vox)
        offsets = _offsets(0, 2 * radius_vox / factor, most=4096).astype(np.float64)
        around = _offsets(2 * radius_vox / factor, 2.6 * radius_vox / factor)
        base = self._means(positions_vox, around, factor).mean()
        excess = sign * (self._mean_at_offsets(positions_vox, offsets, factor) - base)
        weights = np.maximum(excess - 0.3 * excess.max(), 0)  # so that noise does not count
        return np.asarray(factor * (weights @ offsets) / max(float(weights.sum()), 1e-12))

    def _random_positions(self, radius: float) -> tuple[float, float, float, float]:
        if radius not in self._null:
            rng = np.random.default_rng(np.random.SeedSequence((self._seed, 1)))
            if self._mask is not None and self._mask.any():
                inside = np.flatnonzero(self._mask)
                chosen = inside[rng.integers(len(inside), size=_RANDOM_POSITIONS)]
                positions = np.stack(np.unravel_index(chosen, self.shape_zyx), axis=1)[:, ::-1].astype(np.float64)
            else:
                positions = rng.random((_RANDOM_POSITIONS, 3)) * np.array(self.shape_zyx[::-1]) - 0.5
            values = self.contrast(positions, radius)
            median = float(np.median(values))
            spread = 1.4826 * float(np.median(np.abs(values - median))) or float(values.std()) or 1.0
            clipped = np.clip((values - median) / spread, -6, 6)
            self._null[radius] = (median, spread, float(clipped.mean()), float(clipped.std()) or 1.0)
        return self._null[radius]

    def _factor(self, radius: float) -> int:
        return int(max(1, min(radius // _BLOCKS_PER_RADIUS, min(self.shape_zyx))))

    def _level(self, factor: int) -> np.ndarray:
        if factor not in self._levels:
            self._levels[factor] = block_mean(self._levels[1], (factor,) * 3)
        return self._levels[factor]

    def _scale(self, factor: int) -> float:
        sample = self._level(factor).reshape(-1)
        sample = sample[:: max(1, sample.size // 200_000)]
        return float(sample.std(dtype=np.float64)) or 1.0

    def _means(self, positions: np.ndarray, offsets: np.ndarray, factor: int) -> np.ndarray:
        """Mean over offsets, for each position."""
        level = self._level(factor)
        result = np.empty(len(positions))
        for start in range(0, len(positions), _CHUNK):
            centres = nearest_voxel((positions[start : start + _CHUNK] + 0.5) / factor - 0.5)
            result[start : start + _CHUNK] = _take(level, centres[:, None] + offsets).mean(axis=1)
        return result

    def _mean_at_offsets(self, positions: np.ndarray, offsets: np.ndarray, factor: int) -> np.ndarray:
        """Mean over positions, for each offset (in blocks); what falls outside the volume does not count."""
        level = self._level(factor)
        total, counts = np.zeros(len(offsets)), np.zeros(len(offsets))
        size = np.array(level.shape[::-1])
        centres = (positions + 0.5) / factor - 0.5
        per_chunk = max(1, _CHUNK * _OFFSETS // len(offsets))
        for start in range(0, len(positions), per_chunk):
            voxels = nearest_voxel(centres[start : start + per_chunk, None] + offsets)
            within = ((voxels >= 0) & (voxels < size)).all(axis=-1)
            total += np.where(within, _take(level, voxels), 0).sum(axis=0, dtype=np.float64)
            counts += within.sum(axis=0)
        return np.asarray(total / np.maximum(counts, 1))


def sampled_radius(radius_vox: float) -> float:
    """A radius in the blocks that it is sampled with: four to eight, or itself where it is smaller."""
    return radius_vox / max(1.0, radius_vox // _BLOCKS_PER_RADIUS)


def block_mean(data: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Mean of blocks of (z, y, x) voxels; what does not fill a block at the far ends is left out."""
    d, h, w = (size // factor for size, factor in zip(data.shape, factors, strict=True))
    fz, fy, fx = factors
    cut = data[: d * fz, : h * fy, : w * fx]
    result = np.empty((d, h, w), np.float32)
    for z in range(d):  # slab by slab: nothing of the volume's size is copied
        slab = cut[z * fz : (z + 1) * fz].mean(axis=0, dtype=np.float32)
        result[z] = slab.reshape(h, fy, w, fx).mean(axis=(1, 3))
    return result


def _take(level: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    depth, height, width = level.shape
    x = np.clip(voxels[..., 0], 0, width - 1)
    y = np.clip(voxels[..., 1], 0, height - 1)
    z = np.clip(voxels[..., 2], 0, depth - 1)
    return np.asarray(level[z, y, x])


def _offsets(inner: float, outer: float, most: int = _OFFSETS) -> np.ndarray:
    """Whole offsets (m, 3) at distances from `inner` to `outer`, a fixed random sample where there are many."""
    reach = int(np.ceil(outer))
    axis = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    squared = (grid**2).sum(axis=1)
    grid = grid[(squared <= outer**2) & (squared >= inner**2)]
    if len(grid) > most:
        grid = grid[np.random.default_rng(0).choice(len(grid), most, replace=False)]
    return grid if len(grid) else np.zeros((1, 3), int)


def _sphere(n: int) -> np.ndarray:
    """Directions spread evenly (Fibonacci lattice), (n, 3)."""
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)
