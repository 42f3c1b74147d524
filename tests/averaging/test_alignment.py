"""Planted poses are found; scores are the normalised cross-correlation of plain NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.averaging.alignment import Aligner, LocalSearch, band_limit, shifts_within
from robpicker_jax.averaging.frequencies import half_space, values_of, volume
from robpicker_jax.averaging.weights import Transfer, weight
from robpicker_jax.rotations import covering, local_covering
from tests.averaging.averaging_cases import VOXEL, gaussian_copies, lumps, poses, wedged

EDGE, COUNT = 24, 4
TRANSFER = Transfer(-60.0, 60.0)
RESOLUTION = 48.0
AS_THEY_ARE = LocalSearch(0.0, 0.0, levels=1)


def particles(noise: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wedged copies with noise, their rotations and offsets of up to two voxels."""
    rotations, offsets = poses(COUNT, seed)
    offsets = 4 * offsets
    seen = wedged(gaussian_copies(EDGE, rotations, offsets), TRANSFER)
    rng = np.random.default_rng(seed)
    seen += noise * seen.std() * rng.standard_normal(seen.shape)
    return seen.astype(np.float32), rotations, offsets


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(lumps(EDGE), RESOLUTION, VOXEL)


@pytest.mark.parametrize(("noise", "degrees", "voxels"), [(0.0, 1.5, 0.05), (2.0, 6.0, 0.3)])
def test_global_search_finds_planted_poses(aligner: Aligner, noise: float, degrees: float, voxels: float) -> None:
    volumes, rotations, offsets = particles(noise)
    search = LocalSearch(10.0, 0.5, levels=5)
    found = aligner.globally(volumes, np.zeros((COUNT, 3)), TRANSFER, covering(25.0), search)
    assert rotation_angle_deg(found.rotations, rotations).max() < degrees
    assert np.abs(found.offsets - offsets).max() < voxels
    if not noise:
        assert found.scores.min() > 0.99


def test_local_search_finds_poses_nearby(aligner: Aligner) -> None:
    volumes, rotations, offsets = particles(1.0)
    away = rotations @ local_covering(7.0, 6.0)[1]
    found = aligner.local(volumes, offsets + 0.8, away, TRANSFER, LocalSearch(5.0, 0.5, levels=5))
    assert rotation_angle_deg(away, rotations).min() > 5
    assert rotation_angle_deg(found.rotations, rotations).max() < 3
    assert np.abs(found.offsets - offsets).max() < 0.2
    assert_allclose(found.rotations @ np.swapaxes(found.rotations, 1, 2), np.tile(np.eye(3), (COUNT, 1, 1)), atol=1e-6)


def test_score_is_the_cross_correlation_over_what_the_wedge_leaves(aligner: Aligner) -> None:
    volumes, rotations, offsets = particles(1.0)
    found = aligner.local(volumes, offsets, rotations, TRANSFER, AS_THEY_ARE)
    k = half_space(EDGE, 1.0, band_limit(EDGE, VOXEL, RESOLUTION))
    seen = np.asarray(weight(TRANSFER.arrays(EDGE, VOXEL), jnp.asarray(k, jnp.float32)))
    # The reference turned and moved in closed form, rather than read at turned frequencies.
    for box, copy, score in zip(volumes, gaussian_copies(EDGE, rotations, offsets), found.scores, strict=True):
        model, measured = seen * values_of(copy, k), values_of(box, k) * (seen != 0)
        right = np.vdot(measured, model).real / np.linalg.norm(model) / np.linalg.norm(measured)
        assert score == pytest.approx(right, abs=0.01)
    assert_allclose(found.rotations, rotations, atol=1e-6)
    assert_allclose(found.offsets, offsets, atol=1e-6)


def test_no_particle_moves_further_than_the_limit_from_where_it_was_listed() -> None:
    volumes, rotations, offsets = particles(0.0)
    tight = Aligner(lumps(EDGE), RESOLUTION, VOXEL, shift_limit_vox=1.0)
    drift = np.full((COUNT, 3), 0.5)
    start = offsets + 2.0
    found = tight.local(volumes, start, rotations, TRANSFER, LocalSearch(0.0, 1.0, levels=3), drift=drift)
    moved = found.offsets - start + drift
    assert np.abs(moved).max() <= 1.0 + 1e-2


def test_whitening_gives_weight_to_clean_shells() -> None:
    """Noise in one shell alone: without whitening it decides the score, with it it does not."""
    rotations, offsets = poses(1)
    copy = gaussian_copies(EDGE, rotations, offsets)
    k = half_space(EDGE, 0.0, EDGE / 2)
    shell = np.floor(np.linalg.norm(k, axis=1) + 0.5) == 5
    rng = np.random.default_rng(0)
    noise = volume((rng.standard_normal(len(k)) + 1j * rng.standard_normal(len(k))) * shell, k, EDGE)
    noisy = (copy + 20 * copy.std() / noise.std() * noise).astype(np.float32)
    weights = np.ones(EDGE // 2)
    weights[5] = 1e-4
    everything = Transfer(-90.0, 90.0)
    scores = [
        Aligner(lumps(EDGE), RESOLUTION, VOXEL, whitening=w)
        .local(noisy, offsets, rotations, everything, AS_THEY_ARE)
        .scores[0]
        for w in (None, weights)
    ]
    assert scores[0] < 0.3
    assert scores[1] > 0.8


def test_shifts_fill_a_ball() -> None:
    shifts = np.array(shifts_within(3.0, 1.5))
    assert (np.linalg.norm(shifts, axis=1) <= 3.0).all()
    assert len(shifts) == len({tuple(row) for row in shifts.tolist()}) == 33
