"""Corruption of clean labels: components against SciPy, rates, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.config import CorruptionConfig, Species
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.corruption import components, corrupt, corruption_rates

NOTHING = CorruptionConfig(missing=0, false_picks=0, swap=0, shifted=0, untouched=0)
NAMES = ("large", "small", "third")


def corrupted(
    label: np.ndarray | jax.Array, seed: int, config: CorruptionConfig, n_species: int = 2, density: Any = None
) -> np.ndarray:
    """A corrupted copy of labels of species whose radius is 3 voxels."""
    species = [Species(name, radius_vox=3.0) for name in NAMES[:n_species]]
    image = jnp.zeros((*label.shape, 1)) if density is None else density
    rates = corruption_rates(config, species)
    return np.asarray(corrupt(jnp.asarray(label), image, jax.random.PRNGKey(seed), rates))


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


def rates(name: str, value: float, **more: Any) -> CorruptionConfig:
    return replace(NOTHING, **{name: value}, **more)


def test_without_rates_nothing_changes_and_untouched_patches_stay() -> None:
    label = jnp.asarray(balls())
    np.testing.assert_array_equal(corrupted(label, 0, NOTHING), label)
    np.testing.assert_array_equal(corrupted(label, 0, rates("missing", 1.0, untouched=1.0)), label)


def test_whole_particles_vanish_at_the_rate() -> None:
    label = balls(n=40)
    noisy = corrupted(label, 1, rates("missing", 0.3))
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
    noisy = corrupted(label, 2, rates("swap", 1.0), 3)
    np.testing.assert_array_equal(noisy > 0, label > 0)
    for before, after in zip(label, noisy, strict=True):
        parts, count = ndimage.label(before)
        assert all(len(np.unique(after[parts == part])) == 1 for part in range(1, count + 1))
    assert set(np.unique(noisy)) == {0, 1, 2, 3}


def test_displaced_particles_keep_their_size_and_move_as_far_as_the_spread_says() -> None:
    label = balls(n=30)
    noisy = corrupted(label, 3, rates("shifted", 1.0, shift_vox=2.0))
    assert (noisy > 0).sum() == (label > 0).sum()
    assert 1.4 < np.std(steps_of(label, noisy)) < 2.6


def test_displacements_along_z_have_a_spread_of_their_own() -> None:
    label = balls(n=60)
    z, y, x = steps_of(label, corrupted(label, 3, rates("shifted", 1.0, shift_vox=1.0, shift_z_vox=3.0))).T
    assert 2.3 < np.std(z) < 3.7
    assert np.std(y) < 1.5
    assert np.std(x) < 1.5


def steps_of(label: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """How far each map was moved along z, y and x, by the peak of the correlation of both."""
    steps = []
    for before, after in zip(label, noisy, strict=True):
        spectrum = np.fft.fftn(after > 0) * np.conj(np.fft.fftn(before > 0))
        peak = np.unravel_index(np.fft.ifftn(spectrum).real.argmax(), before.shape)
        steps.append([p - 24 if p > 12 else p for p in peak])
    return np.array(steps)


def test_false_picks_are_balls_of_their_class_and_leave_particles_alone() -> None:
    label = balls(n=60)
    config = rates("false_picks", 1.0, false_classes={"small": 1.0})
    noisy = corrupted(label, 4, config)
    np.testing.assert_array_equal(noisy[label > 0], label[label > 0])
    added = (noisy > 0) & (label == 0)
    assert (noisy[added] == 2).all()
    ball = (label[0] > 0).sum() / 8
    assert 0.4 < added.sum() / (60 * 2 * ball) <= 1.0  # two a patch, less what falls on particles and off the patch
    none = corrupted(label, 4, rates("false_picks", 0.5, false_classes={"small": 1.0}))
    assert 0.3 < ((none > 0) & (label == 0)).sum() / added.sum() < 0.7


@pytest.mark.parametrize("sign", [-1.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_false_picks_on_contrast_lie_on_the_spots_that_are_no_particles(sign: float) -> None:
    label = np.zeros((6, 24, 24, 24), np.int32)
    label[:, 4:8, 4:8, 4:8] = 1
    density = np.random.default_rng(0).normal(0, 0.1, (*label.shape, 1))
    density[label > 0] += sign
    centres = np.array([(16, 6, 18), (6, 18, 14)])
    for z, y, x in centres:
        density[:, z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] += 5 * sign
    config = rates("false_picks", 1.0, false_on_contrast=1.0, false_classes={"small": 1.0})
    noisy = corrupted(label, 0, config, density=jnp.asarray(density, jnp.float32))
    for patch in noisy:
        parts, count = ndimage.label(patch == 2)
        found = np.array(ndimage.center_of_mass(patch == 2, parts, range(1, count + 1)))
        assert count == 2
        assert np.abs(found[:, None] - centres[None]).max(-1).min(0).max() <= 1


def test_rates_by_species_are_those_of_their_particles() -> None:
    label = balls(n=60)
    config = rates("missing", 0.0, swap=0.0)
    config = replace(config, missing={"small": 0.5}, swap={"large": 0.8}, swap_to={"large": "third"})
    noisy = corrupted(label, 7, config, 3)
    large, small = label == 1, label == 2
    assert set(np.unique(noisy[large])) == {1, 3}
    assert abs((noisy[large] == 3).mean() - 0.8) < 0.08
    assert set(np.unique(noisy[small])) == {0, 2}
    assert abs((noisy[small] == 0).mean() - 0.5) < 0.1
    with pytest.raises(InputError, match=r"train\.corruption\.swap_to.*'nobody'"):
        corrupted(label, 7, replace(NOTHING, swap={"large": 1.0}, swap_to={"large": "nobody"}))
    with pytest.raises(InputError, match=r"train\.corruption\.false_classes"):
        corrupted(label, 7, replace(NOTHING, false_classes={"large": 0.0}))


def test_one_key_one_corruption() -> None:
    label = jnp.asarray(balls())
    all_kinds = CorruptionConfig()
    np.testing.assert_array_equal(corrupted(label, 5, all_kinds), corrupted(label, 5, all_kinds))
    assert (corrupted(label, 5, all_kinds) != corrupted(label, 6, all_kinds)).any()
