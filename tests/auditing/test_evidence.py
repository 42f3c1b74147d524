"""Evidence gathered block by block against the whole map."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.auditing import Evidence

SHAPE, RADII = (9, 11, 13), (1.0, 3.3, 0.2)


def random_scores(seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).dirichlet(np.ones(4), SHAPE)
    return scores.astype(np.float32)


def random_particles(seed: int, n: int = 6) -> Particles:
    """Some lie at the edge of the tomogram, so that part of their ball is outside."""
    rng = np.random.default_rng(seed)
    return Particles(rng.uniform(-0.5, np.array(SHAPE[::-1]) - 0.5, (n, 3)), rng.integers(1, 4, n))


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), z=st.integers(1, 8), y=st.integers(1, 10))
def test_means_are_those_over_each_ball_however_the_map_is_cut(seed: int, z: int, y: int) -> None:
    scores, particles = random_scores(seed), random_particles(seed)
    evidence = Evidence(SHAPE, 4, particles, RADII)
    for top, bottom in ((z, SHAPE[0]), (0, z)):
        for left, right in ((0, y), (y, SHAPE[1])):
            evidence.add(top, left, scores[top:bottom, left:right])
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    for row, (position, label) in enumerate(zip(particles.positions_vox, particles.labels, strict=True)):
        inside = np.linalg.norm(grid - position[::-1], axis=-1) <= max(RADII[label - 1], 1)
        np.testing.assert_allclose(evidence.class_means[row], scores[inside].mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_array_equal(evidence.species, scores[..., 1:].argmax(axis=-1) + 1)
    np.testing.assert_allclose(evidence.foreground, 1 - scores[..., 0], atol=1e-3)
    np.testing.assert_allclose(evidence.probability, scores[..., 1:].max(axis=-1), atol=1e-3)
