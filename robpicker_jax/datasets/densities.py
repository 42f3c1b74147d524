"""What a network sees of a tomogram's densities: their scale, and on which side of the mean the particles are.

A tomogram whose contrast is inverted looks like any other to a normalisation. What tells the two apart is the skewness
of its densities, once noise is averaged over blocks of about a particle's radius: particles, dense and rare, lie in one
tail. Its sign turns with the contrast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.datasets.tomogram import OpenedTomogram

_MOST_SLABS = 16
_LEAST_SKEWNESS = 0.1
_STANDARD_ERRORS = 5.0
_SCALES_APART = 2.0
"""Standard deviations that differ by this factor are of another normalisation."""


@dataclass(frozen=True)
class DensityStatistics:
    """Densities as a network sees them: normalised, and inverted where the configuration says so.

    Attributes:
        mean: mean density.
        std: standard deviation.
        skewness: of the means of blocks; 0 where it is not clear of noise.
        block_vox: edge of the blocks, voxels.
    """

    mean: float
    std: float
    skewness: float
    block_vox: int


def block_edge(radii_vox: Sequence[float]) -> int:
    """Edge of the blocks for particles of these radii: the smallest radius, voxels."""
    return max(2, round(min(radii_vox)))


def density_statistics(tomogram: OpenedTomogram | np.ndarray, block_vox: int) -> DensityStatistics:
    """Statistics of some evenly spaced slabs of a tomogram (z, y, x), each one block thick.

    Args:
        tomogram: normalised densities.
        block_vox: edge of the blocks, voxels; less for a tomogram that is thinner.
    """
    depth, height, width = tomogram.shape
    edges = [min(block_vox, size) for size in (depth, height, width)]
    available = depth // edges[0]
    chosen = np.unique(np.linspace(0, available - 1, min(available, _MOST_SLABS)).round().astype(int))
    blocks, count, total, squares = [], 0, 0.0, 0.0
    for number in chosen.tolist():
        start = number * edges[0]
        slab = np.asarray(tomogram[start : start + edges[0], :, :], np.float64)
        count, total, squares = count + slab.size, total + slab.sum(), squares + np.square(slab).sum()
        rows, columns = height // edges[1], width // edges[2]
        whole = slab[:, : rows * edges[1], : columns * edges[2]]
        blocks.append(whole.reshape(edges[0], rows, edges[1], columns, edges[2]).mean(axis=(0, 2, 4)).ravel())
    if isinstance(tomogram, OpenedTomogram):
        tomogram.release()
    mean = total / count
    std = math.sqrt(max(0.0, squares / count - mean**2))
    return DensityStatistics(float(mean), std, _clear_skewness(np.concatenate(blocks)), block_vox)


def together(statistics: Sequence[DensityStatistics]) -> DensityStatistics | None:
    """Statistics of several tomograms as one; skewness 0 where they disagree about its sign. None of none."""
    if not statistics:
        return None
    skewness = [entry.skewness for entry in statistics]
    agreed = min(skewness) > 0 or max(skewness) < 0
    return DensityStatistics(
        float(np.mean([entry.mean for entry in statistics])),
        float(np.mean([entry.std for entry in statistics])),
        float(np.mean(skewness)) if agreed else 0.0,
        statistics[0].block_vox,
    )


def disagreement(here: DensityStatistics, trained: DensityStatistics) -> str | None:
    """What of a tomogram's densities is unlike the training tomograms', in words; None: nothing."""
    if here.skewness * trained.skewness < 0:
        return (
            f"the contrast seems to be inverted: skewness of the densities {here.skewness:.2f}, of the training "
            f"tomograms' {trained.skewness:.2f}; --data.invert_contrast turns it"
        )
    ratio = here.std / trained.std if trained.std > 0 else math.nan
    far = abs(here.mean - trained.mean) > _SCALES_APART * max(trained.std, here.std)
    if far or not 1 / _SCALES_APART <= ratio <= _SCALES_APART:
        return (
            f"densities of {here.mean:.3g} ± {here.std:.3g}, but the network was trained on {trained.mean:.3g} ± "
            f"{trained.std:.3g}; normalise the tomogram as the training tomograms were"
        )
    return None


def _clear_skewness(values: np.ndarray) -> float:
    """Skewness, without the most extreme thousandth; 0 where noise alone could give it."""
    if len(values) < 8:
        return 0.0
    low, high = np.quantile(values, [0.0005, 0.9995])
    values = np.clip(values, low, high) - values.mean()
    spread = float(np.sqrt(np.mean(values**2)))
    if not spread > 0:
        return 0.0
    skewness = float(np.mean((values / spread) ** 3))
    least = max(_LEAST_SKEWNESS, _STANDARD_ERRORS * math.sqrt(6 / len(values)))
    return skewness if abs(skewness) >= least else 0.0
