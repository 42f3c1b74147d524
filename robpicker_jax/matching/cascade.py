"""The cascade: scores of all angles from a basis of turned templates, exact where they matter.

Turned templates t_a and patches p_x of the tomogram, both normalised under the mask, are unit vectors, and the score is
their product. The templates of one particle span few directions: with an orthonormal basis U of k of them,

    t_a · p_x = (Uᵀ t_a) · (Uᵀ p_x) + r,   |r| ≤ √(1 − |Uᵀ t_a|²) · √(1 − |Uᵀ p_x|²)        (Cauchy and Schwarz)

so that k correlations serve any number of angles: the rest is a product of small matrices. Four steps take a tile:

1. the k maps Uᵀ p_x, by FFT;
2. at every voxel, the best of coarse angles, from the leading part of the basis;
3. at the best few percent of the voxels, and at every peak of step 2, the best of all angles from the whole basis;
4. at the best of these, and at every peak of what step 3 left: exact scores of the best angle of each of a few
   interleaved groups. This is repeated until every peak of the map has such a score.

The bound holds for every score of step 3, but is too wide to prove that no better voxel was left out at step 2 or no
better angle at step 4. The exact search is the oracle: tests and `benchmarks.matching` compare the lists of both.
Voxels of steps 2 and 3 have the angle −1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from robpicker_jax.matching import correlation
from robpicker_jax.matching.correlation import build_filter, correlated, turned_kernel
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.templates import Template
from robpicker_jax.rotations import covering, quaternions_from_matrices
from robpicker_jax.system.errors import InputError

_SAMPLE = 1024  # templates that the basis is made from
_CHUNK = 64
_VOXELS, _ANGLES = 1024, 512  # a block of scores stays in the cache
_GROUPS = 8  # angles scored exactly at a voxel
_STEPS = 4


@dataclass(frozen=True)
class CascadeSettings:
    """How much of the work the cascade does.

    Attributes:
        energy: share of the templates' energy that the basis holds, unless `largest_rank` is less.
        largest_rank: most vectors of the basis.
        coarse_energy: share of energy of the leading part, for the coarse step.
        coarse_step_deg: angular step of the coarse angles.
        fine_share: share of the voxels of a tile that get all angles.
        exact_share: share of the voxels that get exact scores, beside the peaks.
    """

    energy: float = 0.98
    largest_rank: int = 128
    coarse_energy: float = 0.9
    coarse_step_deg: float = 25.0
    fine_share: float = 0.03
    exact_share: float = 0.01


@dataclass(frozen=True, eq=False)
class CascadeSearch:
    """Scores tiles by the cascade; made by `build_cascade`.

    Attributes:
        template: what is searched for; its mask does not turn.
        rotations: (m, 3, 3).
        settings: see `CascadeSettings`.
        vectors: float32 (m, s), the normalised turned templates on the s voxels of the mask.
        coefficients: float32 (m, k), of the vectors in the basis.
        basis: float32 (k, n, n, n), kernels whose correlation gives Uᵀ p_x σ.
        coarse: indices of the coarse rotations.
        coarse_rank: vectors of the basis that the coarse step uses.
    """

    template: Template
    rotations: np.ndarray
    settings: CascadeSettings
    vectors: np.ndarray
    coefficients: np.ndarray
    basis: np.ndarray
    coarse: np.ndarray
    coarse_rank: int

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that a tile gives."""
        return ("scores", "angles")

    @property
    def cost(self) -> Cost:
        """See `cascade_cost`; of the rank that the basis has."""
        return _cost(self.template, *self.coefficients.shape)

    @property
    def energy(self) -> float:
        """Mean share of the templates' energy that the basis holds."""
        return float(np.mean(np.sum(self.coefficients**2, axis=1)))

    def tile(
        self, tile: np.ndarray, core_zyx: tuple[int, int, int], on_units: Callable[[int], None] | None = None
    ) -> Mapping[str, np.ndarray]:
        """The maps of a core: "scores" float32, "angles" int32, −1 where no angle was settled; see `ExactSearch.tile`."""

        def done() -> None:
            if on_units is not None:
                on_units(1)

        weights = self.template.mask / self.template.mask.sum()
        spectrum, _, inverse = correlation.prepared_tile(jnp.asarray(tile), jnp.asarray(weights), core=core_zyx)
        projections = _projected(
            spectrum,
            inverse,
            jnp.asarray(self.basis),
            shape=correlation.tile_shape(core_zyx, self.template.edge),
            core=core_zyx,
        )
        projections.block_until_ready()
        done()
        coarse = jnp.asarray(self.coefficients[self.coarse][:, : self.coarse_rank])
        scores = _best_of_all(coarse, projections[: self.coarse_rank])
        done()
        local = scores.reshape(core_zyx)
        chosen = np.union1d(_best(scores, self.settings.fine_share), np.flatnonzero(_peaks(local)))
        maps = np.asarray(projections)
        scores[chosen] = _best_of_all(jnp.asarray(self.coefficients), maps[:, chosen])
        done()
        angles = np.full(scores.shape, -1, np.int32)
        waiting = _best(scores, self.settings.exact_share)
        deviation = np.asarray(inverse).reshape(-1)
        grouped = self._grouped()
        while True:  # each round settles a voxel at least, and few are ever needed
            peaks = np.flatnonzero(_peaks(scores.reshape(core_zyx)))
            waiting = np.union1d(waiting, peaks)
            waiting = waiting[angles[waiting] < 0]
            if not len(waiting):
                break
            scores[waiting], angles[waiting] = self._exact(tile, core_zyx, maps, deviation, waiting, grouped)
        done()
        return {"scores": scores.reshape(core_zyx), "angles": angles.reshape(core_zyx)}

    def _grouped(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles in interleaved groups, (groups, m / groups) indices, and the coefficients in that order."""
        length = math.ceil(len(self.rotations) / _GROUPS)
        numbers = np.arange(length * _GROUPS) % len(self.rotations)
        order = numbers.reshape(length, _GROUPS).T
        return order, np.ascontiguousarray(self.coefficients[order.reshape(-1)].T)

    def _exact(
        self,
        tile: np.ndarray,
        core: tuple[int, int, int],
        maps: np.ndarray,
        deviation: np.ndarray,
        voxels: np.ndarray,
        grouped: tuple[np.ndarray, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact scores and angles of voxels of the core (flat indices), at the best angle of each group."""
        order, coefficients = grouped
        mask = self.template.mask
        support = np.flatnonzero(mask)
        offsets = np.stack(np.unravel_index(support, mask.shape))
        steps = np.array([tile.shape[1] * tile.shape[2], tile.shape[2], 1])
        flat, away = tile.reshape(-1), steps @ offsets
        roots = np.sqrt(mask.reshape(-1)[support] / mask.sum())
        scores, angles = np.empty(len(voxels), np.float32), np.empty(len(voxels), np.int32)
        for first in range(0, len(voxels), _VOXELS // 4):
            now = voxels[first : first + _VOXELS // 4]
            approximate = (maps[:, now].T @ coefficients).reshape(len(now), _GROUPS, -1)
            candidates = np.take_along_axis(order[None], approximate.argmax(axis=2)[..., None], axis=2)[..., 0]
            corners = steps @ np.stack(np.unravel_index(now, core))
            patches = flat[corners[:, None] + away[None]] * roots * deviation[now, None]
            found = np.matmul(self.vectors[candidates], patches[:, :, None])[..., 0]
            best = found.argmax(axis=1)
            rows = np.arange(len(now))
            scores[first : first + len(now)] = found[rows, best]
            angles[first : first + len(now)] = candidates[rows, best]
        return scores, angles


def cascade_cost(template: Template, angles: int, settings: CascadeSettings) -> Cost:
    """The most that a cascade may take, whatever the rank of its basis turns out to be."""
    return _cost(template, angles, min(settings.largest_rank, angles, int(np.count_nonzero(template.mask))))


def _cost(template: Template, angles: int, rank: int) -> Cost:
    """The turned templates, their coefficients and the basis are held; a tile takes the maps of the basis twice, a few
    arrays of its own, a copy of the coefficients in groups, and what one block of voxels gathers."""
    support = int(np.count_nonzero(template.mask))
    basis = rank * template.mask.size
    block = _VOXELS // 4 * ((_GROUPS + 1) * support + angles)
    return Cost(
        template.edge,
        _STEPS,
        4 * (angles * (support + rank) + basis),
        8 * rank,
        48,
        4 * (angles * rank + basis + block),
    )


def build_cascade(
    template: Template,
    rotations: np.ndarray,
    wedge: np.ndarray | None = None,
    settings: CascadeSettings | None = None,
    *,
    on_angles: Callable[[int], None] | None = None,
) -> CascadeSearch:
    """Turn the template to all rotations and find their basis.

    Args:
        template: what is searched for.
        rotations: (m, 3, 3).
        wedge: centred weights of the template's box; none: all ones.
        settings: see `CascadeSettings`.
        on_angles: called with the number of templates just turned.

    Raises:
        InputError: a mask that turns with its template.
    """
    if template.turns:
        raise InputError("the cascade needs a mask that does not turn", where="--mask", fix="sphere, or --search exact")
    settings = settings or CascadeSettings()
    support = np.flatnonzero(template.mask)
    weights = template.mask.reshape(-1)[support] / template.mask.sum()
    vectors = np.empty((len(rotations), len(support)), np.float32)
    source = build_filter(template, wedge)
    at = jnp.asarray(support)
    for first in range(0, len(rotations), _CHUNK):
        numbers = np.minimum(np.arange(first, first + _CHUNK), len(rotations) - 1)
        kernels = np.asarray(_kernels(source, jnp.asarray(rotations[numbers], jnp.float32), at))
        count = min(_CHUNK, len(rotations) - first)
        vectors[first : first + count] = kernels[:count] / np.sqrt(weights)
        if on_angles is not None:
            on_angles(count)
    sample = vectors[np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(int)]
    values, left = np.linalg.eigh(sample @ sample.T)
    values, left = np.maximum(values[::-1], 0), left[:, ::-1]
    shares = np.cumsum(values) / values.sum()
    rank = min(
        int(np.searchsorted(shares, settings.energy)) + 1, settings.largest_rank, int((values > 1e-6 * values[0]).sum())
    )
    coarse_rank = min(rank, int(np.searchsorted(shares, settings.coarse_energy)) + 1)
    unit = (left[:, :rank].T @ sample) / np.sqrt(values[:rank, None])
    basis = np.zeros((rank, template.mask.size), np.float32)
    basis[:, support] = unit * np.sqrt(weights)
    quaternions = quaternions_from_matrices(rotations)
    wanted = quaternions_from_matrices(covering(settings.coarse_step_deg, template.symmetry))
    coarse = np.unique(np.abs(wanted @ quaternions.T).argmax(axis=1))
    return CascadeSearch(
        template,
        np.asarray(rotations),
        settings,
        vectors,
        np.asarray(vectors @ unit.T, np.float32),
        basis.reshape(rank, *template.mask.shape),
        coarse,
        coarse_rank,
    )


@jax.jit
def _kernels(source: correlation.Filter, rotations: jax.Array, support: jax.Array) -> jax.Array:
    """Normalised turned templates on the mask's voxels, (m, s)."""
    return jnp.asarray(jax.lax.map(lambda rotation: turned_kernel(source, rotation)[0].reshape(-1)[support], rotations))


@partial(jax.jit, static_argnames=("shape", "core"))
def _projected(
    spectrum: jax.Array,
    inverse: jax.Array,
    basis: jax.Array,
    *,
    shape: tuple[int, int, int],
    core: tuple[int, int, int],
) -> jax.Array:
    """Uᵀ p_x of every voxel of the core, (k, voxels)."""

    def one(kernel: jax.Array) -> jax.Array:
        return (correlated(spectrum, kernel, shape, core) * inverse).reshape(-1)

    return jnp.asarray(jax.lax.map(one, basis))


def _best_of_all(coefficients: jax.Array, projections: jax.Array | np.ndarray) -> np.ndarray:
    """The largest score over angles at each voxel; voxels and angles are filled up to whole blocks."""
    count = projections.shape[1]
    if not count:
        return np.zeros(0, np.float32)
    blocks = -(-count // _VOXELS)
    blocks = 1 << (blocks - 1).bit_length() if blocks < 64 else -(-blocks // 64) * 64  # few sizes, few compilations
    padded = jnp.pad(jnp.asarray(projections), ((0, 0), (0, blocks * _VOXELS - count)))
    missing = -len(coefficients) % _ANGLES
    filled = jnp.concatenate([coefficients, jnp.broadcast_to(coefficients[:1], (missing, coefficients.shape[1]))])
    return np.array(_block_maxima(filled.reshape(-1, _ANGLES, coefficients.shape[1]), padded))[:count]


@jax.jit
def _block_maxima(coefficients: jax.Array, projections: jax.Array) -> jax.Array:
    """Maxima over angles, block by block: (blocks of angles, angles, k) with (k, voxels) to (voxels,)."""

    def voxels(number: jax.Array) -> jax.Array:
        block = jax.lax.dynamic_slice_in_dim(projections, number * _VOXELS, _VOXELS, axis=1)

        def angles(best: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
            return jnp.maximum(best, jnp.max(rows @ block, axis=0)), None

        best, _ = jax.lax.scan(angles, jnp.full(_VOXELS, -2.0, projections.dtype), coefficients)
        return best

    return jnp.asarray(jax.lax.map(voxels, jnp.arange(projections.shape[1] // _VOXELS))).reshape(-1)


def _best(scores: np.ndarray, share: float) -> np.ndarray:
    """Indices of the best share of the scores, at least one."""
    count = min(len(scores), max(1, round(share * len(scores))))
    return np.argpartition(scores, len(scores) - count)[-count:]


def _peaks(scores: np.ndarray) -> np.ndarray:
    """Voxels that no neighbour exceeds, bool."""
    return np.asarray(
        (scores >= scipy.ndimage.maximum_filter(scores, size=3, mode="constant", cval=-np.inf)) & (scores > 0)
    )
