"""The cascade: scores of all angles from a basis of turned templates, exact where they matter.

Turned templates t_a and patches p_x of the tomogram, both normalised under the mask, are unit vectors, and the score is
their product. The templates of one particle span few directions: with an orthonormal basis U of k of them,

    t_a · p_x = (Uᵀ t_a) · (Uᵀ p_x) + r,   |r| ≤ √(1 − |Uᵀ t_a|²) · √(1 − |Uᵀ p_x|²)        (Cauchy and Schwarz)

so that k numbers of a patch serve any number of angles: the rest is a product of small matrices. Three steps take a tile:

1. at every voxel, the best of coarse angles, from the leading part of the basis, whose correlations are made by FFT;
2. at the best few percent of the voxels, and at every peak: the patch itself is read, all angles are scored from the
   whole basis, and the best of the best angles of interleaved groups are scored exactly;
3. the same where that made a peak of a voxel that had no exact score, until every peak has one.

The bound holds for every score of the basis, but is too wide to prove that no better voxel was left out at step 1 or no
better angle at step 2. The exact search is the oracle: tests and `benchmarks.matching` compare the lists of both.
Voxels without an exact score have the angle −1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from robpicker_jax.matching import correlation
from robpicker_jax.matching.correlation import correlated
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.extraction import apart
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import Voxels, read_box
from robpicker_jax.matching.turned import TurnedTemplates, making_values, turned_templates
from robpicker_jax.rotations import covering, quaternions_from_matrices
from robpicker_jax.system.cores import usable_cores

_VOXELS, _ANGLES = 1024, 512  # a block of scores stays in the cache
_PATCHES = 256  # read and scored at once
_GROUPS = 16  # of interleaved angles, the best of each of which may be scored exactly
_CANDIDATES = 6  # of these, scored exactly at a voxel
_STEPS = 3


@dataclass(frozen=True)
class CascadeSettings:
    """How much of the work the cascade does.

    Attributes:
        energy: share of the templates' energy that the basis holds, unless `largest_rank` is less.
        largest_rank: most vectors of the basis.
        coarse_energy: share of energy of the leading part, for the coarse step, unless `largest_coarse_rank` is less.
        largest_coarse_rank: most vectors of the leading part.
        coarse_step_deg: angular step of the coarse angles.
        exact_share: share of the voxels of a tile that get all angles and exact scores, beside the peaks.
    """

    energy: float = 0.98
    largest_rank: int = 96
    coarse_energy: float = 0.9
    largest_coarse_rank: int = 48
    coarse_step_deg: float = 25.0
    exact_share: float = 0.06


@dataclass(frozen=True, eq=False)
class CascadeSearch:
    """Scores tiles by the cascade; made by `build_cascade`.

    Attributes:
        template: what is searched for; its mask does not turn.
        rotations: (m, 3, 3).
        settings: see `CascadeSettings`.
        turned: the template at all rotations, and their basis.
        coarse: indices of the coarse rotations.
        coarse_rank: directions of the basis that the coarse step uses.
        distance_vox: how near two peaks may be; a peak nearer to a higher one needs no exact score.
        workers: threads; none: one for each core.
    """

    template: Template
    rotations: np.ndarray
    settings: CascadeSettings
    turned: TurnedTemplates
    coarse: np.ndarray
    coarse_rank: int
    distance_vox: float
    workers: int | None = None
    grouped: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Interleaved groups of angles, (groups, m / groups) indices, and the coefficients in that order.
        length = math.ceil(len(self.rotations) / _GROUPS)
        order = (np.arange(length * _GROUPS) % len(self.rotations)).reshape(length, _GROUPS).T
        ordered = np.ascontiguousarray(self.turned.coefficients[order.reshape(-1)].T)
        object.__setattr__(self, "grouped", (order, ordered))

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that a tile gives."""
        return ("scores", "angles")

    @property
    def cost(self) -> Cost:
        """See `cascade_cost`; of the ranks that the basis has."""
        angles, rank = self.turned.coefficients.shape
        return _cost(self.template, angles, rank, self.coarse_rank, len(self.coarse), self.workers)

    def kernels(self) -> np.ndarray:
        """The leading part of the basis as boxes of the mask's window, whose correlations give Uᵀ p_x σ."""
        mask, leading = self.template.mask, self.turned.basis[: self.coarse_rank]
        support = np.flatnonzero(mask)
        boxes = np.zeros((len(leading), mask.size), np.float32)
        boxes[:, support] = leading * self._roots
        part = slice(*self.template.window)
        return np.ascontiguousarray(boxes.reshape(-1, *mask.shape)[:, part, part, part])

    @property
    def _roots(self) -> np.ndarray:
        weights = self.template.mask[self.template.mask > 0]
        return np.asarray(np.sqrt(weights / self.template.mask.sum()), np.float32)

    def tile(
        self, tile: np.ndarray, core_zyx: tuple[int, int, int], on_units: Callable[[int], None] | None = None
    ) -> Mapping[str, np.ndarray]:
        """The maps of a core: "scores" float32, "angles" int32, −1 where no angle was settled; see `ExactSearch.tile`."""

        def done() -> None:
            if on_units is not None:
                on_units(1)

        part = (slice(*self.template.window),) * 3
        weights = jnp.asarray((self.template.mask / self.template.mask.sum())[part])
        spectrum, _, inverse = correlation.prepared_tile(jnp.asarray(tile), weights, core=core_zyx)
        shape = correlation.tile_shape(core_zyx, part[0].stop - part[0].start)
        kernels = jnp.asarray(self.kernels())
        projections = _projected(spectrum, inverse, kernels, shape=shape, core=core_zyx)
        coefficients = jnp.asarray(self.turned.coefficients[self.coarse][:, : self.coarse_rank])
        scores = _best_of_all(coefficients, projections)
        del projections, spectrum
        done()
        angles = np.full(scores.shape, -1, np.int32)
        deviation = np.asarray(inverse).reshape(-1)
        waiting = np.union1d(_best(scores, self.settings.exact_share), self._peaks(scores.reshape(core_zyx)))
        for round_ in range(len(scores)):  # each settles a voxel at least, and few are ever needed
            if not len(waiting):
                break
            scores[waiting], angles[waiting] = self._exact(tile, core_zyx, deviation, waiting)
            peaks = self._peaks(scores.reshape(core_zyx))
            waiting = peaks[angles[peaks] < 0]
            if round_ == 0:
                done()
        done()
        return {"scores": scores.reshape(core_zyx), "angles": angles.reshape(core_zyx)}

    def _peaks(self, scores: np.ndarray) -> np.ndarray:
        """Flat indices of the voxels that no neighbour exceeds, and no peak that is kept nearer than the distance."""
        local = (scores >= scipy.ndimage.maximum_filter(scores, size=3, mode="constant", cval=-np.inf)) & (scores > 0)
        numbers = np.flatnonzero(local)
        numbers = numbers[np.argsort(-scores.reshape(-1)[numbers], kind="stable")]
        kept = apart(np.stack(np.unravel_index(numbers, scores.shape), axis=1), self.distance_vox)
        return np.asarray(numbers[kept])

    def _exact(
        self, tile: np.ndarray, core: tuple[int, int, int], deviation: np.ndarray, voxels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact scores and their angles at voxels of the core (flat indices)."""
        mask = self.template.mask
        steps = np.array([tile.shape[1] * tile.shape[2], tile.shape[2], 1])
        away = steps @ (np.stack(np.nonzero(mask)) - self.template.window[0])
        corners = steps @ np.stack(np.unravel_index(voxels, core))
        flat = tile.reshape(-1)

        def patches(numbers: np.ndarray) -> np.ndarray:
            found = np.empty((len(numbers), len(away)), np.float32)
            for row, number in zip(found, numbers, strict=True):
                np.take(flat[corners[number] :], away, out=row, mode="clip")  # "raise" would copy the row
            found *= self._roots
            found *= deviation[voxels[numbers], None]
            return found

        return self._scored(patches, len(voxels))

    def settled(self, volume: Voxels, voxels_zyx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact scores float32 (n,) and their angles int32 (n,) at voxels (n, 3) of a tomogram.

        For peaks that no tile took for one: where a mask or a tile's face keeps the higher one beside them away.
        """
        mask = self.template.mask
        inside, roots = mask > 0, self._roots
        corner, shape = self.template.edge // 2, mask.shape

        def patches(numbers: np.ndarray) -> np.ndarray:
            boxes = (read_box(volume, (voxels_zyx[number] - corner).tolist(), shape) for number in numbers)
            found = np.stack([box[inside] for box in boxes]) * roots
            found -= (found @ roots)[:, None] * roots
            norm = np.linalg.norm(found, axis=1, keepdims=True)
            scale = np.where(norm > correlation.SMALLEST_DEVIATION, 1 / np.maximum(norm, 1e-20), 0)
            return np.asarray(found * scale, np.float32)

        return self._scored(patches, len(voxels_zyx))

    def _scored(self, patches: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        """The best exact score of each patch, and its angle: of the best angles of each group by the basis."""
        order, coefficients = self.grouped
        vectors, basis = self.turned.vectors, self.turned.basis
        scores, angles = np.empty(count, np.float32), np.empty(count, np.int32)

        def block(first: int) -> None:
            numbers = np.arange(first, min(first + _PATCHES, count))
            found = patches(numbers)
            approximate = ((found @ basis.T) @ coefficients).reshape(len(numbers), _GROUPS, -1)
            places = approximate.argmax(axis=2)
            values = np.take_along_axis(approximate, places[..., None], axis=2)[..., 0]
            chosen = np.argpartition(-values, _CANDIDATES, axis=1)[:, :_CANDIDATES]
            candidates = order[chosen, np.take_along_axis(places, chosen, axis=1)]
            for number, patch, tried in zip(numbers, found, candidates, strict=True):
                exact = vectors[tried] @ patch
                best = int(exact.argmax())
                scores[number], angles[number] = exact[best], tried[best]

        with ThreadPoolExecutor(self.workers or usable_cores(), thread_name_prefix="patches") as pool:
            list(pool.map(block, range(0, count, _PATCHES)))
        return scores, angles


def cascade_cost(
    template: Template, rotations: np.ndarray, settings: CascadeSettings, workers: int | None = None
) -> Cost:
    """The most that a cascade may take, whatever the rank of its basis turns out to be."""
    rank = min(settings.largest_rank, len(rotations), int(np.count_nonzero(template.mask)))
    leading = min(rank, settings.largest_coarse_rank)
    return _cost(template, len(rotations), rank, leading, len(_coarse(template, rotations, settings)), workers)


def _cost(template: Template, angles: int, rank: int, coarse_rank: int, coarse: int, workers: int | None) -> Cost:
    """The turned templates, their coefficients twice and the basis are held; a tile takes the maps of the leading part of
    the basis twice, a few arrays of its own, and what a block of patches takes in each thread. Before, making the basis
    takes about as much."""
    support = int(np.count_nonzero(template.mask))
    first, last = template.window
    threads = workers or usable_cores()
    block = threads * _PATCHES * (2 * support + rank + angles)
    tile = coarse_rank * (last - first) ** 3 + coarse * coarse_rank + block
    return Cost(
        last - first,
        _STEPS,
        4 * (angles * (support + 2 * rank) + rank * support),
        8 * coarse_rank + 16,
        48,
        4 * max(tile, making_values(support, angles, threads)),
    )


def _coarse(template: Template, rotations: np.ndarray, settings: CascadeSettings) -> np.ndarray:
    """Indices of the rotations nearest to those of a coarse covering."""
    wanted = quaternions_from_matrices(covering(settings.coarse_step_deg, template.symmetry))
    return np.unique(np.abs(wanted @ quaternions_from_matrices(rotations).T).argmax(axis=1))


def build_cascade(
    template: Template,
    rotations: np.ndarray,
    wedge: np.ndarray | None = None,
    settings: CascadeSettings | None = None,
    *,
    distance_vox: float | None = None,
    workers: int | None = None,
    on_angles: Callable[[int], None] | None = None,
) -> CascadeSearch:
    """Turn the template to all rotations and find their basis.

    Args:
        template: what is searched for.
        rotations: (m, 3, 3).
        wedge: centred weights of the template's box; none: all ones.
        settings: see `CascadeSettings`.
        distance_vox: how near two peaks may be; none: half the particle's diameter.
        workers: threads; none: one for each core.
        on_angles: called with the number of templates just turned.

    Raises:
        InputError: a mask that turns with its template.
    """
    settings = settings or CascadeSettings()
    turned = turned_templates(
        template,
        rotations,
        wedge,
        energy=settings.energy,
        largest_rank=settings.largest_rank,
        workers=workers,
        on_angles=on_angles,
    )
    shares = np.cumsum(np.mean(turned.coefficients**2, axis=0))
    leading = int(np.searchsorted(shares, settings.coarse_energy)) + 1
    leading = min(len(shares), settings.largest_coarse_rank, leading)
    distance = template.diameter_vox / 2 if distance_vox is None else distance_vox
    coarse = _coarse(template, rotations, settings)
    return CascadeSearch(template, np.asarray(rotations), settings, turned, coarse, leading, distance, workers)


@partial(jax.jit, static_argnames=("shape", "core"))
def _projected(
    spectrum: jax.Array,
    inverse: jax.Array,
    kernels: jax.Array,
    *,
    shape: tuple[int, int, int],
    core: tuple[int, int, int],
) -> jax.Array:
    """Uᵀ p_x of every voxel of the core, (k, voxels), of the kernels of k directions."""

    def one(kernel: jax.Array) -> jax.Array:
        return (correlated(spectrum, kernel, shape, core) * inverse).reshape(-1)

    return jnp.asarray(jax.lax.map(one, kernels))


def _best_of_all(coefficients: jax.Array, projections: jax.Array) -> np.ndarray:
    """The largest score over angles at each voxel; voxels and angles are filled up to whole blocks."""
    count = projections.shape[1]
    blocks = -(-count // _VOXELS)
    padded = jnp.pad(projections, ((0, 0), (0, blocks * _VOXELS - count)))
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
