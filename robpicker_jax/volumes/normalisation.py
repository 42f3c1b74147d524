"""Bringing tomograms to one scale of density, in memory or read plane by plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.volume import Planes, check_finite_planes, slabs

_CLIP_QUANTILE = 0.001
_QUANTILE_SAMPLE = 1 << 22
_BLOCK_VOXELS = 1 << 20  # sums are taken over blocks of whole lines within a plane, and merged


@dataclass(frozen=True)
class Scaling:
    """How densities are brought to a common scale: (clip(density, low, high) − mean) / std."""

    low: float = -np.inf
    high: float = np.inf
    mean: float = 0.0
    std: float = 1.0

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Scale a float32 array in place."""
        if self == Scaling():
            return data
        np.clip(data, np.float32(self.low), np.float32(self.high), out=data)
        data -= np.float32(self.mean)
        data *= np.float32(1 / self.std)
        return data


def normalise(
    density: np.ndarray, method: str = "zscore", *, mask: np.ndarray | None = None, copy: bool = True
) -> np.ndarray:
    """Bring a tomogram to mean 0 and standard deviation 1, for networks trained on several.

    `zscore` first clips to the 0.1 % and 99.9 % quantiles. Gold beads, ice and the edges of a reconstruction reach
    tens of standard deviations: unclipped they set the scale of the whole tomogram, which then differs from its
    neighbours'. Quantiles, not median and MAD, because simulated volumes are mostly empty and their MAD is 0.
    Densities of particles lie inside the quantiles or, at worst, keep their sign and rank up to the bound.

    Args:
        density: (z, y, x).
        method: "zscore" or "none".
        mask: (z, y, x) bool, where the statistics are taken (the sample, not padding); everywhere by default.
        copy: leave `density` as it is; False lets a float32 array be overwritten, which halves the memory.

    Returns:
        float32 (z, y, x).

    Raises:
        InputError: NaN or infinite voxels, or a volume of one single value.
    """
    result = np.array(density, dtype=np.float32, order="C") if copy else np.ascontiguousarray(density, np.float32)
    return scaling(lambda first, last: result[first:last], result.shape, method, mask=mask).apply(result)


def scaling(
    read: Planes, shape_zyx: Sequence[int], method: str = "zscore", *, mask: np.ndarray | None = None
) -> Scaling:
    """The scaling that `normalise` applies, of a volume that is read slab by slab and never held whole.

    Two passes: one for the quantiles (of at most 4 million voxels, the same ones every time), one for mean and
    standard deviation of the clipped densities. These are taken in float64 over blocks and merged by Chan's formula
    (Chan, Golub, LeVeque, 1979); the blocks depend on the volume's shape alone.

    Args:
        read: first and last plane → float32 (planes, y, x).
        shape_zyx: the volume's shape.
        method: "zscore" or "none".
        mask: (z, y, x) bool, where the statistics are taken.

    Raises:
        InputError: NaN or infinite voxels, a volume of one single value, an empty mask, an unknown method.
    """
    if method not in ("zscore", "none"):
        raise InputError(f"unknown normalisation {method!r}", fix="zscore or none")
    sample = _sample(read, shape_zyx, mask if method == "zscore" else None)
    if method == "none":
        return Scaling()
    low, high = (float(q) for q in np.quantile(sample, [_CLIP_QUANTILE, 1 - _CLIP_QUANTILE], overwrite_input=True))
    if not high > low:  # fewer than 0.1 % of the voxels differ: nothing to clip
        extremes = np.array([(slab.min(), slab.max()) for slab in (read(*planes) for planes in slabs(shape_zyx))])
        low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    mean, std = _mean_and_std(_blocks(read, shape_zyx, mask), low, high)
    if not std > 1e-6 * max(abs(mean), float(np.finfo(np.float32).tiny)):
        raise InputError("all voxels have the same value", fix="check that the reconstruction is not empty")
    return Scaling(low, high, mean, std)


def _sample(read: Planes, shape_zyx: Sequence[int], mask: np.ndarray | None) -> np.ndarray:
    """Voxels drawn with replacement, or all where they are few; refuses a volume with NaN or infinite voxels."""
    count = int(np.prod(shape_zyx)) if mask is None else int(np.count_nonzero(mask))
    if count == 0:
        raise InputError("the mask is empty", fix="give a mask that covers the sample")
    drawn = np.arange(min(count, _QUANTILE_SAMPLE))
    if count > _QUANTILE_SAMPLE:
        drawn = np.sort(np.random.default_rng(0).integers(count, size=_QUANTILE_SAMPLE))
    parts, done, taken = [], 0, 0
    for first, last in slabs(shape_zyx):
        slab = read(first, last)
        if not np.isfinite(slab).all():
            check_finite_planes(read, shape_zyx, "")
        values = slab.reshape(-1) if mask is None else slab[mask[first:last]]
        upto = int(np.searchsorted(drawn, done + values.size))
        parts.append(values[drawn[taken:upto] - done])
        done, taken = done + values.size, upto
    return np.concatenate(parts)


def _blocks(read: Planes, shape_zyx: Sequence[int], mask: np.ndarray | None) -> Iterator[np.ndarray]:
    """All voxels, or those in the mask, block by block."""
    lines = max(1, _BLOCK_VOXELS // max(1, shape_zyx[2]))
    for first, last in slabs(shape_zyx):
        slab = read(first, last)
        for z in range(last - first):
            for y in range(0, shape_zyx[1], lines):
                block = slab[z, y : y + lines]
                yield block if mask is None else block[mask[first + z, y : y + lines]]


def _mean_and_std(blocks: Iterator[np.ndarray], low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of the clipped voxels."""
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        if block.size == 0:
            continue
        values = np.clip(block, np.float32(low), np.float32(high)).astype(np.float64)
        block_mean = float(values.mean())
        values -= block_mean
        shift, total = block_mean - mean, count + block.size
        squares += float(np.square(values, out=values).sum()) + shift * shift * count * block.size / total
        mean += shift * block.size / total
        count = total
    return mean, float(np.sqrt(squares / count))
