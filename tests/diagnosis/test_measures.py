"""What the doctor measures in the voxels around picks: readings of the coordinates, and sizes of particles."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.annotations import Particles
from robpicker_jax.diagnosis.classes import seen_radius
from robpicker_jax.diagnosis.hypotheses import best_reading, readings, score_readings
from robpicker_jax.diagnosis.local_density import LocalDensity
from tests.diagnosis.doctor_cases import SIZE

pytestmark = pytest.mark.fast


def test_noise_has_no_size_and_no_better_reading() -> None:
    hypotheses = readings(10.0)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        local = LocalDensity(rng.standard_normal((40, 80, 80), dtype=np.float32), seed=seed)
        positions = rng.random((60, 3)) * (SIZE - 1)
        scores = score_readings(local, Particles(positions, np.ones(60, int)), {1: 4.0}, hypotheses)
        assert max(abs(score.z) for score in scores.values()) < 5
        assert best_reading(scores, hypotheses) is None
        assert seen_radius(local.profile(positions, 4.0), 4.0, len(positions)) is None


@pytest.mark.parametrize("radius", [5.0, 8.0])
def test_size_of_balls_is_seen_whatever_radius_was_given(radius: float) -> None:
    rng = np.random.default_rng(0)
    density = rng.standard_normal((64, 96, 96)).astype(np.float32)
    centres = np.stack(np.meshgrid([16, 48, 80], [16, 48, 80], [16, 48], indexing="ij"), axis=-1).reshape(-1, 3)
    z, y, x = np.indices(density.shape)
    for cx, cy, cz in centres:
        density[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= 6**2] += 1.0
    seen = seen_radius(LocalDensity(density).profile(centres.astype(float), radius), radius, len(centres))
    assert seen is not None
    assert seen[0] == pytest.approx(6, abs=0.8)
