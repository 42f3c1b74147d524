"""How much of each frequency a tomogram holds: missing wedge and contrast transfer.

The tilt axis is y and the beam z, as in the simulator, in IMOD and in RELION: at tilt θ a projection fills the plane of
Fourier space whose points have k_z / k_x = tan θ, so that what lies between the plane of the largest tilt and the z axis is
missing. Weights are functions of the frequency, not stored boxes, so that they are exact at any rotated frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class Transfer:
    """What a tomogram's reconstruction did to each frequency.

    Attributes:
        tilt_min_deg, tilt_max_deg: first and last tilt; −90 and 90 leave no wedge out.
        ctf: |CTF| (phases flipped) or CTF against |k| in 1/Å, as (frequencies, values); None: 1 everywhere.
    """

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    ctf: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if not -90 <= self.tilt_min_deg < self.tilt_max_deg <= 90:
            raise InputError(
                f"tilts from {self.tilt_min_deg:g} to {self.tilt_max_deg:g} degrees",
                where="--tilts",
                fix="give the first and the last tilt, between -90 and 90",
            )

    def weight(self, frequencies: jax.Array, edge: int, voxel_size_angstrom: float) -> jax.Array:
        """The weight in [0, 1] (signed, where the CTF is) of frequencies in the tomogram's frame.

        
        Args:
            frequencies: (…, 3), x y z in Fourier voxels of a box.
            edge: edge of that box.
            voxel_size_angstrom: of the tomogram.
        """
        weight = wedge(frequencies, self.tilt_min_deg, self.tilt_max_deg)
        if self.ctf is None:
            return weight
        length = jnp.sqrt(jnp.sum(frequencies * frequencies, axis=-1)) / (edge * voxel_size_angstrom)
        at, values = (jnp.asarray(part, jnp.float32) for part in self.ctf)
        return weight * jnp.interp(length, at, values)


def wedge(frequencies: jax.Array, tilt_min_deg: float, tilt_max_deg: float) -> jax.Array:
    """1 where a tilt range fills Fourier space, falling to 0 over one Fourier voxel into the missing wedge.

    Args:
        frequencies: (…, 3), x y z in Fourier voxels.
        tilt_min_deg, tilt_max_deg: first and last tilt about y.

    Returns:
        float (…) in [0, 1]; the y axis, on which all tilts lie, is full.
    """
    turned = jnp.where(frequencies[..., 0] < 0, -1.0, 1.0)  # into the half with k_x >= 0, by −k for k
    x, z = frequencies[..., 0] * turned, frequencies[..., 2] * turned
    depth = jnp.full(x.shape, jnp.inf)
    for limit_deg, side in ((tilt_max_deg, 1.0), (tilt_min_deg, -1.0)):
        if abs(limit_deg) < 90:
            angle = math.radians(limit_deg)
            # Distance from the face k_x sin θ = k_z cos θ, positive on the filled side.
            depth = jnp.minimum(depth, side * (x * math.sin(angle) - z * math.cos(angle)))
    return jnp.clip(depth + 1, 0, 1)


def sampled_ctf(values: np.ndarray, frequencies: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A curve for `Transfer.ctf` from arrays of the same length: frequencies in 1/Å, rising, and values."""
    return tuple(map(float, frequencies)), tuple(map(float, values))
