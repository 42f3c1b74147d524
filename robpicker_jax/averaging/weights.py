"""How much of each frequency a tomogram holds: missing wedge, or the tilts one by one, with dose and contrast transfer.

The tilt axis is y and the beam z, as in the simulator, in IMOD and in RELION: at tilt θ a projection fills the plane of
Fourier space whose points have k_z / k_x = tan θ, so that what lies between the plane of the largest tilt and the z axis is
missing. Weights are functions of the frequency, not stored boxes, so that they are exact at any rotated frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.rotations.wedge import B_PER_DOSE, TiltScheme, tilt_parting, unscaled_tilt_weights
from robpicker_jax.system.errors import InputError

_CTF_SAMPLES = 1024


class TransferArrays(NamedTuple):
    """A `Transfer` as numbers that compiled programs take, so that one program serves all tomograms.

    Attributes:
        tilts_rad: (2,), first and last tilt.
        ctf: (samples,), the CTF at equally spaced frequencies from 0.
        step: Fourier voxels of the box between two samples.
        angles_rad: (tilts,), of each tilt where they are weighed one by one; (0,) for the wedge as a whole.
        fading: (tilts,), what dose makes of a squared frequency: exp(−fading |k|²), in Fourier voxels.
        parting: Fourier voxels from the tilt axis where neighbouring tilts part.
        nyquist: half the box's edge; tilts that are weighed one by one hold nothing beyond.
        largest: largest magnitude of the tilts' weights, by which they are divided.
    """

    tilts_rad: jax.Array
    ctf: jax.Array
    step: jax.Array
    angles_rad: jax.Array
    fading: jax.Array
    parting: jax.Array
    nyquist: jax.Array
    largest: jax.Array


@dataclass(frozen=True, eq=False)
class Transfer:
    """What a tomogram's reconstruction did to each frequency.

    Attributes:
        tilt_min_deg, tilt_max_deg: first and last tilt; −90 and 90 leave no wedge out.
        ctf: the CTF as it acts on the tomogram, |CTF| where phases were flipped, of frequencies in 1/Å; None: 1.
        tilts: the tilts, to be weighed one by one as `rotations.tilt_weights` does, with their doses; their transfers are
            not used, `ctf` is that of all. None: the wedge as a whole.

    Raises:
        InputError: a tilt range that is none.
    """

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    ctf: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)
    tilts: TiltScheme | None = None

    def __post_init__(self) -> None:
        if not -90 <= self.tilt_min_deg < self.tilt_max_deg <= 90:
            raise InputError(
                f"a tilt range of {self.tilt_min_deg:g} to {self.tilt_max_deg:g} degrees",
                fix="give two angles from -90 to 90, the smaller first",
            )

    def arrays(self, edge: int, voxel_size_angstrom: float) -> TransferArrays:
        """For boxes of `edge` voxels."""
        step = edge / (_CTF_SAMPLES - 1)  # up to |k| = edge, beyond the corners of Fourier space
        frequencies = np.arange(_CTF_SAMPLES) * step / (edge * voxel_size_angstrom)
        values = np.ones(_CTF_SAMPLES) if self.ctf is None else self.ctf(frequencies)
        numbers = [np.deg2rad([self.tilt_min_deg, self.tilt_max_deg]), values, step]
        if self.tilts is None:
            numbers += [np.zeros(0), np.zeros(0), 1.0, edge / 2, 1.0]
        else:
            scheme = replace(self.tilts, transfers=None if self.ctf is None else (self.ctf,))
            angles = np.deg2rad(scheme.angles_deg)
            doses = np.zeros(len(angles)) if scheme.doses is None else np.asarray(scheme.doses)
            fading = B_PER_DOSE * doses / 4 / (edge * voxel_size_angstrom) ** 2
            _, largest = unscaled_tilt_weights(edge, voxel_size_angstrom, scheme)
            numbers += [angles, fading, tilt_parting(angles), edge / 2, largest]
        return TransferArrays(*(jnp.asarray(number, jnp.float32) for number in numbers))


def weight(transfer: TransferArrays, frequencies: jax.Array) -> jax.Array:
    """The weight of frequencies (…, 3), x y z in Fourier voxels, in the tomogram's frame: wedge, or tilts, times CTF."""
    if transfer.angles_rad.size:
        return _by_tilt(transfer, frequencies)
    length = jnp.sqrt(jnp.sum(frequencies * frequencies, axis=-1))
    return wedge(transfer.tilts_rad, frequencies) * _ctf(transfer, length)


def _ctf(transfer: TransferArrays, length: jax.Array) -> jax.Array:
    """The CTF at lengths in Fourier voxels, between its samples by a straight line."""
    at = length / transfer.step
    low = jnp.clip(jnp.floor(at), 0, _CTF_SAMPLES - 2)
    share, index = at - low, low.astype(jnp.int32)
    return (1 - share) * transfer.ctf[index] + share * transfer.ctf[index + 1]


def _by_tilt(transfer: TransferArrays, frequencies: jax.Array) -> jax.Array:
    """The sum over tilts of planes one Fourier voxel thick, see `rotations.tilt_weights`."""
    x, y, z = frequencies[..., 0], frequencies[..., 1], frequencies[..., 2]

    def add(total: jax.Array, tilt: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        angle, fading = tilt
        across = x * jnp.cos(angle) + z * jnp.sin(angle)
        away = jnp.abs(z * jnp.cos(angle) - x * jnp.sin(angle))
        overlap = jnp.minimum(1, jnp.maximum(jnp.abs(across), 0.5) / transfer.parting)
        squared = across**2 + y**2
        seen = jnp.exp(-fading * squared) * _ctf(transfer, jnp.sqrt(squared))
        return total + jnp.maximum(0, 1 - away) * overlap * jnp.cos(angle) * seen, None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), (transfer.angles_rad, transfer.fading))
    inside = jnp.sum(frequencies * frequencies, axis=-1) <= transfer.nyquist**2
    return jnp.where(inside, total / transfer.largest, 0.0)


def wedge(tilts_rad: jax.Array, frequencies: jax.Array) -> jax.Array:
    """1 where a tilt range fills Fourier space, falling to 0 over one Fourier voxel into the missing wedge.

    Args:
        tilts_rad: (2,), first and last tilt about y.
        frequencies: (…, 3), x y z in Fourier voxels.

    Returns:
        float (…) in [0, 1]; the y axis, on which all tilts lie, is full.
    """
    turned = jnp.where(frequencies[..., 0] < 0, -1.0, 1.0)  # into the half with k_x >= 0, by −k for k
    x, z = frequencies[..., 0] * turned, frequencies[..., 2] * turned
    low, high = tilts_rad[0], tilts_rad[1]
    # Distances from the faces k_x sin θ = k_z cos θ, positive on the filled side. At ±90° the face is k_x = 0, and
    # single precision must not put frequencies on it outside.
    depth = jnp.minimum(x * jnp.sin(high) - z * jnp.cos(high), z * jnp.cos(low) - x * jnp.sin(low))
    return jnp.clip(depth + 1, 0, 1)
