"""Confidence intervals by resampling tomograms (percentile bootstrap, Efron 1979)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.evaluation.scores import f_beta


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """Intervals of F-beta: of each class (None where undefined), of their mean, and of the pooled counts."""

    classes: tuple[Interval | None, ...]
    macro: Interval | None
    micro: Interval | None


def bootstrap_fbeta(
    counts: NDArray[np.int64], beta: float, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Intervals:
    """Bootstrap intervals of F-beta over tomograms.

    Tomograms, not particles, are resampled: particles of one tomogram share its ice, defocus and membrane crowding.

    Args:
        counts: int (t, c, ≥ 3), for each tomogram and class: true, picked, true positives.
        beta: of F-beta.
        resamples: number of resamples.
        level: coverage of the intervals.
        seed: of the resampling.
    """
    tomograms = len(counts)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0x626F6F74)))
    times = rng.multinomial(tomograms, np.full(tomograms, 1 / tomograms), size=resamples)
    total = np.einsum("rt,tck->rck", times, counts[:, :, :3])
    by_class = f_beta(total[..., 2], total[..., 1], total[..., 0], beta)  # (resamples, c), NaN where undefined
    known = np.isfinite(by_class)
    macro = np.full(resamples, np.nan)
    np.divide(np.where(known, by_class, 0.0).sum(axis=1), known.sum(axis=1), out=macro, where=known.any(axis=1))
    pooled = total.sum(axis=1)
    micro = f_beta(pooled[:, 2], pooled[:, 1], pooled[:, 0], beta)
    return Intervals(
        tuple(_interval(column, level) for column in by_class.T), _interval(macro, level), _interval(micro, level)
    )


def _interval(values: NDArray[np.float64], level: float) -> Interval | None:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
