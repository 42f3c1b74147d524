"""Turns of patches: what they keep (the missing wedge, handedness), what they move, how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.config.schema import PatchConfig
from robpicker_jax.patches import BatchSource, PatchTomogram, Turn, draw_turn, rotated_patch
from tests.patches.patch_cases import RADII, tomogram, within


def wedge_volume(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise seen through tilts within ±60° about y, so |kz| <= |kx| tan 60° is measured: (volume, that mask)."""
    k = np.fft.fftfreq(n)
    kz, _, kx = np.meshgrid(k, k, k, indexing="ij")
    measured = np.abs(kz) <= np.abs(kx) * np.tan(np.deg2rad(60)) + 1e-12
    noise = np.random.default_rng(seed).standard_normal((n, n, n))
    return np.fft.ifftn(np.fft.fftn(noise) * measured).real, measured


def wedge_leak(volume: np.ndarray, measured: np.ndarray) -> float:
    """Share of the power that lies in the missing wedge."""
    power = np.abs(np.fft.fftn(volume)) ** 2
    return float(power[~measured].sum() / power.sum())


def group(config: PatchConfig) -> dict[bytes, Turn]:
    rng = np.random.default_rng(0)
    turns = [draw_turn(config, rng) for _ in range(600)]
    return {turn.matrix().tobytes(): turn for turn in turns}


def test_default_turns_keep_the_wedge_and_handedness() -> None:
    turns = group(PatchConfig())
    assert len(turns) == 4  # identity and three half-turns
    volume, measured = wedge_volume(15, 0)
    for turn in turns.values():
        assert np.linalg.det(turn.matrix()) == pytest.approx(1)
        assert wedge_leak(turn.apply(volume), measured) < 1e-20


def test_mirrors_keep_the_wedge_but_not_handedness() -> None:
    turns = group(PatchConfig(rotate_180=False, flip=True))
    assert len(turns) == 8
    volume, measured = wedge_volume(15, 0)
    assert all(wedge_leak(turn.apply(volume), measured) < 1e-20 for turn in turns.values())
    assert sum(np.linalg.det(turn.matrix()) < 0 for turn in turns.values()) == 4


def test_quarter_turns_turn_the_wedge() -> None:
    turns = group(PatchConfig(rotate_z90=True))
    assert len(turns) == 8  # the rotations of a square prism
    volume, measured = wedge_volume(15, 0)
    for turn in turns.values():
        assert np.linalg.det(turn.matrix()) == pytest.approx(1)
        leak = wedge_leak(turn.apply(volume), measured)
        assert leak > 0.1 if turn.quarter_turns_z % 2 else leak < 1e-20


def test_no_switch_no_turn() -> None:
    assert list(group(PatchConfig(rotate_180=False)).values()) == [Turn()]


def test_turns_are_drawn_uniformly() -> None:
    rng = np.random.default_rng(1)
    config = PatchConfig(flip=True, rotate_z90=True)
    drawn = [draw_turn(config, rng).matrix().tobytes() for _ in range(4800)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 16
    assert all(within(count, 4800, 1 / 16) for count in counts)


@pytest.mark.parametrize("config", [PatchConfig(), PatchConfig(flip=True, rotate_z90=True)])
def test_a_turn_does_what_its_matrix_says(config: PatchConfig) -> None:
    point = np.array([1, 2, 3])  # x y z from the centre of a 9³ patch
    patch = np.zeros((9, 9, 9))
    patch[tuple(4 + point[::-1])] = 1
    for turn in group(config).values():
        goes_to = np.argwhere(turn.apply(patch))[0][::-1] - 4
        np.testing.assert_array_equal(goes_to, turn.matrix() @ point)


def smooth_field(r: np.ndarray) -> np.ndarray:
    """A smooth lopsided density at points (..., 3) x y z from the centre."""
    blobs = [((3, 0, 0), 1.0), ((0, 4, 1), 2.0), ((-2, -1, 4), -1.5)]
    return sum(a * np.exp(-((r - np.array(c)) ** 2).sum(-1) / 50) for c, a in blobs)


def test_rotation_by_interpolation_agrees_with_the_field_itself() -> None:
    shape, corner, size = (40, 42, 44), (11, 12, 14), 17
    centre = np.array([14, 12, 11]) + 8.0
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")[::-1], -1)
    volume = smooth_field(grid - centre)
    inner = np.stack(np.meshgrid(*[np.arange(size) - 8.0] * 3, indexing="ij")[::-1], -1)
    for rotation in random_rotations(5, np.random.default_rng(0)):
        patch = rotated_patch(lambda box: volume[box], shape, corner, size, rotation, order=1)
        np.testing.assert_allclose(patch, smooth_field(inner @ rotation), atol=0.04)  # rows times R: Rᵀ r


def test_rotation_by_a_quarter_turn_moves_voxels_onto_voxels() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((20, 20, 20)).astype(np.float32)
    labels = rng.integers(0, 5, (20, 20, 20)).astype(np.uint8)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turn = Turn(quarter_turns_z=1)
    np.testing.assert_allclose(turn.matrix(), quarter, atol=1e-12)
    box = (slice(5, 14),) * 3
    image = rotated_patch(lambda b: volume[b], (20,) * 3, (5, 5, 5), 9, quarter, order=1)
    np.testing.assert_allclose(image, turn.apply(volume[box]), atol=1e-5)
    classes = rotated_patch(lambda b: labels[b], (20,) * 3, (5, 5, 5), 9, quarter, order=0)
    np.testing.assert_array_equal(classes, turn.apply(labels[box]))
    assert classes.dtype == np.uint8


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(4, 12))
def test_rotated_patches_at_the_border_are_continued_by_reflection(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, (14, 13, 12)).astype(np.uint8)
    corner = [int(rng.integers(0, edge - size + 1)) for edge in labels.shape]
    rotation = random_rotations(1, rng)[0]
    patch = rotated_patch(lambda box: labels[box], labels.shape, corner, size, rotation, order=0)
    assert patch.shape == (size,) * 3
    assert patch.min() >= 1  # nothing is filled in with zeros


def test_random_rotations_turn_images_and_labels_alike() -> None:
    """A volume that equals its label map stays so, up to interpolation at the surface."""
    particles = tomogram("a", (40, 40, 40), (3, 3, 3), seed=0).particles
    labels = RADII.labels((40, 40, 40), particles)
    only = PatchTomogram("a", (labels > 0).astype(np.float32), particles, labels)
    batch = BatchSource([only], [], PatchConfig(size=16, rotate_any=True), seed=0, batch_size=8).train_batch(0)
    inside, outside = batch["label"] > 0, batch["label"] == 0
    assert batch["image"][..., 0][inside].mean() > 0.8
    assert batch["image"][..., 0][outside].mean() < 0.05
    assert not np.isin(batch["image"], [0, 1]).all()  # it was interpolated
