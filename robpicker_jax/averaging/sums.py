"""Weighted Fourier sums of rotated subtomograms, and the average that they give.

For particle i with rotation R_i (reference to tomogram frame), offset t_i from its box's centre, transform F_i and weight
W_i (missing wedge and CTF, in the tomogram's frame):

    S(k) = Σ_i W_i(R_i k) F_i(R_i k) exp(2πi R_i k · t_i / edge),    D(k) = Σ_i W_i(R_i k)²,
    A(k) = S(k) / (D(k) + ε max D),

the Wiener estimate of the common density under white noise whose power is ε max D times the signal's; A = 0 where D = 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.averaging.frequencies import CUBIC, half_space, read, transform, volume
from robpicker_jax.averaging.weights import Transfer, TransferArrays, weight
from robpicker_jax.system.compilation import jit

WIENER = 0.01
"""ε of the average: what is seen in fewer than about one in a hundred of the views is damped."""


@dataclass
class Sums:
    """The two sums of one half set; each frequency of the box once (`frequencies.half_space`).

    Attributes:
        edge: edge of the box, voxels.
        signal: complex128 (n,), S.
        weight: float64 (n,), D.
        count: particles summed, copies by symmetry not counted.
    """

    edge: int
    signal: np.ndarray
    weight: np.ndarray
    count: int = 0

    @classmethod
    def empty(cls, edge: int) -> Sums:
        """No particle yet."""
        n = len(frequencies_of(edge))
        return cls(edge, np.zeros(n, np.complex128), np.zeros(n))

    def add(
        self,
        volumes: np.ndarray,
        offsets: np.ndarray,
        rotations: np.ndarray,
        transfer: Transfer,
        voxel_size_angstrom: float,
        *,
        symmetry: np.ndarray | None = None,
    ) -> None:
        """Add a batch of subtomograms.

        Args:
            volumes: float32 (batch, edge, edge, edge); rows beyond `rotations` are ignored.
            offsets: (batch, 3), x y z, voxels.
            rotations: (m, 3, 3), m <= batch, reference to tomogram frame.
            transfer: of the tomogram that they come from.
            voxel_size_angstrom: of that tomogram.
            symmetry: (g, 3, 3), the rotations of the particle's point group; None: the identity.
        """
        group = np.eye(3)[None] if symmetry is None else symmetry
        used = np.zeros(len(volumes), np.float32)
        used[: len(rotations)] = 1
        arrays = transfer.arrays(self.edge, voxel_size_angstrom)
        turns = np.tile(np.eye(3, dtype=np.float32), (len(volumes), 1, 1))
        for element in group:  # r_tomogram = R r_reference, and r_reference = g r_reference for a symmetric particle
            turns[: len(rotations)] = np.asarray(rotations) @ element
            signal, squares = _summed(self.edge)(arrays, volumes, offsets, turns, used)
            self.signal += np.asarray(signal, np.complex128)
            self.weight += np.asarray(squares, np.float64)
        self.count += len(rotations)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.edge, self.signal + other.signal, self.weight + other.weight, self.count + other.count)

    def values(self, wiener: float = WIENER) -> np.ndarray:
        """A at `frequencies_of(edge)`, complex128 (n,)."""
        top = float(self.weight.max(initial=0.0))
        if top == 0:
            return np.zeros_like(self.signal)
        return np.where(self.weight > 0, self.signal / (self.weight + wiener * top), 0)

    def average(self, wiener: float = WIENER) -> np.ndarray:
        """The average, float32 (edge, edge, edge) z y x."""
        return volume(self.values(wiener), frequencies_of(self.edge), self.edge)


def frequencies_of(edge: int) -> np.ndarray:
    """The frequencies of averages: all below half the edge."""
    return half_space(edge, 0.0, edge / 2)


@functools.lru_cache(maxsize=8)
def _summed(edge: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The sums of one batch, compiled for one size of box."""
    k = jnp.asarray(frequencies_of(edge), jnp.float32)

    def many(
        transfer: TransferArrays, volumes: jax.Array, offsets: jax.Array, rotations: jax.Array, used: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        def step(total: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]) -> Any:
            box, offset, rotation, use = row
            turned = k @ rotation.T
            seen = use * weight(transfer, turned)
            phase = 2 * jnp.pi / edge * (turned @ offset)
            values = read(transform(box, CUBIC), turned, CUBIC) * jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
            return (total[0] + seen * values, total[1] + seen**2), None

        zero = jnp.zeros(len(k), jnp.complex64), jnp.zeros(len(k), jnp.float32)
        return jax.lax.scan(step, zero, (volumes, offsets, rotations, used))[0]

    return jit(many)
