"""Probability maps of a network that knows the truth, and annotations with planted faults."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.auditing import Evidence

SHAPE = (40, 60, 72)
RADII = (6.0, 4.0)
NAMES = ["large", "small"]


def probabilities(
    truth: Particles, shape: Sequence[int] = SHAPE, *, sure: float = 0.9, second: float = 0.05, haze: float = 0.02
) -> np.ndarray:
    """Class probabilities (z, y, x, c): `sure` of its class in each true ball, `second` of the other one there."""
    n_classes = len(RADII) + 1
    result = np.full((*shape, n_classes), haze / (n_classes - 1), np.float32)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    for position, label in zip(truth.positions_vox, truth.labels, strict=True):
        inside = np.linalg.norm(grid - position[::-1], axis=-1) <= RADII[label - 1]
        result[inside] = second
        result[inside, label] = sure
    result[..., 0] = 1 - result[..., 1:].sum(axis=-1)
    return result


def evidence_of(scores: np.ndarray, particles: Particles) -> Evidence:
    """The evidence of a whole map, added at once."""
    evidence = Evidence(scores.shape[:3], scores.shape[3], particles, RADII)
    evidence.add(0, 0, scores)
    return evidence


def grid_of_truth(seed: int) -> Particles:
    """True particles of both species, far enough apart that no ball touches another, at places between the voxels."""
    rng = np.random.default_rng(seed)
    places = [(x, y, z) for z in (10, 29) for y in (10, 30, 49) for x in (10, 30, 52)]
    positions = np.array(places, float) + rng.uniform(-1.5, 1.5, (len(places), 3))
    return Particles(positions, rng.permutation(np.arange(len(places)) % 2 + 1))
