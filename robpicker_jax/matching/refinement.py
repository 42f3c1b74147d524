"""Exact scores of single voxels, and the orientation and position of picks finer than the search's steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.matching.correlation import SMALLEST_DEVIATION, Filter, build_filter, turned_kernel
from robpicker_jax.matching.extraction import Peaks
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import Voxels, read_box
from robpicker_jax.rotations import local_covering
from robpicker_jax.rotations.symmetry import nearest_equivalent

_TOGETHER = 16  # voxels in one call
_HALVINGS = 3  # an eighth of the search's step in the end


@jax.jit
def scores_at(source: Filter, patches: jax.Array, rotations: jax.Array) -> jax.Array:
    """Scores of boxes at rotations of their own, (p, q).

    Args:
        source: the template.
        patches: (p, n, n, n), the box around each voxel, the voxel at n // 2.
        rotations: (p, q, 3, 3).
    """

    def one(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        patch, turned = given

        def score(rotation: jax.Array) -> jax.Array:
            kernel, weights = turned_kernel(source, rotation)
            centred = patch - (weights * patch).sum()
            deviation = jnp.sqrt((weights * centred**2).sum())
            found = (kernel * patch).sum() / jnp.maximum(deviation, SMALLEST_DEVIATION)
            return jnp.asarray(jnp.where(deviation > SMALLEST_DEVIATION, found, 0.0))

        return jnp.asarray(jax.vmap(score)(turned))

    return jnp.asarray(jax.lax.map(one, (patches, rotations)))


def score_voxels(
    volume: Voxels, source: Filter, edge: int, voxels_zyx: np.ndarray, rotations: np.ndarray
) -> np.ndarray:
    """Exact scores (p, q), float32, of voxels (p, 3) at rotations (p, q, 3, 3) of their own."""
    result = np.zeros(rotations.shape[:2], np.float32)
    for first in range(0, len(voxels_zyx), _TOGETHER):
        numbers = np.arange(first, first + _TOGETHER)
        numbers[numbers >= len(voxels_zyx)] = len(voxels_zyx) - 1  # filled up: one compilation
        patches = np.stack([read_box(volume, (voxels_zyx[i] - edge // 2).tolist(), (edge,) * 3) for i in numbers])
        found = scores_at(source, jnp.asarray(patches), jnp.asarray(rotations[numbers], jnp.float32))
        last = min(first + _TOGETHER, len(voxels_zyx))
        result[first:last] = np.asarray(found)[: last - first]
    return result


def refined(
    volume: Voxels,
    template: Template,
    peaks: Peaks,
    rotations: np.ndarray,
    *,
    wedge: np.ndarray | None = None,
    step_deg: float | None = None,
    on_rounds: Callable[[int], None] | None = None,
) -> Particles:
    """Picks with orientations, and with positions between voxels.

    Around each orientation rotations at half of the search's step are tried, then at a quarter and an eighth; the best is
    kept, so that scores never fall. Then a parabola through the scores of the neighbours along each axis gives the
    position to less than a voxel.

    Args:
        volume: the tomogram.
        template: what was searched for.
        peaks: the picks.
        rotations: (n, 3, 3), of each pick.
        wedge: as in the search.
        step_deg: angular step of the search; none: orientations are kept.
        on_rounds: called with 1 after each round of angles.

    Returns:
        Labels are 1 and names the template's. Of a symmetric template's equivalent orientations the one with the
        smallest angle is given.
    """
    n, edge = len(peaks), template.edge
    if not n:
        return Particles.empty()
    source = build_filter(template, wedge)
    current = np.array(rotations, np.float64)
    scores = score_voxels(volume, source, edge, peaks.voxels_zyx, current[:, None])[:, 0]
    for level in range(_HALVINGS if step_deg is not None else 0):
        assert step_deg is not None
        fine = step_deg / 2 ** (level + 1)
        steps = local_covering(1.5 * fine, fine)[1:]  # without the identity, which has been scored
        tried = steps[None] @ current[:, None]
        found = score_voxels(volume, source, edge, peaks.voxels_zyx, tried)
        best = np.argmax(found, axis=1)
        better = found[np.arange(n), best] > scores
        current[better] = tried[np.arange(n), best][better]
        scores = np.maximum(scores, found[np.arange(n), best])
        if on_rounds is not None:
            on_rounds(1)
    shifts = np.zeros((n, 3))
    for axis in range(3):
        step = np.zeros(3, np.int64)
        step[axis] = 1
        before, after = (
            score_voxels(volume, source, edge, peaks.voxels_zyx + sign * step, current[:, None])[:, 0]
            for sign in (-1, 1)
        )
        curvature = 2 * scores - before - after
        moved = np.where(curvature > 1e-6, (after - before) / (2 * np.where(curvature > 1e-6, curvature, 1)), 0)
        shifts[:, axis] = np.clip(moved, -0.5, 0.5)
    limits = np.array(volume.shape) - 1
    positions = np.clip(peaks.voxels_zyx + shifts, 0, limits)[:, ::-1]
    current = nearest_equivalent(current, np.eye(3), template.symmetry)
    order = np.argsort(-scores, kind="stable")
    return Particles(
        positions[order],
        np.ones(n, np.int32),
        rotations=current[order],
        scores=scores[order].astype(np.float64),
        class_names=np.full(n, template.name),
    )
