"""Amplitude spectra of tomograms, and one tomogram filtered so that it has another one's.

Tomograms of other microscopes, defocus or reconstruction differ in how strong each spatial frequency is, and a network that was
trained on the one sees an unfamiliar image in the other (DeePiCt's pre-processing; de Teresa-Trueba et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from robpicker_jax.system.errors import InputError

NYQUIST = 0.5
"""Cycles a voxel."""

_SLAB = 16  # planes of the transform looked at together


@dataclass(frozen=True)
class Spectrum:
    """Mean amplitude in shells of spatial frequency.

    Attributes:
        frequencies: float64 (k,), middle of each shell, cycles a voxel, up to Nyquist.
        amplitudes: float64 (k,), mean of |F| / √(number of voxels) in the shell, which does not depend on the volume's size.
    """

    frequencies: NDArray[np.float64]
    amplitudes: NDArray[np.float64]


def radial_spectrum(volume: NDArray[np.floating], shells: int = 100) -> Spectrum:
    """The spectrum of a volume (z, y, x), its mean left out.

    Args:
        volume: densities.
        shells: number of shells between 0 and Nyquist, of equal width.

    Raises:
        InputError: fewer than one shell, or a volume that has not three axes.
    """
    if volume.ndim != 3 or shells < 1:
        raise InputError(f"{shells} shells of a volume of shape {volume.shape}", fix="give a volume, and shells from 1")
    return _spectrum(_transform(volume), volume.shape, shells)


def match_spectrum(
    volume: NDArray[np.floating],
    target: Spectrum,
    *,
    cutoff: float | None = None,
    smooth: float = 0.0,
) -> NDArray[np.float32]:
    """A volume whose mean amplitude in each shell is the target's.

    Each Fourier coefficient is multiplied by target(f) / own(f), f its frequency, linear between the shells. The mean
    stays, and so do frequencies in which the volume has nothing. Frequencies beyond Nyquist (the corners of Fourier space)
    get the factor of the last shell.

    Args:
        volume: densities (z, y, x).
        target: what it is to have.
        cutoff: frequency from which on nothing is left, cycles a voxel; None: none.
        smooth: width of the fall there, cycles a voxel: the share that is left is 1 / (1 + exp(4 (f − cutoff) / smooth)).

    Raises:
        InputError: a cut-off or a width out of range.
    """
    if cutoff is not None and not cutoff > 0:
        raise InputError(f"must be positive, got {cutoff}", where="cutoff")
    if smooth < 0:
        raise InputError(f"must not be negative, got {smooth}", where="smooth")
    transform = _transform(volume)
    own = _spectrum(transform, volume.shape, len(target.frequencies))
    factor = np.where(own.amplitudes > 0, target.amplitudes / np.maximum(own.amplitudes, 1e-30), 1.0)
    for begin in range(0, volume.shape[0], _SLAB):
        planes = slice(begin, begin + _SLAB)
        f = _frequencies(volume.shape, planes)
        kernel = np.interp(f, own.frequencies, factor)
        if cutoff is not None:
            kernel *= (f < cutoff) if smooth == 0 else 1 / (1 + np.exp(np.clip(4 * (f - cutoff) / smooth, -60, 60)))
        transform[planes] *= kernel
    mean = np.float32(np.mean(volume, dtype=np.float64))
    matched: NDArray[np.float32] = fft.irfftn(transform, volume.shape, overwrite_x=True).astype(np.float32)
    return matched + mean


def _transform(volume: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    centred = np.asarray(volume, np.float32) - np.float32(np.mean(volume, dtype=np.float64))
    found: NDArray[np.complexfloating] = fft.rfftn(centred)
    return found


def _frequencies(shape: tuple[int, ...], planes: slice) -> NDArray[np.float64]:
    """|f| of some planes of the half transform, cycles a voxel."""
    z, y, x = np.fft.fftfreq(shape[0])[planes], np.fft.fftfreq(shape[1]), np.fft.rfftfreq(shape[2])
    length: NDArray[np.float64] = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    return length


def _spectrum(transform: NDArray[np.complexfloating], shape: tuple[int, ...], shells: int) -> Spectrum:
    sums, counts = np.zeros(shells), np.zeros(shells)
    # The half transform holds each of these coefficients for itself and its mirror image.
    twice = np.full(transform.shape[2], 2.0)
    twice[0] = 1.0
    if shape[2] % 2 == 0:
        twice[-1] = 1.0
    for begin in range(0, shape[0], _SLAB):
        planes = slice(begin, begin + _SLAB)
        f = _frequencies(shape, planes)
        shell = np.minimum((f / NYQUIST * shells).astype(np.int64), shells - 1)
        weights = np.broadcast_to(twice, f.shape) * ((f > 0) & (f <= NYQUIST))
        sums += np.bincount(shell.ravel(), (weights * np.abs(transform[planes])).ravel(), shells)
        counts += np.bincount(shell.ravel(), weights.ravel(), shells)
    middles = (np.arange(shells) + 0.5) * NYQUIST / shells
    return Spectrum(middles, sums / np.maximum(counts, 1) / np.sqrt(np.prod(shape)))
