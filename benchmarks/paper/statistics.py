"""Means over seeds, and differences that are paired by seed, with two kinds of 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.stats

LEVEL = 0.95
_RESAMPLES = 2000

BySeed = Mapping[int, float | None]
"""A figure of a case, by seed; None where it is not defined."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and how well it is known.

    Attributes:
        mean: NaN without a value.
        n: number of seeds.
        t: 95 % interval by Student's t, which takes the values as normal; None with fewer than two.
        bootstrap: 95 % percentile interval of the mean over resampled seeds; with few seeds it is too narrow.
    """

    mean: float
    n: int
    t: tuple[float, float] | None
    bootstrap: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the t interval leaves zero out."""
        return self.t is not None and (self.t[0] > 0 or self.t[1] < 0)


def estimate(values: BySeed) -> Estimate:
    """Mean and intervals of a figure over its seeds."""
    known = np.array([value for value in values.values() if value is not None and math.isfinite(value)])
    n = len(known)
    if n < 2:
        return Estimate(float(known.mean()) if n else math.nan, n, None, None)
    mean, error = float(known.mean()), float(known.std(ddof=1) / math.sqrt(n))
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    if error == 0:
        return Estimate(mean, n, (mean, mean), (mean, mean))
    found = scipy.stats.bootstrap(
        (known,), np.mean, n_resamples=_RESAMPLES, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Estimate(mean, n, (mean - reach, mean + reach), (float(found.low), float(found.high)))


def difference(values: BySeed, reference: BySeed) -> Estimate:
    """The figure minus the reference's, seed by seed; seeds that only one of them has are left out."""
    return estimate(
        {
            seed: value - other
            for seed, value in values.items()
            if value is not None and (other := reference.get(seed)) is not None
        }
    )
