"""Precision, recall, F1 and F-beta from counts, and their averages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Counts:
    """What was there and what was found.

    Attributes:
        true: true particles.
        picked: picks.
        true_positives: picks that count as hits.
        found: true particles hit at least once; equals `true_positives` under one-to-one matching.
    """

    true: int
    picked: int
    true_positives: int
    found: int

    @property
    def false_positives(self) -> int:
        """Picks that are no hits."""
        return self.picked - self.true_positives

    @property
    def false_negatives(self) -> int:
        """True particles that no pick hit."""
        return self.true - self.found


@dataclass(frozen=True)
class Rates:
    """Precision, recall, F1 and F-beta; NaN where undefined (neither true particles nor picks)."""

    precision: float
    recall: float
    f1: float
    fbeta: float

    def as_dict(self) -> dict[str, float | None]:
        """The four by name, None where undefined."""
        return {name: none_if_nan(value) for name, value in asdict(self).items()}


def f_beta(true_positives: ArrayLike, picked: ArrayLike, true: ArrayLike, beta: float = 1.0) -> NDArray[np.float64]:
    """F-beta of counts: (1 + β²)·tp / (β²·true + picked), which is (1 + β²)·P·R / (β²·P + R); NaN for 0/0.

    Source: van Rijsbergen, "Information Retrieval", 1979. β > 1 favours recall.
    """
    tp, n_picked, n_true = (np.asarray(value, dtype=np.float64) for value in (true_positives, picked, true))
    return _ratio((1 + beta**2) * tp, beta**2 * n_true + n_picked)


def rates(counts: Counts, beta: float = 1.0) -> Rates:
    """Rates of counts.

    Precision is tp / picked and recall tp / true. With true particles and no picks, or picks and no true particles,
    the undefined one of the two is 0, as scikit-learn and CZII's scorer have it.
    """
    return mean_rates(np.array([counts.true]), np.array([counts.picked]), np.array([counts.true_positives]), beta)


def mean_rates(
    true: NDArray[np.integer],
    picked: NDArray[np.integer],
    true_positives: NDArray[np.integer],
    beta: float = 1.0,
    weights: NDArray[np.float64] | None = None,
) -> Rates:
    """(Weighted) means over classes of each class's rates; classes with neither true particles nor picks are left out.

    Args:
        true, picked, true_positives: counts (c,).
        beta: of F-beta.
        weights: float (c,), or None for the plain mean.
    """
    weight = np.ones(len(true)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = np.where((true + picked > 0), weight, 0.0)
    if not weight.sum() > 0:
        return Rates(np.nan, np.nan, np.nan, np.nan)
    columns = (
        np.nan_to_num(_ratio(true_positives, picked)),
        np.nan_to_num(_ratio(true_positives, true)),
        np.nan_to_num(f_beta(true_positives, picked, true, 1.0)),
        np.nan_to_num(f_beta(true_positives, picked, true, beta)),
    )
    return Rates(*(float(np.average(column, weights=weight)) for column in columns))


def none_if_nan(value: Any) -> float | None:
    """A float for JSON: None in place of NaN."""
    return None if value is None or np.isnan(value) else float(value)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    result = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result
