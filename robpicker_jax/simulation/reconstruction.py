"""From a tilt series to a tomogram: CTF correction by phase flipping, weighted back-projection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy

from robpicker_jax.simulation.tilt_series import TiltSeries

_OVERSAMPLING = 2  # of the filtered projections, so that interpolation neither blurs nor makes the noise uneven
_SLAB = 8  # z sections back-projected at once


def reconstruct(
    series: TiltSeries,
    shape_zyx: Sequence[int],
    *,
    phase_flip: bool = False,
    cutoff: float = 0.4,
    falloff: float = 0.05,
) -> np.ndarray:
    """Weighted back-projection of a tilt series about y.

    f(x, z) = Σ_θ Δθ · q_θ(x cos θ + z sin θ), with q_θ the projection filtered by the ramp |k_u| (Kak and Slaney's
    band-limited one, which keeps the mean right) and, beyond `cutoff`, by a Gaussian. With all angles it would be the
    inverse of projection; with a limited range it leaves the missing wedge empty.

    Args:
        series: the tilt series, angles equally spaced.
        shape_zyx: the volume.
        phase_flip: multiply by the sign of the CTF first.
        cutoff: frequency, in cycles per pixel, up to which the ramp is kept whole.
        falloff: standard deviation of the Gaussian beyond it, cycles per pixel.

    Returns:
        float32 (z, y, x), contrast per voxel.
    """
    nz, ny, nx = (int(edge) for edge in shape_zyx)
    filtered = _filter(series, ny, phase_flip, cutoff, falloff)
    tilts, n_u = len(series.angles_deg), filtered.shape[1]
    rows = filtered.reshape(tilts * n_u, ny)
    volume = np.empty((nz, ny, nx), np.float32)
    for start in range(0, nz, _SLAB):
        stop = min(start + _SLAB, nz)
        matrix = _interpolation(series.angles_deg, np.arange(start, stop) - (nz - 1) / 2, nx, n_u)
        slab = (matrix @ rows).reshape(stop - start, nx, ny)
        volume[start:stop] = slab.transpose(0, 2, 1)
    return volume


def _filter(series: TiltSeries, ny: int, phase_flip: bool, cutoff: float, falloff: float) -> np.ndarray:
    """Filtered projections, oversampled along u: float32 (tilt, u, y), the rows of the volume only."""
    n_u = series.images.shape[2]
    k = scipy.fft.rfftfreq(n_u)
    weight = _ramp(n_u) * np.exp(-0.5 * (np.maximum(k - cutoff, 0) / falloff) ** 2)
    weight = weight * _OVERSAMPLING  # the inverse transform of a longer signal divides by more
    transfer = weight[None, :]
    if phase_flip:
        ky, ku = series.frequencies()
        transfer = transfer * np.where(series.optics.ctf(np.sqrt(ky**2 + ku**2)) < 0, -1.0, 1.0)
    transfer = transfer.astype(np.float32)
    kept = slice(series.first_row, series.first_row + ny)
    filtered = np.empty((len(series.images), _OVERSAMPLING * n_u, ny), np.float32)
    for image, out, measure in zip(series.images, filtered, _angle_measure(series.angles_deg), strict=True):
        spectrum = scipy.fft.rfft2(image, workers=-1) * (transfer * np.float32(measure))
        fine = scipy.fft.irfft(
            scipy.fft.ifft(spectrum, axis=0, workers=-1)[kept], n=_OVERSAMPLING * n_u, axis=1, workers=-1
        )
        out[:] = fine.T
    return filtered


def _ramp(n: int) -> np.ndarray:
    """|k| in cycles per pixel on the n//2 + 1 frequencies of a real transform, from its band-limited kernel.

    Kernel (Kak and Slaney 1988, eq. 3.61): ¼ at 0, −1/(πm)² at odd m, 0 at even m.
    """
    m = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.where(m % 2 == 1, -1 / (math.pi * np.maximum(m, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    return np.asarray(scipy.fft.rfft(kernel).real)


def _angle_measure(angles_deg: np.ndarray) -> np.ndarray:
    """Δθ of each tilt, radians; where tilts run from −90° to 90°, the first and the last view are equal and share one."""
    if len(angles_deg) == 1:
        return np.ones(1)
    measure = np.full(len(angles_deg), math.radians(angles_deg[1] - angles_deg[0]))
    if abs(angles_deg[-1] - angles_deg[0] - 180) < 1e-6:
        measure[[0, -1]] /= 2
    return measure


def _interpolation(angles_deg: np.ndarray, z: np.ndarray, nx: int, n_u: int) -> scipy.sparse.csr_array:
    """Matrix (len(z)·nx, tilts·n_u) that reads the filtered projections at u = x cos θ + z sin θ, linearly."""
    x = np.arange(nx) - (nx - 1) / 2
    angles = np.deg2rad(angles_deg)
    u = np.add.outer(z[:, None] * np.sin(angles), np.zeros(1)).reshape(len(z), 1, -1)
    u = u + x[None, :, None] * np.cos(angles)
    # Oversampled pixel j lies at j/o in units of the old ones, and old pixel (n − 1)/2 is u = 0.
    pixel = (u + (n_u / _OVERSAMPLING - 1) / 2) * _OVERSAMPLING
    lower = np.floor(pixel)
    share = (pixel - lower).astype(np.float32)
    column = lower.astype(np.int32) + np.arange(len(angles), dtype=np.int32) * n_u
    indices = np.stack([column, column + 1], axis=-1).reshape(-1)
    weights = np.stack([1 - share, share], axis=-1).reshape(-1)
    rows = len(z) * nx
    starts = np.arange(0, indices.size + 1, 2 * len(angles), dtype=np.int32)
    return scipy.sparse.csr_array((weights, indices, starts), shape=(rows, len(angles) * n_u))
