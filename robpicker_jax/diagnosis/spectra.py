"""Power spectra of tomograms against each other: another filter, pixel size or reconstruction changes the spectrum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robpicker_jax.diagnosis.findings import Finding, names

_BINS = 16
_EDGE = 64  # of the cubes that the spectrum is taken from
_MOST_CUBES = 8
_FAR = 0.3  # log10: half or twice the power, on average over frequencies


def log_power_spectrum(density: np.ndarray) -> np.ndarray:
    """log10 of the radially averaged power spectrum from 1/32 to 1/2 per voxel, relative to its mean, (16,).

    The mean of up to eight cubes of at most 64 voxels, each less its mean and under a Hann window, so that neither the
    size of the volume nor its borders count. Frequencies along z, where the missing wedge lies, count as the others.
    """
    edges = [min(_EDGE, size) for size in density.shape]
    rng = np.random.default_rng(0)
    window = np.ones(())
    for edge in edges:
        window = np.multiply.outer(window, np.hanning(edge + 2)[1:-1])
    frequencies = [np.fft.fftfreq(edges[0]), np.fft.fftfreq(edges[1]), np.fft.rfftfreq(edges[2])]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij")))
    rings = np.digitize(radius, np.linspace(1 / 32, 0.5, _BINS + 1)).ravel()
    power = np.zeros(_BINS + 2)
    for _ in range(_MOST_CUBES):
        z, y, x = (int(rng.integers(size - edge + 1)) for size, edge in zip(density.shape, edges, strict=True))
        cube = density[z : z + edges[0], y : y + edges[1], x : x + edges[2]].astype(np.float64)
        spectrum = np.abs(np.fft.rfftn((cube - cube.mean()) * window)) ** 2
        power += np.bincount(rings, spectrum.ravel(), minlength=_BINS + 2)
    counts = np.bincount(rings, minlength=_BINS + 2)[1:-1]
    mean = power[1:-1] / np.maximum(counts, 1)
    mean = np.maximum(mean, 1e-8 * max(float(mean.max()), 1e-30))
    logs = np.log10(mean)
    return np.asarray(logs - logs.mean())


def check_spectra(spectra: Mapping[str, np.ndarray]) -> list[Finding]:
    """Tomograms whose spectrum is far from the median of the others'.

    Args:
        spectra: tomogram → `log_power_spectrum`.
    """
    if len(spectra) < 2:
        return []
    distances = {}
    for name, spectrum in spectra.items():
        others = np.median([other for key, other in spectra.items() if key != name], axis=0)
        distances[name] = float(np.sqrt(np.mean((spectrum - others) ** 2)))
    usual = float(np.median(list(distances.values())))
    limit = max(_FAR, 3 * usual) if len(spectra) > 3 else _FAR
    far = sorted((name for name in distances if distances[name] > limit), key=lambda name: -distances[name])
    if not far:
        return []
    if len(spectra) == 3:  # of three, one that differs shifts the medians of the other two as well
        far = far[:1]
    return [
        Finding(
            "warning",
            "spectrum",
            f"the power spectrum of {names(far)} is unlike the others'",
            "process all tomograms alike (reconstruction, filter, denoising, binning), or keep the odd ones apart",
            tuple(far),
            {"rms_log10_ratio": distances, "limit": limit},
        )
    ]
