"""What a score is worth without truth: rates and bounds against SciPy's binomial test, counts against planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, poisson

from robpicker_jax.annotations import Particles
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.expectation import Rate, expected_at, expected_counts, expected_curve, expected_curve_of_all


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 30))
def test_rates_and_bounds_are_those_of_the_exact_binomial_test(right: list[bool], missed: int) -> None:
    hits, true = np.cumsum(right), sum(right) + missed
    scores = np.linspace(0.9, 0.1, len(right))
    entry = ClassCalibration(tuple(scores), tuple(range(1, len(right) + 1)), tuple(hits.tolist()), true)
    curve = expected_curve(entry)
    assert curve[-1].threshold == scores[-1]
    for point in curve:
        at = int(np.flatnonzero(scores == point.threshold)[0])
        assert (point.recall is None) == (true == 0)
        for rate, trials in ((point.precision, at + 1), (point.recall, true)):
            if rate is None:
                continue
            interval = binomtest(int(hits[at]), trials).proportion_ci(0.95, method="exact")
            assert rate.value == pytest.approx(hits[at] / trials)
            assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_a_score_between_two_thresholds_is_worth_what_the_higher_one_is() -> None:
    entry = ClassCalibration((0.8, 0.4), (10, 20), (10, 12), 16)
    assert [point.threshold for point in expected_curve(entry)] == [0.8, 0.4]
    for score, threshold in ((0.9, 0.8), (0.8, 0.8), (0.6, 0.8), (0.4, 0.4), (0.1, 0.4)):
        point = expected_at(entry, score)
        assert point is not None
        assert point.threshold == threshold
    assert expected_at(ClassCalibration((), (), (), 3), 0.5) is None


@given(st.integers(0, 30), st.integers(2, 12))
def test_a_curve_of_all_scores_says_what_each_of_them_is_worth_and_keeps_its_ends(count: int, most: int) -> None:
    scores = tuple(np.linspace(0.9, 0.1, count).tolist())
    entry = ClassCalibration(scores, tuple(range(1, count + 1)), tuple(range(count)), 50)
    curve = expected_curve_of_all(entry, most)
    assert len(curve) == min(count, most)
    assert all(point == expected_at(entry, point.threshold) for point in curve)
    if curve:
        assert (curve[0].threshold, curve[-1].threshold) == (scores[0], scores[-1])


def test_counts_of_a_tomogram_without_truth_are_near_the_planted_ones() -> None:
    """600 particles of which 80 % are found, and one false pick for three right ones, on either side."""
    rng = np.random.default_rng(2)

    def world(found: int, false: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.concatenate([rng.uniform(0.5, 1.0, found), rng.uniform(0.3, 0.8, false)])
        return scores, np.arange(found + false) < found

    scores, right = world(480, 160)
    order = np.argsort(-scores)
    entry = ClassCalibration(
        tuple(scores[order].tolist()), tuple(range(1, 641)), tuple(np.cumsum(right[order]).tolist()), 600
    )
    scores, right = world(240, 80)
    picks = Particles(np.zeros((320, 3)), np.ones(320, int), scores=scores)
    count = expected_counts(picks, {"a": entry}, ["a", "b"], {})["a"]
    assert count.picks == 320
    assert count.right.low < right.sum() < count.right.high
    assert count.right.value == pytest.approx(240, rel=0.1)
    assert count.particles.value == pytest.approx(300, rel=0.1)
    assert count.particles.low < 300 < count.particles.high
    above = expected_counts(picks, {"a": entry}, ["a"], {"a": 0.6})["a"]
    assert above.picks == (scores >= 0.6).sum()
    assert above.right.value == pytest.approx(right[scores >= 0.6].sum(), rel=0.1)
    assert above.particles.value == pytest.approx(300, rel=0.1)
    assert expected_counts(picks.with_(scores=None), {"a": entry}, ["a"], {}) == {}


@pytest.mark.parametrize("expected_true", [3.0, pytest.param(12.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recall", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("false_per_particle", [0.05, 0.5, 2.0])
def test_the_bounds_of_the_number_of_particles_hold_in_95_of_100_calibrations(
    expected_true: float, recall: float, false_per_particle: float
) -> None:
    """Exactly, by the sum over all outcomes: particles that were found, missed, and false picks, each Poisson distributed."""
    true_quotient = 1 / (recall + false_per_particle)  # particles for each pick
    means = (expected_true * recall, expected_true * (1 - recall), expected_true * false_per_particle)
    numbers = [np.arange(1 + int(poisson.isf(1e-6, mean))) for mean in means]
    chances = [poisson.pmf(k, mean) for k, mean in zip(numbers, means, strict=True)]
    covered = said = 0.0
    for hits in numbers[0][1:].tolist():  # without a hit nothing is said
        for missed in numbers[1].tolist():
            for false in numbers[2].tolist():
                entry = ClassCalibration((0.5,), (hits + false,), (hits,), hits + missed)
                rate = _quotient(entry)
                chance = chances[0][hits] * chances[1][missed] * chances[2][false]
                said += chance
                covered += chance * (rate.low <= true_quotient <= rate.high)
    assert covered / said >= 0.95


def test_the_bounds_of_the_number_of_particles_close_in_on_it_with_the_calibration() -> None:
    """80 % are found, and one pick in four is false: 0.9375 particles for each pick, whatever the number looked at."""
    widths = []
    for n in (1, 10, 100, 1000):
        rate = _quotient(ClassCalibration((0.5,), (16 * n,), (12 * n,), 15 * n))
        assert rate.low < rate.value < rate.high
        assert rate.value == pytest.approx(0.9375)
        widths.append(rate.high - rate.low)
    assert np.array(widths[:-1]) / widths[1:] == pytest.approx(10**0.5, rel=0.6)
    assert widths[-1] < 0.08
    for entry in (ClassCalibration((0.5,), (4,), (0,), 3), ClassCalibration((0.5,), (4,), (0,), 0)):
        point = expected_at(entry, 0.5)
        assert point is not None
        assert point.particles_per_pick is None


def _quotient(entry: ClassCalibration) -> Rate:
    point = expected_at(entry, 0.5)
    assert point is not None
    assert point.particles_per_pick is not None
    return point.particles_per_pick
