"""Confidence intervals of F-beta over tomograms: Student's t with the jackknife's standard error.

Particles of one tomogram share its ice, defocus and crowding, so tomograms are what varies independently. They are few, and
a percentile bootstrap over few of them covers far less than it says (75 % in place of 95 with three). Here each
tomogram is left out in turn (Quenouille, Tukey), on the scale g = arcsin √F on which the spread of a share hardly depends
on the share:

    variance of g = (T − 1)/T · Σ (g without tomogram t − their mean)²,     interval: g ± t(T − 1) · √variance

The variance is at least 1/(8N), N the mean of the numbers of true particles and picks: what counting alone gives near
F = 1. A few tomograms that happen to agree, or that are all perfect, thus do not make an interval of no width.

Source: Efron, Stein 1981 (the jackknife's variance); `tests/evaluation/test_intervals.py` measures the coverage.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from robpicker_jax.evaluation.scores import f_beta

LEAST_TOMOGRAMS = 3
"""With two tomograms the interval would hold nearly everything."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """Intervals of F-beta: of each class (None where undefined), of their mean, and of the pooled counts."""

    classes: tuple[Interval | None, ...]
    macro: Interval | None
    micro: Interval | None


def fbeta_intervals(counts: NDArray[np.int64], beta: float, *, level: float = 0.95) -> Intervals:
    """Intervals of F-beta over tomograms.

    Args:
        counts: int (t, c, ≥ 3), for each tomogram and class: true, picked, true positives.
        beta: of F-beta.
        level: coverage of the intervals.

    Returns:
        The intervals; all None with fewer than three tomograms, and that of a class where fewer than three tomograms
        have true particles or picks of it.
    """
    tomograms, n_classes = counts.shape[:2]
    none = Intervals((None,) * n_classes, None, None)
    if tomograms < LEAST_TOMOGRAMS:
        return none
    numbers_of = counts[:, :, :3].astype(np.float64)
    present = numbers_of[:, :, :2].sum(axis=2) > 0  # (t, c)
    if not present.any():
        return none
    numbers = numbers_of[:, :, :2].sum(axis=(0, 2)) / 2  # N of each class
    known = numbers > 0
    floors = np.where(known, 1 / (8 * np.maximum(numbers, 1)), 0.0)
    classes = tuple(
        _interval(_scores(numbers_of[present[:, c], c : c + 1], beta), float(floors[c]), level)
        for c in range(n_classes)
    )
    macro = _interval(_scores(numbers_of, beta), float(floors[known].sum() / known.sum() ** 2), level)
    pooled = numbers_of[present.any(axis=1)].sum(axis=1, keepdims=True)
    micro = _interval(_scores(pooled, beta), 1 / (8 * float(numbers.sum())), level)
    return Intervals(classes, macro, micro)


def _scores(counts: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Mean F-beta over the classes of all tomograms, then without each one in turn: (1 + t,)."""
    total = counts.sum(axis=0)
    sums = np.concatenate([total[None], total[None] - counts])
    by_class = f_beta(sums[..., 2], sums[..., 1], sums[..., 0], beta)
    known = np.isfinite(by_class)
    result: NDArray[np.float64] = np.where(known, by_class, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return result


def _interval(scores: NDArray[np.float64], floor: float, level: float) -> Interval | None:
    """The interval from the score of all tomograms and those without each one."""
    tomograms = len(scores) - 1
    if tomograms < LEAST_TOMOGRAMS:
        return None
    # Where one pick may be right several times, F exceeds 1; there is no interval of a share then.
    if scores.max() > 1:
        return None
    angles = np.arcsin(np.sqrt(scores))
    variance = (tomograms - 1) / tomograms * float(np.square(angles[1:] - angles[1:].mean()).sum())
    half = float(stats.t.ppf((1 + level) / 2, tomograms - 1)) * np.sqrt(max(variance, floor))
    low, high = np.sin(np.clip([angles[0] - half, angles[0] + half], 0, np.pi / 2)) ** 2
    return Interval(float(low), float(high))
