"""Corruption of clean labels: components against SciPy, rates, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.config import CorruptionConfig
from robpicker_jax.training.corruption import components, corrupt

NOTHING = CorruptionConfig(missing=0, false_picks=0, swap=0, shifted=0, untouched=0)


def balls(n: int = 4, edge: int = 24, seed: int = 0) -> np.ndarray:
    """Label maps with balls of two classes that do not touch."""
    rng = np.random.default_rng(seed)
    grid = np.indices((edge, edge, edge))
    label = np.zeros((n, edge, edge, edge), np.int32)
    for patch in label:
        for k, corner in enumerate(np.ndindex(2, 2, 2)):
            centre = np.array(corner) * 12 + 6 + rng.integers(-1, 2, 3)
            patch[((grid - centre[:, None, None, None]) ** 2).sum(0) <= 9] = 1 + k % 2
    return label


@pytest.mark.parametrize("seed", range(3))
def test_components_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = (rng.random((2, 12, 12, 12)) < 0.45).astype(np.int32) * rng.integers(1, 3, (2, 12, 12, 12), np.int32)
    found = np.asarray(jax.jit(components)(jnp.asarray(label)))
    for patch, component in zip(label, found, strict=True):
        for value in (0, 1, 2):
            expected, count = ndimage.label(patch == value)
            pairs = {(int(a), int(b)) for a, b in zip(expected[patch == value], component[patch == value], strict=True)}
            assert len(pairs) == count == len({b for _, b in pairs})


def test_a_snake_is_one_component() -> None:
    label = np.zeros((1, 8, 8, 8), np.int32)
    for z in range(0, 8, 2):
        label[0, z] = 0
        label[0, z, ::2] = 1
        for y in range(1, 8, 2):
            label[0, z, y, 7 if y % 4 == 1 else 0] = 1
    found = np.asarray(components(jnp.asarray(label)))
    count = ndimage.label(label[0])[1]
    assert len(np.unique(found[0][label[0] == 1])) == count


def rates(name: str, value: float, **more: float) -> CorruptionConfig:
    return replace(NOTHING, **{name: value}, **more)


def test_without_rates_nothing_changes_and_untouched_patches_stay() -> None:
    label = jnp.asarray(balls())
    key = jax.random.PRNGKey(0)
    np.testing.assert_array_equal(corrupt(label, key, NOTHING, 3), label)
    np.testing.assert_array_equal(corrupt(label, key, rates("missing", 1.0, untouched=1.0), 3), label)


def test_whole_particles_vanish_at_the_rate() -> None:
    label = balls(n=40)
    noisy = np.asarray(corrupt(jnp.asarray(label), jax.random.PRNGKey(1), rates("missing", 0.3), 3))
    gone = kept = 0
    for before, after in zip(label, noisy, strict=True):
        parts, count = ndimage.label(before)
        for part in range(1, count + 1):
            left = (after[parts == part] > 0).mean()
            assert left in (0.0, 1.0)
            gone, kept = gone + (left == 0), kept + (left == 1)
    assert abs(gone / (gone + kept) - 0.3) < 0.08
    assert ((noisy == label) | (noisy == 0)).all()


def test_swaps_change_the_class_of_whole_particles_and_not_their_voxels() -> None:
    label = balls(n=20)
    noisy = np.asarray(corrupt(jnp.asarray(label), jax.random.PRNGKey(2), rates("swap", 1.0), 4))
    np.testing.assert_array_equal(noisy > 0, label > 0)
    for before, after in zip(label, noisy, strict=True):
        parts, count = ndimage.label(before)
        assert all(len(np.unique(after[parts == part])) == 1 for part in range(1, count + 1))
    assert set(np.unique(noisy)) == {0, 1, 2, 3}


def test_displaced_particles_keep_their_size_and_move_as_far_as_the_spread_says() -> None:
    label = balls(n=30)
    moved = rates("shifted", 1.0, shift_vox=2.0)
    noisy = np.asarray(corrupt(jnp.asarray(label), jax.random.PRNGKey(3), moved, 3))
    assert (noisy > 0).sum() == (label > 0).sum()
    steps = []
    for before, after in zip(label, noisy, strict=True):
        spectrum = np.fft.fftn(after > 0) * np.conj(np.fft.fftn(before > 0))
        peak = np.unravel_index(np.fft.ifftn(spectrum).real.argmax(), before.shape)
        steps.append([p - 24 if p > 12 else p for p in peak])
    assert 1.4 < np.std(steps) < 2.6


def test_false_copies_are_added_to_what_is_there() -> None:
    label = balls(n=20)
    noisy = np.asarray(corrupt(jnp.asarray(label), jax.random.PRNGKey(4), rates("false_picks", 0.5), 3))
    np.testing.assert_array_equal(noisy[label > 0], label[label > 0])
    added = ((noisy > 0) & (label == 0)).sum() / (label > 0).sum()
    assert 0.2 < added < 0.5  # half of the copies' voxels, less those that fall on particles


def test_one_key_one_corruption() -> None:
    label = jnp.asarray(balls())
    all_kinds = CorruptionConfig()
    one, again = (corrupt(label, jax.random.PRNGKey(5), all_kinds, 3) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != np.asarray(corrupt(label, jax.random.PRNGKey(6), all_kinds, 3))).any()
