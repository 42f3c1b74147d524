"""Peaks against a direct loop, cut-offs against what they promise on noise, classes that compete."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.matching import Extraction, decide_classes, find_peaks
from robpicker_jax.matching.extraction import extreme_cutoff, gaussian_cutoff
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), radius=st.floats(1.0, 6.0), edge=st.integers(0, 3))
def test_peaks_are_those_of_a_direct_loop(seed: int, radius: float, edge: int) -> None:
    rng = np.random.default_rng(seed)
    scores = scipy.ndimage.gaussian_filter(rng.normal(size=(14, 15, 16)), 1.0).astype(np.float32)
    mask = rng.random(scores.shape) < 0.9
    found = find_peaks(scores, Extraction(radius, cutoff="none", edge_vox=edge), mask=mask)
    expected: list[tuple[int, ...]] = []
    for flat in np.argsort(-scores, axis=None, kind="stable"):
        voxel = np.unravel_index(int(flat), scores.shape)
        near = scores[tuple(slice(max(0, at - 1), at + 2) for at in voxel)]
        inner = all(edge <= at < size - edge for at, size in zip(voxel, scores.shape, strict=True))
        if not inner or not mask[voxel] or scores[voxel] < near.max() or scores[voxel] <= 0:
            continue
        if all(np.linalg.norm(np.subtract(voxel, other)) >= radius * (1 - 1e-9) for other in expected):
            expected.append(tuple(int(at) for at in voxel))
    assert [tuple(voxel) for voxel in found.voxels_zyx.tolist()] == expected
    np.testing.assert_array_equal(found.scores, [scores[voxel] for voxel in expected])


def test_noise_gives_the_expected_number_of_picks() -> None:
    """Six fields of the largest of ten smooth normal fields; 5 picks wanted of each: 30, give or take Poisson."""
    total = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        fields = [scipy.ndimage.gaussian_filter(rng.normal(size=(40, 40, 40)), 1.0, mode="wrap") for _ in range(10)]
        total += len(find_peaks(np.max(fields, axis=0), Extraction(3.0, false_positives=5.0)))
    assert 15 <= total <= 47


def test_the_extreme_cutoff_of_independent_heights() -> None:
    """Heights that are the largest of 1000 normal scores: n_FP of 4000 exceed the cut-off."""
    rng = np.random.default_rng(0)
    heights = 0.1 * scipy.special.ndtri(rng.random(4000) ** (1 / 1000))
    share = 1 - 5 / 4000
    assert extreme_cutoff(heights, 5.0) == pytest.approx(0.1 * scipy.special.ndtri(share ** (1 / 1000)), rel=0.03)
    assert extreme_cutoff(heights[:10], 1.0) == -np.inf
    assert extreme_cutoff(np.ones(100), 1.0) == 1.0


def test_the_gaussian_cutoff_is_the_normal_tail() -> None:
    for trials, false_positives in ((1_000_000, 1.0), (50_000, 10.0)):
        cutoff = gaussian_cutoff(0.05, trials, false_positives)
        assert trials * scipy.stats.norm.sf(cutoff / 0.05) == pytest.approx(false_positives)
    white = np.random.default_rng(1).normal(size=(100, 100, 100))
    assert 2 <= (white > gaussian_cutoff(1.0, white.size, 8.0)).sum() <= 18
    assert gaussian_cutoff(1.0, 1, 2.0) == 0


def peaked(heights: list[float], widths: list[float]) -> np.ndarray:
    """Gaussian peaks along x on a rough floor."""
    grid = np.indices((17, 17, 12 * len(heights) + 6))
    scores = 0.15 * np.random.default_rng(0).random(grid.shape[1:])
    for number, (height, width) in enumerate(zip(heights, widths, strict=True)):
        away = (grid[0] - 8) ** 2 + (grid[1] - 8) ** 2 + (grid[2] - 9 - 12 * number) ** 2
        scores += height * np.exp(-away / (2 * width**2))
    return scores.astype(np.float32)


def test_limits_of_the_picks() -> None:
    scores = peaked([0.3, 0.7, 0.9, 0.4], [1, 1, 1, 1])
    plain = Extraction(4.0, cutoff="none", min_score=0.25)
    assert find_peaks(scores, plain).voxels_zyx[:, 2].tolist() == [33, 21, 45, 9]
    few = Extraction(4.0, cutoff="none", score_fraction=0.7, max_picks=5)
    assert find_peaks(scores, few).voxels_zyx[:, 2].tolist() == [33, 21]
    assert find_peaks(scores, Extraction(4.0, cutoff="none", max_picks=1)).voxels_zyx[:, 2].tolist() == [33]
    assert find_peaks(scores, Extraction(4.0)).voxels_zyx[:, 2].tolist() == [33, 21, 45, 9]


def test_the_tophat_keeps_sharp_peaks() -> None:
    scores = peaked([0.9, 0.6, 0.8, 0.5], [4, 1, 4, 1])
    found = find_peaks(scores, Extraction(4.0, cutoff="none", min_score=0.2, tophat=True))
    assert sorted(found.voxels_zyx[:, 2].tolist()) == [21, 45]


def test_extractions_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="unknown cut-off"):
        Extraction(3.0, cutoff="otsu")
    with pytest.raises(InputError, match="radius"):
        Extraction(0.0)
    with pytest.raises(InputError, match="false positives"):
        Extraction(3.0, false_positives=0.0)
    with pytest.raises(InputError, match="deviation"):
        find_peaks(np.ones((5, 5, 5), np.float32), Extraction(3.0, cutoff="gaussian"))
    assert len(find_peaks(np.zeros((5, 5, 5), np.float32), Extraction(3.0))) == 0


def test_competing_classes() -> None:
    large = Particles([[10, 10, 10], [40, 10, 10]], [1, 1], scores=[0.5, 0.9], class_names=["a", "a"])
    small = Particles(
        [[12, 10, 10], [43, 10, 10], [20, 10, 10]], [2, 2, 2], scores=[0.7, 0.6, 0.4], class_names=["b"] * 3
    )
    by_score = decide_classes([large, small], [5.0, 2.0])
    assert by_score.scores.tolist() == [0.9, 0.7, 0.4]
    assert by_score.class_names.tolist() == ["a", "b", "b"]
    by_size = decide_classes([large, small], [5.0, 2.0], largest_first=True)
    assert by_size.scores.tolist() == [0.9, 0.5, 0.4]
    assert len(decide_classes([Particles.empty()], [1.0])) == 0
