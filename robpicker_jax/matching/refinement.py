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
ROUNDS = 1 + _HALVINGS
"""Rounds of the refinement of orientations; one where positions alone are refined."""
_SIDE = 0.5  # voxels to either side of a position


@jax.jit
def scores_at(source: Filter, patches: jax.Array, rotations: jax.Array, shifts_zyx: jax.Array) -> jax.Array:
    """Scores of boxes at rotations and shifts of their own, (p, q).

    Args:
        source: the template.
        patches: (p, n, n, n), the box around each voxel, the voxel at n // 2.
        rotations: (p, q, 3, 3).
        shifts_zyx: (p, q, 3), where the particle's centre lies from the voxel.
    """

    def one(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        patch, turned, moved = given

        def score(rotation: jax.Array, shift: jax.Array) -> jax.Array:
            kernel, weights = turned_kernel(source, rotation, shift)
            centred = patch - (weights * patch).sum()
            deviation = jnp.sqrt((weights * centred**2).sum())
            found = (kernel * patch).sum() / jnp.maximum(deviation, SMALLEST_DEVIATION)
            return jnp.asarray(jnp.where(deviation > SMALLEST_DEVIATION, found, 0.0))

        return jnp.asarray(jax.vmap(score)(turned, moved))

    return jnp.asarray(jax.lax.map(one, (patches, rotations, shifts_zyx)))


def score_voxels(
    volume: Voxels, source: Filter, voxels_zyx: np.ndarray, rotations: np.ndarray, shifts_zyx: np.ndarray
) -> np.ndarray:
    """Exact scores (p, q), float32, of voxels (p, 3) at rotations (p, q, 3, 3) and shifts (p, q, 3) of their own."""
    edge = source.mask.shape[0]
    result = np.zeros(rotations.shape[:2], np.float32)
    for first in range(0, len(voxels_zyx), _TOGETHER):
        numbers = np.arange(first, first + _TOGETHER)
        numbers[numbers >= len(voxels_zyx)] = len(voxels_zyx) - 1  # filled up: one compilation
        patches = np.stack([read_box(volume, (voxels_zyx[i] - edge // 2).tolist(), (edge,) * 3) for i in numbers])
        turned, moved = (jnp.asarray(given[numbers], jnp.float32) for given in (rotations, shifts_zyx))
        last = min(first + _TOGETHER, len(voxels_zyx))
        result[first:last] = np.asarray(scores_at(source, jnp.asarray(patches), turned, moved))[: last - first]
    return result


def refined(
    volume: Voxels,
    template: Template,
    peaks: Peaks,
    rotations: np.ndarray,
    *,
    wedge: np.ndarray | None = None,
    step_deg: float | None = None,
    offsets: np.ndarray | None = None,
    on_rounds: Callable[[int], None] | None = None,
) -> Particles:
    """Picks with orientations, and with positions between voxels.

    A parabola through the scores at half a voxel to either side along each axis moves the position, at most by one
    voxel in all. Around each orientation rotations at half of the search's step are tried, then at a quarter and an
    eighth; the position is moved again after each. Only what raises a score is kept.

    Args:
        volume: the tomogram.
        template: what was searched for.
        peaks: the picks.
        rotations: (n, 3, 3), of each pick.
        wedge: as in the search.
        step_deg: angular step of the search; none: orientations are kept.
        offsets: (n,), added to the scores in the end: what a correction of the score map changed at each pick.
        on_rounds: called with 1 after each round.

    Returns:
        Labels are 1 and names the template's. Of a symmetric template's equivalent orientations the one with the
        smallest angle is given.
    """
    n = len(peaks)
    if not n:
        if on_rounds is not None:
            on_rounds(ROUNDS if step_deg is not None else 1)
        return Particles.empty()
    source, rows = build_filter(template, wedge), np.arange(n)
    current, shifts = np.array(rotations, np.float64), np.zeros((n, 3))

    def score(turned: np.ndarray, moved: np.ndarray) -> np.ndarray:
        return score_voxels(volume, source, peaks.voxels_zyx, turned, moved)

    scores = score(current[:, None], shifts[:, None])[:, 0]
    for level in range(-1, _HALVINGS if step_deg is not None else 0):
        if step_deg is not None and level >= 0:
            fine = step_deg / 2 ** (level + 1)
            tried = local_covering(1.5 * fine, fine)[None, 1:] @ current[:, None]  # the identity has been scored
            found = score(tried, np.broadcast_to(shifts[:, None], (*tried.shape[:2], 3)))
            best = np.argmax(found, axis=1)
            better = found[rows, best] > scores
            current[better] = tried[rows, best][better]
            scores = np.maximum(scores, found[rows, best])
        sides = np.concatenate([np.eye(3), -np.eye(3)])[None] * _SIDE
        found = score(np.repeat(current[:, None], 6, axis=1), shifts[:, None] + sides)
        after, before = found[:, :3], found[:, 3:]
        curvature = 2 * scores[:, None] - before - after
        step = np.where(curvature > 1e-6, _SIDE * (after - before) / (2 * np.maximum(curvature, 1e-6)), 0)
        moved = np.clip(shifts + np.clip(step, -_SIDE, _SIDE), -1, 1)
        found = score(current[:, None], moved[:, None])[:, 0]
        shifts = np.where((found > scores)[:, None], moved, shifts)
        scores = np.maximum(scores, found)
        if on_rounds is not None:
            on_rounds(1)
    if offsets is not None:
        scores = scores + offsets
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
