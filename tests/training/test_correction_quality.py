"""Corrected labels against the truth: counts by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.config import load_config
from robpicker_jax.labels import clean_labels
from robpicker_jax.training.correction_quality import correction_quality, judged_patches, quality_of_patches
from tests.steps import loaded_data

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


def test_batches_are_taken_together_and_rims_left_out() -> None:
    image = np.zeros((1, 1, 1, 24, 1))
    rims = ((0, 0), (0, 0), (0, 0), (6, 6))

    def correct(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.eye(3)[np.pad(FOUND, rims, constant_values=2)]  # all wrong at the rims

    one = (image, np.pad(NOISY, rims), np.pad(TRUTH, rims, constant_values=1))
    found = quality_of_patches(correct, [one, one], ["a", "b"])
    assert found == pytest.approx(correction_quality(NOISY, np.eye(3)[FOUND], TRUTH, ["a", "b"]), nan_ok=True)
    assert quality_of_patches(correct, []) == {}


def test_patches_are_judged_wherever_they_lie(tiny_config: Path, tiny_data: Path) -> None:
    config = load_config(tiny_config, [f"data.dir={tiny_data}"])
    data = loaded_data(config)
    truths = [clean_labels(tomogram, config.data) for tomogram in data.train]
    batches = judged_patches(data.noisy_source(augmented=False, anywhere=True), truths)
    assert sum(len(image) for image, *_ in batches) >= 96
    images, noisy, true = (np.concatenate(column) for column in zip(*batches, strict=True))
    labels = data.label_maps["train", data.train[0].name]
    assert isinstance(labels, np.ndarray)
    assert truths[0] is not None
    # Uniform positions: the mean share of labelled voxels is that of the tomogram, within four standard errors.
    for patches, whole in ((noisy, labels), (true, truths[0])):
        shares = (patches > 0).mean(axis=(1, 2, 3))
        assert abs(shares.mean() - (whole > 0).mean()) < 4 * shares.std() / len(shares) ** 0.5 + 0.05
    assert images.shape == (*noisy.shape, 1)
    assert judged_patches(data.noisy_source(augmented=False, anywhere=True), [None]) == []
