"""Guards against what is no particle: a template of random phases, and a tomogram whose spectrum is made flat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy

from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import Voxels, read_box

_PATCH = 64
_PATCHES = 100
_DISCARDED = 0.1  # of the patches, those of the highest variance: beads, carbon


def phase_randomised(template: Template, seed: int = 0) -> Template:
    """The template with the amplitudes of its Fourier transform and the phases of white noise.

    It scores what any density of this spectrum would. Subtracting its score, and adding that score's mean back,
    lowers what beads, membranes and edges score (STOPGAP's noise correction). It keeps the template's point group,
    though its density has none: so it is turned to the same rotations, and the largest of as many scores is compared.
    """
    noise = np.random.default_rng(seed).standard_normal(template.density.shape)
    spectrum, random = np.fft.rfftn(template.density * template.mask), np.fft.rfftn(noise)
    phases = random / np.maximum(np.abs(random), 1e-12)
    density = np.fft.irfftn(np.abs(spectrum) * phases, s=template.density.shape, axes=(0, 1, 2))
    return replace(template, density=density.astype(np.float32), name=f"{template.name}_random")


def noise_corrected(scores: np.ndarray, random: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """score − score of the random template + its mean, float32: the best scores of all angles, corrected.

    Where a cut-off is fitted to the peaks' heights, it is fitted to those of the corrected map. A deviation of single
    angles is none of the corrected map's, since the random template's best angle is another one.

    Args:
        scores, random: the maps of the template and of the random one, at the same rotations, both exact.
        inside: bool, where the mean is taken; none: everywhere.
    """
    mean = np.mean(random, where=True if inside is None else inside, dtype=np.float64)
    corrected: np.ndarray = np.subtract(scores, random, dtype=np.float32)
    corrected += np.float32(mean)
    return corrected


def whitening_profile(volume: Voxels, *, edge: int = _PATCH, seed: int = 0) -> np.ndarray:
    """The filter 1 / √P(k) that makes a tomogram's spectrum flat, float64 (edge // 2 + 1,), largest value 1.

    P is the mean power over shells of Hann-windowed patches, without the tenth of them of the highest variance. k counts
    in 1 / edge of the sampling frequency. The zero frequency passes nothing, and from 0.9 of the Nyquist frequency
    on the filter fades to 0.
    """
    edge = min(edge, *volume.shape)
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, np.array(volume.shape) - edge + 1, size=(_PATCHES, 3))
    window = np.hanning(edge + 2)[1:-1]
    window3 = window[:, None, None] * window[None, :, None] * window[None, None, :]
    patches = [
        read_box(volume, corner.tolist(), (edge,) * 3).astype(np.float64) for corner in np.unique(corners, axis=0)
    ]
    patches.sort(key=lambda patch: float(patch.var()))
    patches = patches[: max(1, round(len(patches) * (1 - _DISCARDED)))]
    k = np.fft.fftfreq(edge) * edge
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, : edge // 2 + 1] ** 2))
    number = np.minimum(shell.astype(int), edge // 2)
    power = np.zeros(edge // 2 + 1)
    counts = np.bincount(number.ravel(), minlength=len(power))
    for patch in patches:
        spectrum = np.abs(np.fft.rfftn((patch - patch.mean()) * window3)) ** 2
        power += np.bincount(number.ravel(), spectrum.ravel(), minlength=len(power)) / counts
    gain = 1 / np.sqrt(np.maximum(power, 1e-12 * power.max()))
    gain[0] = 0
    share = np.arange(len(power)) / (edge / 2)
    gain *= np.where(share < 0.9, 1, 0.5 * (1 + np.cos(np.pi * np.clip((share - 0.9) / 0.1, 0, 1))))
    return np.asarray(gain / gain.max())


def filtered(data: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """A volume with a radial filter applied to its Fourier transform, float32, scaled to mean 0 and deviation 1.

    Args:
        data: (z, y, x), held whole: about 12 bytes a voxel while it is filtered.
        profile: gain at 0 … the Nyquist frequency, evenly spaced; 0 beyond.
    """
    result = radially_filtered(data, profile)
    return np.asarray((result - result.mean()) / max(float(result.std()), 1e-12), np.float32)


def radially_filtered(data: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """A box with a radial filter applied to its Fourier transform, float32; templates are filtered as the tomogram is."""
    spectrum = scipy.fft.rfftn(data.astype(np.float32, copy=False))
    kz, ky = (scipy.fft.fftfreq(size) for size in data.shape[:2])
    kx = scipy.fft.rfftfreq(data.shape[2])
    at = np.linspace(0, 0.5, len(profile))
    for plane, z in zip(spectrum, kz, strict=True):
        radius = np.sqrt(z**2 + ky[:, None] ** 2 + kx[None, :] ** 2)
        plane *= np.interp(radius, at, profile, right=0).astype(np.float32)
    return np.asarray(scipy.fft.irfftn(spectrum, s=data.shape), np.float32)
