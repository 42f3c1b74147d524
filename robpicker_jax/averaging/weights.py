"""How much of each frequency a tomogram holds: missing wedge and contrast transfer.

The tilt axis is y and the beam z, as in the simulator, in IMOD and in RELION: at tilt θ a projection fills the plane of
Fourier space whose points have k_z / k_x = tan θ, so that what lies between the plane of the largest tilt and the z axis is
missing. Weights are functions of the frequency, not stored boxes, so that they are exact at any rotated frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.system.errors import InputError

_CTF_SAMPLES = 1024


class TransferArrays(NamedTuple):
    """A `Transfer` as numbers that compiled programs take, so that one program serves all tomograms.

    Attributes:
        tilts_rad: (2,), first and last tilt.
        ctf: (samples,), the CTF at equally spaced frequencies from 0.
        step: Fourier voxels of the box between two samples.
    """

    tilts_rad: jax.Array
    ctf: jax.Array
    step: jax.Array


@dataclass(frozen=True, eq=False)
class Transfer:
    """What a tomogram's reconstruction did to each frequency.

    Attributes:
        tilt_min_deg, tilt_max_deg: first and last tilt; −90 and 90 leave no wedge out.
        ctf: the CTF as it acts on the tomogram, |CTF| where phases were flipped, of frequencies in 1/Å; None: 1.

    Raises:
        InputError: a tilt range that is none.
    """

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    ctf: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)

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
        tilts = np.deg2rad([self.tilt_min_deg, self.tilt_max_deg])
        return TransferArrays(jnp.asarray(tilts, jnp.float32), jnp.asarray(values, jnp.float32), jnp.float32(step))


def weight(transfer: TransferArrays, frequencies: jax.Array) -> jax.Array:
    """The weight of frequencies (…, 3), x y z in Fourier voxels, in the tomogram's frame: wedge times CTF."""
    length = jnp.sqrt(jnp.sum(frequencies * frequencies, axis=-1)) / transfer.step
    low = jnp.clip(jnp.floor(length), 0, _CTF_SAMPLES - 2)
    share, index = length - low, low.astype(jnp.int32)
    ctf = (1 - share) * transfer.ctf[index] + share * transfer.ctf[index + 1]
    return wedge(transfer.tilts_rad, frequencies) * ctf


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
