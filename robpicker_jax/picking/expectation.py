"""What a score threshold is worth on tomograms without truth, judged by the calibration tomograms.

Of class c and a threshold t, with `picked` picks of at least t on the calibration tomograms, `hits` of them right, and `true`
particles there:

    precision   hits / picked,   with Clopper and Pearson's two-sided 95 % bounds
    recall      hits / true,     likewise

Thresholds are the ends of the steps of the isotonic regression of right and wrong on the score, as in `calibration`. On a
tomogram without truth with n picks of at least t, about n · precision are right, and there are about
n · precision / recall particles. The bounds of that quotient are

    lower bound of precision / upper bound of recall … upper bound of precision / lower bound of recall

with 97.5 % bounds of each: both hold together in 95 of 100 calibrations at least, however they depend on each other, since
each fails in 2.5 at most (Bonferroni). Such bounds are wide, and never narrower than they say.

Bounds cover what is expected, as far as it is not known from so few calibration tomograms. They do not cover by how much a
single tomogram's own numbers scatter about it, and they know nothing of how it differs from the calibration tomograms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.calibration import condensed

CONFIDENCE = 0.95
"""Of the two-sided bounds."""
_OF_EACH = 1 - (1 - CONFIDENCE) / 2
"""Of the bounds of precision and of recall, where bounds of both have to hold at once."""


@dataclass(frozen=True)
class Rate:
    """A share with its bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Expected:
    """What the picks of at least a score are worth.

    Attributes:
        threshold: the score.
        precision: share of the picks that are right.
        recall: share of the particles that are found; None where the calibration tomograms had no particles of the class.
        particles_per_pick: how many particles there are for each pick; None where the recall is not known or zero.
    """

    threshold: float
    precision: Rate
    recall: Rate | None
    particles_per_pick: Rate | None = None


@dataclass(frozen=True)
class ExpectedCount:
    """What is expected of the picks of one class of a tomogram without truth.

    Attributes:
        picks: how many reach the threshold.
        right: how many of them are right, with bounds.
        particles: how many particles there are, with bounds; None where the recall is not known or zero.
    """

    picks: int
    right: Rate
    particles: Rate | None


def expected_curve(calibration: ClassCalibration) -> list[Expected]:
    """Precision and recall at each candidate threshold of a class, falling; none where nothing was picked."""
    kept = condensed(calibration)
    return [_expected(kept, index) for index in range(len(kept.thresholds))]


def expected_curve_of_all(calibration: ClassCalibration, most: int = 200) -> list[Expected]:
    """Precision and recall at the scores of a class, falling: what `expected_at` says, for a slider that stops anywhere.

    Args:
        calibration: of the class.
        most: of more scores so many are taken, evenly over the picks, the highest and the lowest among them.
    """
    count = len(calibration.thresholds)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return [_expected(calibration, index) for index in chosen.tolist()]


def expected_at(calibration: ClassCalibration, score: float) -> Expected | None:
    """What the picks of at least a score are worth; None without picks on the calibration tomograms.

    Of a condensed calibration the nearest threshold that is not lower speaks, and above the highest threshold that one.
    """
    if not calibration.thresholds:
        return None
    reached = sum(threshold >= score for threshold in calibration.thresholds)
    return _expected(calibration, max(reached, 1) - 1)


def expected_counts(
    picks: Particles,
    calibration: Mapping[str, ClassCalibration],
    class_names: Sequence[str],
    min_scores: Mapping[str, float],
) -> dict[str, ExpectedCount]:
    """What is expected of a tomogram's picks, by class.

    Args:
        picks: of one tomogram, with scores.
        calibration: by class; classes that it lacks are left out, as are those without picks.
        class_names: name of class 1, 2, ….
        min_scores: smallest score kept of each class; 0 where it lacks one.
    """
    found: dict[str, ExpectedCount] = {}
    for label, name in enumerate(class_names, start=1):
        if picks.scores is None or name not in calibration:
            continue
        least = min_scores.get(name, 0.0)
        count = int(np.count_nonzero((picks.labels == label) & (picks.scores >= least)))
        point = expected_at(calibration[name], least)
        if count and point is not None:
            per_pick = point.particles_per_pick
            particles = None if per_pick is None else _times(count, per_pick)
            found[name] = ExpectedCount(count, _times(count, point.precision), particles)
    return found


def _times(count: int, rate: Rate) -> Rate:
    """A number of picks times what each of them is worth."""
    return Rate(count * rate.value, count * rate.low, count * rate.high)


def _expected(calibration: ClassCalibration, index: int) -> Expected:
    """Precision and recall at one of a calibration's thresholds."""
    picked, true = calibration.picked[index], calibration.true
    right = min(calibration.hits[index], picked)
    recall = _rate(min(right, true), true) if true else None
    per_pick = _particles_per_pick(min(right, true), picked, true)
    return Expected(calibration.thresholds[index], _rate(right, picked), recall, per_pick)


def _particles_per_pick(hits: int, picked: int, true: int) -> Rate | None:
    """Precision over recall, with bounds that hold where those of both do; None without a pick that is right."""
    if not hits:
        return None
    precision, recall = (_rate(hits, trials, _OF_EACH) for trials in (picked, true))
    return Rate(precision.value / recall.value, precision.low / recall.high, precision.high / recall.low)


def _rate(hits: int, trials: int, confidence: float = CONFIDENCE) -> Rate:
    """hits / trials with Clopper and Pearson's bounds."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Rate(float(np.divide(hits, trials)), low, high)
