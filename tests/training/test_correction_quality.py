"""Corrected labels against the truth: counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robpicker_jax.training.correction_quality import correction_quality, quality_of_patches

pytestmark = pytest.mark.fast

TRUTH = np.array([1, 1, 1, 2, 2, 0, 0, 0, 0, 0])
NOISY = np.array([1, 0, 0, 1, 2, 0, 0, 2, 1, 0])
FOUND = np.array([1, 1, 0, 2, 2, 1, 0, 0, 1, 0])


def test_shares_are_counted_by_hand() -> None:
    scores = correction_quality(NOISY, np.eye(3)[FOUND], TRUTH, ["a", "b"])
    assert scores["recovered"] == 1 / 2
    assert scores["recovered/a"] == 1 / 2
    assert math.isnan(scores["recovered/b"])  # no voxel of b is without a label
    assert scores["added"] == 1 / 3
    assert scores["removed"] == 1 / 2
    assert scores["reclassed"] == 1
    assert scores["error_before"] == pytest.approx(0.5)
    assert scores["error_after"] == pytest.approx(0.3)
    assert scores["error_change"] == pytest.approx(-0.4)
    assert scores["precision"] == 3 / 4
    assert scores["recall"] == 3 / 5


def test_batches_are_taken_together() -> None:
    image = np.zeros((1, 10))

    def correct(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.eye(3)[FOUND][None]

    one = (image, NOISY[None], TRUTH[None])
    assert quality_of_patches(correct, [one, one])["recovered"] == 0.5
    assert quality_of_patches(correct, []) == {}
