"""Fourier shell correlation of two half maps, corrected for the mask, and what follows from it.

Shell s holds the Fourier voxels with s − ½ <= |k| < s + ½, and

    FSC(s) = Re Σ F₁ F₂* / √(Σ |F₁|² Σ |F₂|²).

A mask correlates the halves by itself. Its share is measured with maps whose phases beyond a shell are random (Chen et al.
2013, Ultramicroscopy 135:24): FSC_true = (FSC_masked − FSC_random) / (1 − FSC_random) beyond that shell. The shell
is the first in which the FSC without a mask falls below 0.8, as in RELION; the two following ones are left uncorrected,
since the masked maps mix neighbouring shells.

An FSC says how well two halves agree. It does not say what they agree on: halves that were aligned to one template agree on
the template as well (Henderson 2013, PNAS 110:18037).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_RANDOM_BELOW = 0.8
_LEFT_UNCORRECTED = 2
_REPEATS = 4


@dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """FSC of two half maps, shell by shell from 0.

    Attributes:
        edge: edge of the maps, voxels.
        voxel_size_angstrom: of the maps.
        unmasked: float (shells,).
        masked: with the mask; equal to `unmasked` where there is none.
        randomised: of maps with random phases beyond `random_from`, masked; NaN before.
        corrected: the FSC to go by.
        random_from: first shell with random phases; None without a mask, or where the FSC stays above 0.8.
    """

    edge: int
    voxel_size_angstrom: float
    unmasked: np.ndarray
    masked: np.ndarray
    randomised: np.ndarray
    corrected: np.ndarray
    random_from: int | None

    def resolution_angstrom(self, threshold: float) -> float:
        """Resolution at which the corrected FSC first falls below a threshold, between shells by a straight line.

        The voxels' own limit, two voxels, where it never does; infinite where not even shell 1 reaches it.
        """
        return resolution_angstrom(self.corrected, self.edge, self.voxel_size_angstrom, threshold)

    def shells_angstrom(self) -> np.ndarray:
        """The resolution in Å that each shell stands for; infinite for shell 0."""
        return shell_resolutions(self.edge, self.voxel_size_angstrom)

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file of an FSC holds."""

        def numbers(values: np.ndarray) -> list[float | None]:
            return [float(round(value, 6)) if np.isfinite(value) else None for value in values]

        limits = {f"resolution_{name}_angstrom": self.resolution_angstrom(at) for name, at in THRESHOLDS.items()}
        return {
            "edge_vox": self.edge,
            "voxel_size_angstrom": self.voxel_size_angstrom,
            **{name: value if np.isfinite(value) else None for name, value in limits.items()},
            "phases_randomised_from_shell": self.random_from,
            "shell_angstrom": numbers(self.shells_angstrom()),
            "fsc": numbers(self.corrected),
            "fsc_unmasked": numbers(self.unmasked),
            "fsc_masked": numbers(self.masked),
            "fsc_random_phases": numbers(self.randomised),
        }


THRESHOLDS = {"0.143": 0.143, "0.5": 0.5}
"""Where resolutions are read off: 0.143 for independent halves (Rosenthal and Henderson 2003), and 0.5."""


def shell_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """FSC of two maps, float64 (edge // 2,), shell 0 to the last whole one; 0 where a map has no power.

    Args:
        first, second: (edge, edge, edge).
    """
    edge = first.shape[0]
    shells, weight = fourier_shells(edge)
    one, two = np.fft.rfftn(first.astype(np.float64)), np.fft.rfftn(second.astype(np.float64))

    def total(values: np.ndarray) -> np.ndarray:
        count = max(edge // 2, int(shells.max()) + 1)
        return np.bincount(shells, (values * weight).ravel(), minlength=count)[: edge // 2]

    power = np.sqrt(total(np.abs(one) ** 2) * total(np.abs(two) ** 2))
    cross = total((one * two.conj()).real)
    return np.where(power > 0, cross / np.where(power > 0, power, 1), 0)


def masked_correlation(
    first: np.ndarray,
    second: np.ndarray,
    voxel_size_angstrom: float,
    mask: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> ShellCorrelation:
    """FSC of two half maps under a soft mask, corrected by phase randomisation.

    Args:
        first, second: (edge, edge, edge).
        voxel_size_angstrom: of the maps.
        mask: (edge, edge, edge) in [0, 1]; None: no mask and no correction.
        seed: of the random phases.
    """
    edge = first.shape[0]
    plain = shell_correlation(first, second)
    nothing = np.full(len(plain), np.nan)
    if mask is None:
        return ShellCorrelation(edge, voxel_size_angstrom, plain, plain, nothing, plain, None)
    masked = shell_correlation(first * mask, second * mask)
    low = np.flatnonzero(plain[1:] < _RANDOM_BELOW)
    if not len(low):
        return ShellCorrelation(edge, voxel_size_angstrom, plain, masked, nothing, masked, None)
    start = int(low[0]) + 1
    rng = np.random.default_rng(seed)
    repeats = [
        shell_correlation(random_phases(first, start, rng) * mask, random_phases(second, start, rng) * mask)
        for _ in range(_REPEATS)
    ]
    random = np.mean(repeats, axis=0)
    corrected, beyond = masked.copy(), slice(start + _LEFT_UNCORRECTED, None)
    noise = np.minimum(random[beyond], 0.999)
    corrected[beyond] = np.where(masked[beyond] > noise, (masked[beyond] - noise) / (1 - noise), 0)
    randomised = nothing.copy()
    randomised[start:] = random[start:]
    return ShellCorrelation(edge, voxel_size_angstrom, plain, masked, randomised, corrected, start)


def random_phases(box: np.ndarray, start: int, rng: np.random.Generator) -> np.ndarray:
    """A map with the same amplitudes, and random phases from shell `start` on."""
    edge = box.shape[0]
    spectrum = np.fft.rfftn(box.astype(np.float64))
    shells = fourier_shells(edge)[0].reshape(spectrum.shape)
    # The phases of a real map's transform, so that they have the symmetry that a real map needs.
    noise = np.fft.rfftn(rng.standard_normal(box.shape))
    turned = np.abs(spectrum) * noise / np.maximum(np.abs(noise), 1e-30)
    return np.fft.irfftn(np.where(shells >= start, turned, spectrum), s=box.shape, axes=(0, 1, 2))


def resolution_angstrom(fsc: np.ndarray, edge: int, voxel_size_angstrom: float, threshold: float) -> float:
    """Resolution at which an FSC first falls below a threshold; see `ShellCorrelation.resolution_angstrom`."""
    below = np.flatnonzero(fsc[1:] < threshold) + 1
    if not len(below):
        return 2 * voxel_size_angstrom
    shell = int(below[0])
    if shell == 1:
        return float("inf")
    above, under = fsc[shell - 1], fsc[shell]
    crossing = shell - 1 + (above - threshold) / (above - under)
    return float(edge * voxel_size_angstrom / crossing)


def shell_resolutions(edge: int, voxel_size_angstrom: float) -> np.ndarray:
    """edge · voxel size / shell, Å, of each shell from 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(edge * voxel_size_angstrom / np.arange(edge // 2))


def figure_of_merit(fsc: np.ndarray) -> np.ndarray:
    """C_ref = √(2 FSC / (1 + FSC)) of each shell: the correlation of the whole average with the true map
    (Rosenthal and Henderson 2003), 0 from the first shell on in which the halves do not agree."""
    merit = np.sqrt(2 * np.clip(fsc, 0, 1) / (1 + np.clip(fsc, 0, 1)))
    merit[0] = 1.0
    below = np.flatnonzero(fsc[1:] < THRESHOLDS["0.143"])
    if len(below):
        merit[int(below[0]) + 1 :] = 0
    return np.asarray(merit)


def weighted_by_shell(box: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A map whose Fourier voxels are multiplied by their shell's weight, interpolated linearly; 0 beyond the last shell."""
    edge = box.shape[0]
    length = _lengths(edge)
    factor = np.interp(length, np.arange(len(weights)), weights, right=0.0)
    spectrum = np.fft.rfftn(box.astype(np.float64)) * factor
    return np.fft.irfftn(spectrum, s=box.shape, axes=(0, 1, 2)).astype(np.float32)


def low_pass(edge: int, voxel_size_angstrom: float, resolution: float, width: float = 2.0) -> np.ndarray:
    """Weights by shell: 1 below a resolution in Å, a cosine fall to 0 over `width` shells about it."""
    cut = edge * voxel_size_angstrom / resolution
    fall = np.clip((np.arange(edge // 2) - cut + width / 2) / width, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * fall))


def _lengths(edge: int) -> np.ndarray:
    axis = np.fft.fftfreq(edge, 1 / edge)
    half = np.arange(edge // 2 + 1)
    return np.asarray(np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + half[None, None, :] ** 2))


def fourier_shells(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Shell of each Fourier voxel of a real transform, flat, and how often it counts: once for itself, once for −k."""
    shells = np.floor(_lengths(edge) + 0.5).astype(np.int64).ravel()
    twice = np.full(edge // 2 + 1, 2.0)
    twice[0] = 1
    if edge % 2 == 0:
        twice[-1] = 1
    return shells, np.broadcast_to(twice, (edge, edge, edge // 2 + 1))
