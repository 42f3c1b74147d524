"""Locally normalised cross-correlation of a tile with turned templates, in JAX.

With the mask M ≥ 0, n = Σ M, and means and deviations under it,

    T′ = M (T − mean_M T) / sd_M T,     score(x) = Σ_r V(x + r − c) T′(r) / (n σ(x)),
    σ²(x) = (V² ⋆ M)(x) / n − ((V ⋆ M)(x) / n)²,

where c is the voxel `edge // 2` of the box. It is Pearson's correlation of the volume and the template, weighted by the
mask: within [−1, 1], and blind to scale and offset of either (Roseman 2003). The wedge weighs the turned template before
it is normalised.

The *window* is the part of the template's box that the mask touches. A tile holds what the scores of a *core* of voxels
need: the core, as many voxels before and after it as the window reaches from the box's centre, and what makes its shape
fast. Score i of the core then is entry i of the circular correlation, without a shift, and what wraps around lies beyond
the core.

Spectra are transformed axis by axis, x first, and are kept in the order (k_x, k_y, k_z): each transform takes the last axis,
with half of the transpositions that an order of (k_z, k_y, k_x) takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from robpicker_jax.matching.templates import Template
from robpicker_jax.rotations import half_layout, oversample, rotate_volume, sample_trilinear

OVERSAMPLING = 2
"""Fine voxels in a voxel of the template, so that trilinear weights hardly blur it when it is turned."""

SMALLEST_DEVIATION = 1e-3
"""σ is not taken to be less than this share of the tomogram's standard deviation: empty corners have no score."""

_NOTHING = 1e-4  # of the largest density: what is fainter all around is taken to be 0


class Filter(NamedTuple):
    """A template ready to be turned.

    Attributes:
        fine: float32, the density on a finer grid.
        points: float32 (3, p), voxels z y x from the box's centre where the turned density may be other than 0.
        places: int32 (n³,), which of them each voxel of the box is; p where it is none.
        fine_mask: the mask likewise, where it turns with the density.
        mask: float32 (n, n, n).
        wedge: float32 (n, n, n // 2 + 1), weights in the order of `rfftn`.
    """

    fine: jax.Array
    points: jax.Array
    places: jax.Array
    fine_mask: jax.Array
    mask: jax.Array
    wedge: jax.Array


class Scores(NamedTuple):
    """Running results over angles, each with the shape of the core.

    Attributes:
        best: float32, the largest score so far.
        angle: int32, index of the rotation that gave it.
        total, squares: float32, sums of scores and of their squares.
    """

    best: jax.Array
    angle: jax.Array
    total: jax.Array
    squares: jax.Array


def build_filter(template: Template, wedge: np.ndarray | None = None) -> Filter:
    """A template with a wedge: centred weights (n, n, n) of its box, none for all ones."""
    edge = template.edge
    weights = np.ones((edge,) * 3, np.float32) if wedge is None else wedge
    fine_mask = oversample(template.mask, OVERSAMPLING) if template.turns else jnp.zeros((1, 1, 1), jnp.float32)
    voxels = np.indices((edge,) * 3).reshape(3, -1) - edge // 2
    away = np.linalg.norm(voxels, axis=0)
    magnitude = np.abs(template.density).reshape(-1)
    near = np.flatnonzero(away <= away[magnitude > _NOTHING * magnitude.max()].max() + 1)
    places = np.full(edge**3, len(near), np.int32)
    places[near] = np.arange(len(near))
    return Filter(
        oversample(template.density, OVERSAMPLING),
        jnp.asarray(voxels[:, near], jnp.float32),
        jnp.asarray(places),
        fine_mask,
        jnp.asarray(template.mask),
        jnp.asarray(half_layout(weights)),
    )


def turned_kernel(
    source: Filter, rotation: jax.Array, shift_zyx: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The normalised turned template T′ / n and its mask / n, both (n, n, n): what a tile is correlated with.

    With a shift, in voxels, the density is moved under its mask, for positions between voxels.
    """
    mask = source.mask
    edge = mask.shape[0]
    back = rotation[::-1, ::-1].T  # with the axes reversed, Rᵀ in x y z becomes the same in z y x
    values = sample_trilinear(
        source.fine, (jnp.matmul(back, source.points, precision="highest") + edge // 2) * OVERSAMPLING
    )
    turned = jnp.append(values, 0).at[source.places].get(mode="promise_in_bounds").reshape(mask.shape)
    spectrum = jnp.fft.rfftn(turned) * source.wedge
    if shift_zyx is not None:
        spectrum *= _shift_phases(shift_zyx, edge)
    filtered = jnp.fft.irfftn(spectrum, s=turned.shape)
    if source.fine_mask.size > 1:
        mask = jnp.clip(rotate_volume(source.fine_mask, rotation, oversampling=OVERSAMPLING), 0, 1)
    weights = mask / mask.sum()
    centred = filtered - (weights * filtered).sum()
    deviation = jnp.sqrt((weights * centred**2).sum())
    return weights * centred / jnp.maximum(deviation, 1e-20), weights


def _shift_phases(shift_zyx: jax.Array, edge: int) -> jax.Array:
    """exp(−2πi k · shift) in the order of `rfftn`: a shift by a fraction of a voxel, without interpolation."""
    frequencies = (jnp.fft.fftfreq(edge), jnp.fft.fftfreq(edge), jnp.fft.rfftfreq(edge))
    z, y, x = (jnp.exp(-2j * jnp.pi * k * shift) for k, shift in zip(frequencies, shift_zyx, strict=True))
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


def tile_shape(core: Sequence[int], window: int) -> tuple[int, int, int]:
    """The smallest shape for fast transforms that holds the tile of a core, for a window of this size."""
    z, y, x = (int(scipy.fft.next_fast_len(int(size) + window - 1, real=True)) for size in core)
    return z, y, x


def transformed(box: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """The transform of a box in the corner of zeros, (k_x, k_y, k_z); lines that are still all 0 are not transformed."""
    lines = jnp.fft.rfft(box, n=shape[2])
    lines = jnp.fft.fft(lines.transpose(0, 2, 1), n=shape[1])
    return jnp.fft.fft(lines.transpose(1, 2, 0), n=shape[0])


def _core_of_inverse(spectrum: jax.Array, shape: tuple[int, int, int], core: tuple[int, int, int]) -> jax.Array:
    """The core of the inverse of `transformed`, (z, y, x); lines beyond it are not transformed."""
    lines = jnp.fft.ifft(spectrum)[..., : core[0]]
    lines = jnp.fft.ifft(lines.transpose(2, 0, 1))[..., : core[1]]
    return jnp.fft.irfft(lines.transpose(0, 2, 1), n=shape[2])[..., : core[2]]


def correlated(
    spectrum: jax.Array, kernel: jax.Array, shape: tuple[int, int, int], core: tuple[int, int, int]
) -> jax.Array:
    """Σ_r V(x + r − c) K(r) for the voxels x of a core: of the tile's `transformed` and of the window of a kernel."""
    return _core_of_inverse(spectrum * jnp.conj(transformed(kernel, shape)), shape, core)


@partial(jax.jit, static_argnames=("core",))
def prepared_tile(
    tile: jax.Array, weights: jax.Array, *, core: tuple[int, int, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A tile's transform, that of its square, and 1 / σ of its core under a mask that does not turn.

    Args:
        tile: float32, of a tomogram with mean 0 and standard deviation 1.
        weights: the window of mask / Σ mask.
        core: shape of the core.
    """
    shape: tuple[int, int, int] = tile.shape  # type: ignore[assignment]
    spectrum, squared = transformed(tile, shape), transformed(tile * tile, shape)
    return spectrum, squared, _inverse_deviation(spectrum, squared, weights, shape, core)


def _inverse_deviation(
    spectrum: jax.Array, squared: jax.Array, weights: jax.Array, shape: tuple[int, int, int], core: tuple[int, int, int]
) -> jax.Array:
    under = jnp.conj(transformed(weights, shape))
    mean = _core_of_inverse(spectrum * under, shape, core)
    variance = _core_of_inverse(squared * under, shape, core) - mean**2
    # Where nothing varies, rounding decides the sign of every score: there is none.
    return jnp.where(variance > SMALLEST_DEVIATION**2, jax.lax.rsqrt(jnp.maximum(variance, SMALLEST_DEVIATION**2)), 0.0)


def empty_scores(core: tuple[int, int, int], statistics: bool) -> Scores:
    """Results before the first angle; sums only where they are wanted."""
    sums = core if statistics else (1, 1, 1)
    return Scores(
        jnp.full(core, -jnp.inf, jnp.float32),
        jnp.full(core, -1, jnp.int32),
        jnp.zeros(sums, jnp.float32),
        jnp.zeros(sums, jnp.float32),
    )


@partial(
    jax.jit, static_argnames=("shape", "core", "window", "turns", "statistics", "batch"), donate_argnames=("scores",)
)
def add_angles(
    scores: Scores,
    source: Filter,
    spectrum: jax.Array,
    squared: jax.Array,
    rotations: jax.Array,
    indices: jax.Array,
    *,
    shape: tuple[int, int, int],
    core: tuple[int, int, int],
    window: tuple[int, int],
    turns: bool,
    statistics: bool,
    batch: int,
) -> Scores:
    """Score a core at some rotations and keep the best; with a mask that does not turn, `normalised` divides by σ in the end.

    Args:
        scores: results so far.
        source: the template.
        spectrum, squared: of the tile, see `prepared_tile`.
        rotations: (m, 3, 3) float32, m a multiple of `batch`.
        indices: (m,) int32, number of each rotation in the whole list; −1 marks one that only fills the batch.
        shape, core: of the tile and its core.
        window: `Template.window`.
        turns: whether the mask turns with the template.
        statistics: whether sums are kept.
        batch: rotations at once.
    """

    part = (slice(*window),) * 3

    def score(rotation: jax.Array) -> jax.Array:
        kernel, weights = (box[part] for box in turned_kernel(source, rotation))
        found = correlated(spectrum, kernel, shape, core)
        return found * _inverse_deviation(spectrum, squared, weights, shape, core) if turns else found

    def step(carry: Scores, given: tuple[jax.Array, jax.Array]) -> tuple[Scores, None]:
        turned, numbers = given
        found = jax.vmap(score)(turned) if batch > 1 else score(turned[0])[None]
        best, angle, total, squares = carry
        for one, number in zip(found, numbers, strict=True):
            counts = number >= 0
            better = (one > best) & counts  # ties stay with the lowest index
            best, angle = jnp.where(better, one, best), jnp.where(better, number, angle)
            if statistics:
                counted = jnp.where(counts, one, 0.0)
                total, squares = total + counted, squares + counted**2
        return Scores(best, angle, total, squares), None

    grouped = rotations.reshape(-1, batch, 3, 3), indices.reshape(-1, batch)
    result, _ = jax.lax.scan(step, scores, grouped)
    return result


@jax.jit
def normalised(scores: Scores, inverse_deviation: jax.Array) -> Scores:
    """Scores σ as scores: σ under a mask that does not turn is the same at every rotation, and never negative."""
    statistics = scores.total.shape == scores.best.shape
    return Scores(
        scores.best * inverse_deviation,
        scores.angle,
        scores.total * inverse_deviation if statistics else scores.total,
        scores.squares * inverse_deviation**2 if statistics else scores.squares,
    )


def merged(first: Scores, second: Scores) -> Scores:
    """The results of two sets of angles as those of both; ties go to the lower index."""
    better = (second.best > first.best) | ((second.best == first.best) & (second.angle < first.angle))
    return Scores(
        jnp.where(better, second.best, first.best),
        jnp.where(better, second.angle, first.angle),
        first.total + second.total,
        first.squares + second.squares,
    )
