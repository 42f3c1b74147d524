"""Corrected labels against the truth: counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robpicker_jax.training.correction_quality import correction_quality, quality_of_patches

pytestmark = pytest.mark.fast

# One patch of a single line of voxels. The first particle of class 1 is half labelled, the second is missing, one of
# class 2 is labelled as class 1, and two labels lie on background.
TRUTH = np.array([1, 1, 0, 1, 1, 0, 2, 2, 0, 0, 0, 0])[None, None, None]
NOISY = np.array([1, 0, 0, 0, 0, 0, 1, 2, 0, 2, 1, 0])[None, None, None]
FOUND = np.array([1, 1, 0, 1, 0, 1, 2, 2, 0, 0, 1, 0])[None, None, None]


def test_shares_are_counted_by_hand() -> None:
    scores = correction_quality(NOISY, np.eye(3)[FOUND], TRUTH, ["a", "b"])
    assert scores["recovered"] == 1 / 2
    assert scores["recovered/a"] == 1 / 2
    assert math.isnan(scores["recovered/b"])  # no particle of b is missing
    assert scores["filled"] == 2 / 3
    assert scores["added"] == 1 / 4
    assert scores["removed"] == 1 / 2
    assert scores["reclassed"] == 1
    assert scores["error_before"] == pytest.approx(6 / 12)
    assert scores["error_after"] == pytest.approx(3 / 12)
    assert scores["error_change"] == pytest.approx(-1 / 2)
    assert scores["precision"] == 4 / 5
    assert scores["recall"] == 4 / 6


def test_batches_are_taken_together() -> None:
    image = np.zeros((1, 1, 1, 12, 1))

    def correct(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.eye(3)[FOUND]

    one = (image, NOISY, TRUTH)
    assert quality_of_patches(correct, [one, one])["recovered"] == 0.5
    assert quality_of_patches(correct, []) == {}
