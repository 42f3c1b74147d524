"""What of a particle's Fourier transform a tilt series about the y axis holds: the missing wedge, dose and CTF.

At tilt θ the voxel at (x, z) from the centre falls on detector coordinate x cos θ + z sin θ, as in `simulation`. The
image's transform is therefore the plane through the y axis and (cos θ, sin θ) in (k_x, k_z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.system.errors import InputError

B_PER_DOSE = 4.0
"""Å² of B-factor for each electron per Å², the customary value."""


@dataclass(frozen=True)
class TiltScheme:
    """The tilts that a tomogram was made of.

    Attributes:
        angles_deg: tilt angles.
        doses: electrons per Å² that the sample had received when each image was taken; none: no weighting by dose.
        transfers: contrast transfer of each image as a function of frequency in 1/Å; none: 1. One function
            counts for all images.
    """

    angles_deg: tuple[float, ...]
    doses: tuple[float, ...] | None = None
    transfers: tuple[Callable[[np.ndarray], np.ndarray], ...] | None = None

    def __post_init__(self) -> None:
        if not self.angles_deg:
            raise InputError("a tilt series without tilts", fix="give at least one angle")
        for name, values in (("doses", self.doses), ("transfers", self.transfers)):
            allowed = (len(self.angles_deg),) if name == "doses" else (1, len(self.angles_deg))
            if values is not None and len(values) not in allowed:
                raise InputError(f"{len(values)} {name} for {len(self.angles_deg)} tilts", fix="give one for each")


def scheme_of(
    tilts_deg: tuple[float, float] | None,
    step_deg: float | None,
    dose_per_tilt: float | None,
    transfer: Callable[[np.ndarray], np.ndarray] | None,
) -> TiltScheme | None:
    """The tilts with their dose and CTF; None without a step between them.

    The dose of a tilt is what the sample had received before it, in order from 0 outwards.

    Raises:
        InputError: a dose or CTF without a step, or a step without a range.
    """
    if step_deg is None:
        if dose_per_tilt is not None or transfer is not None:
            raise InputError("dose and CTF are weighed tilt by tilt", where="--tilt-step", fix="give it")
        return None
    if tilts_deg is None:
        raise InputError("a tilt step needs a tilt range", where="--tilt-step", fix="give --tilts too")
    angles = np.arange(tilts_deg[0], tilts_deg[1] + 1e-6, step_deg)
    doses = None
    if dose_per_tilt is not None:
        order = np.argsort(np.abs(angles), kind="stable")
        received = np.empty(len(angles))
        received[order] = np.arange(len(angles)) * dose_per_tilt
        doses = tuple(received.tolist())
    return TiltScheme(tuple(angles.tolist()), doses, None if transfer is None else (transfer,))


def _frequencies(edge: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centred frequencies z, y, x in whole voxels of Fourier space, shaped to broadcast."""
    k = np.arange(edge, dtype=np.float64) - edge // 2
    return k[:, None, None], k[None, :, None], k[None, None, :]


def binary_wedge(edge: int, tilt_range_deg: tuple[float, float], *, soft_vox: float = 1.0) -> NDArray[np.float32]:
    """1 where some tilt of a range measures, 0 in the missing wedge, with a linear edge of about one Fourier voxel.

    Args:
        edge: size of the cube.
        tilt_range_deg: smallest and largest tilt, −90 < smallest < largest < 90; (−90, 90) is no wedge.
        soft_vox: width of the edge, Fourier voxels; 0 for a sharp one.

    Returns:
        float32 (edge, edge, edge), centred.

    Raises:
        InputError: a range that is none.
    """
    low, high = tilt_range_deg
    if not -90 <= low < high <= 90:
        raise InputError(
            f"a tilt range of {low:g} to {high:g}°", fix="give two angles from -90 to 90, the smaller first"
        )
    if high - low >= 180:
        return np.ones((edge,) * 3, np.float32)
    kz, _, kx = _frequencies(edge)
    kz, kx = np.broadcast_to(kz, (edge, 1, edge)), np.broadcast_to(kx, (edge, 1, edge))
    # On the side k_x ≥ 0 (the other is its mirror image) the measured part lies between the planes of the two angles.
    sign = np.where(kx < 0, -1.0, 1.0)
    distances = [
        math.cos(math.radians(high)) * (-sign * kz) + math.sin(math.radians(high)) * np.abs(kx),
        math.cos(math.radians(low)) * (sign * kz) - math.sin(math.radians(low)) * np.abs(kx),
    ]
    inside = np.minimum(*distances)
    # On the plane k_x = 0 both signs describe the same point: what either of them measures is measured.
    mirrored = np.minimum(
        math.cos(math.radians(high)) * kz + math.sin(math.radians(high)) * np.abs(kx),
        -math.cos(math.radians(low)) * kz - math.sin(math.radians(low)) * np.abs(kx),
    )
    inside = np.where(kx == 0, np.maximum(inside, mirrored), inside)
    weights = (inside >= 0).astype(float) if soft_vox == 0 else np.clip(inside / soft_vox + 0.5, 0, 1)
    weights[(kz == 0) & (kx == 0)] = 1
    return np.broadcast_to(weights, (edge,) * 3).astype(np.float32)


def tilt_weights(edge: int, voxel_size_angstrom: float, scheme: TiltScheme) -> NDArray[np.float32]:
    """The transfer of each Fourier voxel, summed over tilts: planes one voxel thick with CTF, dose and overlap.

    W(k) = Σ_i slab_i(k) · CTF_i(|k|) · min(1, |k_u| / k_o) · cos θ_i · exp(−2π² σ_i² |k|²), σ_i² = B_i / 8π², where
    B_i = 4 Å² for each electron per Å² and k_o = 1 / (Δθ · edge · voxel) is where neighbouring planes part (Crowther). W is
    divided by its largest magnitude. Beyond the Nyquist frequency it is 0.

    Args:
        edge: size of the cube.
        voxel_size_angstrom: edge of a voxel, Å.
        scheme: the tilts.

    Returns:
        float32 (edge, edge, edge), centred; negative where the CTF is.
    """
    weights, largest = unscaled_tilt_weights(edge, voxel_size_angstrom, scheme)
    return np.asarray(weights / largest, np.float32)


def tilt_parting(angles_rad: NDArray[np.float64]) -> float:
    """Fourier voxels from the tilt axis from which planes one voxel thick do not overlap with their neighbours."""
    spacing = float(np.diff(np.sort(angles_rad)).min()) if len(angles_rad) > 1 else math.pi
    return 1 / max(spacing, 1e-3)


def unscaled_tilt_weights(
    edge: int, voxel_size_angstrom: float, scheme: TiltScheme
) -> tuple[NDArray[np.float64], float]:
    """`tilt_weights` before they are divided by their largest magnitude, and that magnitude; 1 where all is 0."""
    kz, ky, kx = _frequencies(edge)
    per_angstrom = 1 / (edge * voxel_size_angstrom)
    angles = np.deg2rad(np.asarray(scheme.angles_deg, float))
    parting = tilt_parting(angles)
    weights = np.zeros((edge,) * 3)
    for index, angle in enumerate(angles):
        across = kx * math.cos(angle) + kz * math.sin(angle)
        away = np.abs(kz * math.cos(angle) - kx * math.sin(angle))
        slab = np.maximum(0, 1 - away) * np.minimum(1, np.maximum(np.abs(across), 0.5) / parting) * math.cos(angle)
        radius = np.sqrt(across**2 + ky**2) * per_angstrom
        transfer = np.ones_like(radius)
        if scheme.transfers is not None:
            transfer = scheme.transfers[index if len(scheme.transfers) > 1 else 0](radius)
        if scheme.doses is not None:
            transfer = transfer * np.exp(-(B_PER_DOSE * scheme.doses[index] / 4) * radius**2)
        weights += slab * transfer
    weights[kz**2 + ky**2 + kx**2 > (edge / 2) ** 2] = 0
    return weights, float(np.abs(weights).max()) or 1.0


def half_layout(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred weights (z, y, x) in the order of `rfftn`, (z, y, x // 2 + 1).

    The volume to be weighted is real, so the mean of a frequency and its opposite is what counts.
    """
    full = np.fft.ifftshift(weights)
    opposite = np.roll(full[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    half = (full + opposite)[..., : weights.shape[-1] // 2 + 1] / 2
    return np.ascontiguousarray(half, dtype=np.float32)
