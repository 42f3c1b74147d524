"""Turned templates as unit vectors, and the few directions that hold most of their energy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.matching import correlation
from robpicker_jax.matching.correlation import build_filter, turned_kernel
from robpicker_jax.matching.templates import Template
from robpicker_jax.system.cores import usable_cores
from robpicker_jax.system.errors import InputError

_SAMPLE = 1024  # templates that the basis is made from
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class TurnedTemplates:
    """A template at every rotation of a list, on the s voxels of its mask.

    Attributes:
        vectors: float32 (m, s), T′ √(n / M): unit vectors, so that their products are scores.
        basis: float32 (k, s), orthonormal directions that hold most of the vectors' energy, the strongest first.
        coefficients: float32 (m, k), of the vectors in the basis.
    """

    vectors: np.ndarray
    basis: np.ndarray
    coefficients: np.ndarray

    @property
    def energy(self) -> float:
        """Mean share of the vectors' energy that the basis holds."""
        return self.energy_of(len(self.basis))

    def energy_of(self, rank: int) -> float:
        """Mean share of the vectors' energy that the first directions of the basis hold."""
        return float(np.mean(np.sum(self.coefficients[:, :rank] ** 2, axis=1)))


def turned_templates(
    template: Template,
    rotations: np.ndarray,
    wedge: np.ndarray | None = None,
    *,
    energy: float,
    largest_rank: int,
    workers: int | None = None,
    on_angles: Callable[[int], None] | None = None,
) -> TurnedTemplates:
    """Turn a template to all rotations and find their basis.

    The basis is made from 1,024 of the turned templates at most, which lie evenly in the list; its energy is that of all.

    Args:
        template: with a mask that does not turn.
        rotations: (m, 3, 3).
        wedge: centred weights of the template's box; none: all ones.
        energy: share of the sample's energy that the basis holds, unless `largest_rank` is less.
        largest_rank: most directions of the basis.
        workers: threads; none: one for each core.
        on_angles: called with the number of templates just turned.

    Raises:
        InputError: a mask that turns with its template.
    """
    if template.turns:
        raise InputError("the cascade needs a mask that does not turn", where="--mask", fix="sphere, or --search exact")
    support = np.flatnonzero(template.mask)
    roots = np.sqrt(template.mask.reshape(-1)[support] / template.mask.sum())
    vectors = np.empty((len(rotations), len(support)), np.float32)
    source, at = build_filter(template, wedge), jnp.asarray(support)

    def turn(first: int) -> int:
        numbers = np.minimum(np.arange(first, first + _CHUNK), len(rotations) - 1)
        kernels = np.asarray(_kernels(source, jnp.asarray(rotations[numbers], jnp.float32), at))
        count = min(_CHUNK, len(rotations) - first)
        np.divide(kernels[:count], roots, out=vectors[first : first + count])
        return count

    with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="turning") as pool:
        for count in pool.map(turn, range(0, len(rotations), _CHUNK)):
            if on_angles is not None:
                on_angles(count)
    sample = vectors[np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(int)]
    values, left = np.linalg.eigh(sample @ sample.T)
    values, left = np.maximum(values[::-1], 0), left[:, ::-1]
    shares = np.cumsum(values) / values.sum()
    rank = min(int(np.searchsorted(shares, energy)) + 1, largest_rank, int((values > 1e-6 * values[0]).sum()))
    basis = np.asarray((left[:, :rank].T @ sample) / np.sqrt(values[:rank, None]), np.float32)
    return TurnedTemplates(vectors, basis, np.asarray(vectors @ basis.T, np.float32))


def making_values(support: int, angles: int, threads: int) -> int:
    """Numbers in memory while templates are turned and their basis is made, beside the result."""
    sample = min(_SAMPLE, angles)
    return max(threads * _CHUNK * 3 * support, sample * (support + 4 * sample))


@jax.jit
def _kernels(source: correlation.Filter, rotations: jax.Array, support: jax.Array) -> jax.Array:
    """Normalised turned templates on the mask's voxels, (m, s)."""
    return jnp.asarray(jax.lax.map(lambda rotation: turned_kernel(source, rotation)[0].reshape(-1)[support], rotations))
