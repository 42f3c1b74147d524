"""FSC, its mask correction and what is read off it, against independent NumPy and limits by construction."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from robpicker_jax.averaging.extraction import soft_ball
from robpicker_jax.averaging.frequencies import half_space, values_of, volume
from robpicker_jax.averaging.resolution import (
    figure_of_merit,
    low_pass,
    masked_correlation,
    random_phases,
    resolution_angstrom,
    shell_correlation,
    weighted_by_shell,
)
from tests.averaging.averaging_cases import lumps

pytestmark = pytest.mark.fast


def plain_fsc(first: np.ndarray, second: np.ndarray) -> list[float]:
    """FSC by a loop over the full transform: an independent implementation."""
    edge = first.shape[0]
    one, two = np.fft.fftn(first.astype(float)), np.fft.fftn(second.astype(float))
    axis = np.fft.fftfreq(edge) * edge
    length = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    result = []
    for shell in range(edge // 2):
        inside = (length >= shell - 0.5) & (length < shell + 0.5)
        cross = np.vdot(two[inside], one[inside]).real
        result.append(cross / np.sqrt((np.abs(one[inside]) ** 2).sum() * (np.abs(two[inside]) ** 2).sum()))
    return result


@pytest.mark.parametrize("edge", [16, 17])
def test_equals_plain_numpy(edge: int) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((edge,) * 3)
    second = first + rng.standard_normal((edge,) * 3)
    assert_allclose(shell_correlation(first, second), plain_fsc(first, second), atol=1e-12)


def test_of_equal_maps_is_one_and_does_not_see_scale() -> None:
    box = np.random.default_rng(1).standard_normal((12, 12, 12))
    assert_allclose(shell_correlation(box, 3 * box), 1)
    assert_allclose(shell_correlation(box, -box), -1)
    assert_allclose(shell_correlation(box, np.zeros_like(box)), 0)


@pytest.mark.parametrize("limit", [6, 9, 12])
def test_resolution_is_the_limit_by_construction(limit: int) -> None:
    """Signal up to a shell and noise everywhere: 0.143 is crossed within one shell of it."""
    edge, voxel_size = 48, 5.0
    rng = np.random.default_rng(limit)
    compact = rng.standard_normal((edge,) * 3) * soft_ball(edge, 9, 4)
    k = half_space(edge, 0.0, limit + 0.5)
    falling = np.exp(-np.linalg.norm(k, axis=1) / 5)
    signal = volume(values_of(compact, k) * falling, k, edge)
    # At the limit the halves' FSC without a mask is about one half.
    last = np.linalg.norm(k, axis=1) > limit - 0.5
    power = np.mean(np.abs(values_of(signal, k)[last]) ** 2)
    noise = rng.standard_normal((2, edge, edge, edge)) * np.sqrt(power / edge**3)
    for mask, blur in ((None, 0.0), (soft_ball(edge, 14, 6), 0.5)):  # a mask spreads each shell into the next
        fsc = masked_correlation(signal + noise[0], signal + noise[1], voxel_size, mask)
        shell = edge * voxel_size / fsc.resolution_angstrom(0.143)
        assert abs(shell - (limit + 0.5)) <= 1 + blur  # the last frequency with signal is half a shell beyond `limit`
        assert fsc.resolution_angstrom(0.5) >= fsc.resolution_angstrom(0.143)


def test_randomised_phases_uncover_what_the_mask_makes() -> None:
    """Two maps of nothing but noise agree under a tight mask; corrected, they do not."""
    edge = 32
    rng = np.random.default_rng(3)
    axis = np.arange(edge) - edge // 2
    mask = np.exp(-(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) / (2 * 3.0**2))
    shared = weighted_by_shell(rng.standard_normal((edge,) * 3), (np.arange(edge // 2) < 4).astype(float)) * 20
    first, second = (shared + rng.standard_normal((edge,) * 3) for _ in range(2))
    fsc = masked_correlation(first, second, 1.0, mask)
    assert fsc.random_from is not None
    assert fsc.random_from <= 5
    leaked = fsc.random_from + 2
    assert fsc.masked[leaked] > 0.3
    assert fsc.randomised[leaked] == pytest.approx(fsc.masked[leaked], abs=0.2)
    assert fsc.corrected[leaked:].max() < 0.2


def test_random_phases_keep_amplitudes_and_low_shells() -> None:
    box = np.random.default_rng(4).standard_normal((16, 16, 16))
    mixed = random_phases(box, 5, np.random.default_rng(5))
    assert_allclose(np.abs(np.fft.fftn(mixed)), np.abs(np.fft.fftn(box)), atol=1e-6)
    fsc = shell_correlation(box, mixed)
    assert_allclose(fsc[:5], 1)
    assert np.abs(fsc[6:]).max() < 0.3


def test_crossing_lies_between_shells() -> None:
    fsc = np.array([1.0, 1.0, 0.9, 0.5, 0.1, 0.3, 0.0])
    # 0.5 → 0.1 crosses 0.143 at 3 + 0.357 / 0.4; what comes back later does not count.
    assert resolution_angstrom(fsc, 14, 2.0, 0.143) == pytest.approx(28 / (3 + 0.357 / 0.4))
    assert resolution_angstrom(fsc, 14, 2.0, 0.5) == pytest.approx(28 / (3 + 0.0 / 0.4))
    assert resolution_angstrom(np.ones(7), 14, 2.0, 0.143) == 4.0
    assert resolution_angstrom(np.zeros(7), 14, 2.0, 0.143) == np.inf


def test_figure_of_merit_is_the_correlation_with_the_truth() -> None:
    """C_ref of two noisy halves against the correlation of their mean with the noise-free map."""
    edge = 32
    rng = np.random.default_rng(6)
    truth = weighted_by_shell(rng.standard_normal((edge,) * 3), 3.0 * np.exp(-np.arange(edge // 2) / 6))
    first, second = (truth + rng.standard_normal((edge,) * 3) for _ in range(2))
    found = figure_of_merit(shell_correlation(first, second))
    right = shell_correlation(first + second, truth)
    agreeing = np.flatnonzero(found > 0)[3:]
    assert len(agreeing) > 4
    assert_allclose(found[agreeing], right[agreeing], atol=0.1)
    assert abs((found - right)[agreeing].mean()) < 0.02


def test_low_pass_and_shell_weights() -> None:
    weights = low_pass(20, 10.0, 40.0)  # shell 5
    assert_allclose(weights[:4], 1)
    assert weights[5] == pytest.approx(0.5)
    assert_allclose(weights[6:], 0, atol=1e-12)
    box = lumps(20)
    assert_allclose(weighted_by_shell(box, np.ones(10)), low_only(box), atol=1e-5)


def low_only(box: np.ndarray) -> np.ndarray:
    """The map without frequencies beyond the last shell, tapered over the one between."""
    edge = box.shape[0]
    axis = np.fft.fftfreq(edge) * edge
    length = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return np.fft.ifftn(np.fft.fftn(box) * (length <= edge // 2 - 1)).real
