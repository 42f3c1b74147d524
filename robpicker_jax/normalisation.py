"""Bringing tomograms to one scale of density."""

from __future__ import annotations

import numpy as np

from robpicker_jax.errors import InputError
from robpicker_jax.volumes.volume import check_finite

_CLIP_QUANTILE = 0.001
_QUANTILE_SAMPLE = 1 << 22


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
    check_finite(result, "")
    if method == "none":
        return result
    if method != "zscore":
        raise InputError(f"unknown normalisation {method!r}", mend="zscore or none")
    low, high = (float(q) for q in np.quantile(_sample(result, mask), [_CLIP_QUANTILE, 1 - _CLIP_QUANTILE]))
    if not high > low:  # fewer than 0.1 % of the voxels differ: nothing to clip
        low, high = float(result.min()), float(result.max())
    np.clip(result, low, high, out=result)
    mean, std = _mean_and_std(result, mask)
    if not std > 1e-6 * max(abs(mean), float(np.finfo(np.float32).tiny)):
        raise InputError("all voxels have the same value", mend="check that the reconstruction is not empty")
    result -= np.float32(mean)
    result *= np.float32(1 / std)
    return result


def _sample(data: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """At most 4 million voxels, the same ones every time: enough for quantiles to three digits."""
    values = data.reshape(-1) if mask is None else data[mask]
    if values.size == 0:
        raise InputError("the mask is empty", mend="give a mask that covers the sample")
    if values.size <= _QUANTILE_SAMPLE:
        return values
    return values[np.random.default_rng(0).integers(values.size, size=_QUANTILE_SAMPLE)]


def _mean_and_std(data: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    """In float64, slice by slice, so that nothing of the volume's size is allocated."""
    parts = [data[z] if mask is None else data[z][mask[z]] for z in range(len(data))]
    count = sum(part.size for part in parts)
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / count
    variance = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts) / count
    return mean, float(np.sqrt(variance))
