"""What a label correction does at particles, with corrections whose effect is known."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.annotations import Particles
from robpicker_jax.auditing.opinion import label_change
from robpicker_jax.picking.inference import ArrayReader

SHAPE, RADII = (20, 24, 28), (4.0, 2.5)
ANNOTATED = Particles([[3.0, 12.0, 10.0], [20.2, 12.1, 10.3]], [1, 2])
MISSING = Particles([[12.0, 20.0, 14.0]], [2])


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(len(RADII) + 1)[labels]


def change(correct: object, at: Particles, patch_vox: int = 16) -> np.ndarray:
    tomogram = ArrayReader(np.zeros(SHAPE, np.float32))
    return label_change(correct, tomogram, ANNOTATED, at, RADII, patch_vox)  # type: ignore[arg-type]


@pytest.mark.fast
@pytest.mark.parametrize("patch_vox", [16, 24])
def test_the_change_is_that_of_the_label_in_the_ball(patch_vox: int) -> None:
    """A patch of 24 voxels is longer than the tomogram is deep."""
    at = Particles.concatenate([ANNOTATED, MISSING])
    np.testing.assert_allclose(change(lambda _, labels: one_hot(labels), at, patch_vox), 0)
    erased = change(lambda _, labels: one_hot(np.zeros_like(labels)), at, patch_vox)
    np.testing.assert_allclose(erased, [-1, -1, 0])
    small = change(lambda _, labels: one_hot(np.full_like(labels, 2)), at, patch_vox)
    np.testing.assert_allclose(small, [-1, 0, 1])
    halved = change(lambda _, labels: 0.5 * one_hot(labels), at, patch_vox)
    np.testing.assert_allclose(halved, [-0.5, -0.5, 0])


def test_the_patch_is_cut_where_the_particle_is() -> None:
    density = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    seen = []

    def correct(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen.append((images[0, ..., 0], labels[0]))
        return one_hot(labels)

    label_change(correct, ArrayReader(density), ANNOTATED, ANNOTATED.select([1]), RADII, 8)
    image, labels = seen[0]
    np.testing.assert_array_equal(image, density[6:14, 8:16, 16:24])
    assert labels[4, 4, 4] == 2
