"""Precision-recall curves and average precision over scored picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.evaluation.matching import Pairs, gains_by_rank
from robpicker_jax.evaluation.rules import Counting
from robpicker_jax.evaluation.scores import f_beta


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of the picks whose score is at least a threshold.

    Attributes:
        thresholds: float64 (k,), the distinct scores, falling.
        precision, recall: float64 (k,), at each threshold.
        picked, hits: int64 (k,), picks that reach each threshold, and how many of them are hits.
        average_precision: Σ_k (recall_k − recall_{k−1}) · precision_k, not interpolated; particles that no pick
            reaches lower it. Under greedy counting it is DeePiCt's area: by trapezoids between the points of single
            picks, from the first one on.
        best_threshold: threshold of the highest F-beta (the highest such threshold); NaN without picks.
        best_fbeta: that F-beta.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    picked: NDArray[np.int64]
    hits: NDArray[np.int64]
    average_precision: float
    best_threshold: float
    best_fbeta: float

    def as_dict(self, max_points: int = 200) -> dict[str, Any]:
        """For JSON; longer curves are thinned to about `max_points`, ends kept."""
        count = len(self.thresholds)
        chosen = np.unique(np.linspace(0, max(count - 1, 0), min(count, max_points)).round().astype(np.intp))
        return {name: getattr(self, name)[chosen].tolist() for name in ("thresholds", "precision", "recall")}


def precision_recall_curve(
    pairs: Sequence[Pairs],
    scores: Sequence[NDArray[np.float64]],
    picks: Sequence[NDArray[np.int64]],
    n_true: int,
    *,
    beta: float = 1.0,
    counting: Counting = "one_to_one",
) -> PrecisionRecallCurve:
    """The curve of one class over several tomograms.

    Under one-to-one matching the true positives at a threshold are the largest matching of the picks that pass it, so
    that the last point of the curve equals the scores of the whole list.

    Args:
        pairs: candidate pairs of each tomogram.
        scores: float64 (n,) of all picks of each tomogram.
        picks: int64, indices of this class's picks in each tomogram.
        n_true: true particles of the class in all.
        beta: of the F-beta that chooses `best_threshold`.
        counting: see `matching.Counting`.
    """
    all_scores, all_gains = [np.empty(0)], [np.empty(0, np.int64)]
    for found, values, chosen in zip(pairs, scores, picks, strict=True):
        ranked = chosen[np.argsort(-values[chosen], kind="stable")]
        gains = gains_by_rank(found, ranked, counting)
        all_scores.append(values[ranked])
        all_gains.append(gains)
    score, gain = np.concatenate(all_scores), np.concatenate(all_gains)
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(gain[order])
    if score.size == 0:
        none = np.empty(0, np.int64)
        return PrecisionRecallCurve(score, score, score, none, none, 0.0 if n_true else np.nan, np.nan, np.nan)
    each = hits, np.arange(1, score.size + 1)
    last = np.append(np.flatnonzero(np.diff(score)), score.size - 1)  # equal scores pass a threshold together
    hits, number = hits[last], last + 1
    precision = hits / number
    recall = hits / n_true if n_true else np.zeros(len(hits))
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision)) if n_true else np.nan
    if n_true and counting == "greedy":
        area = float(np.trapezoid(each[0] / each[1], each[0] / n_true))
    quality = np.nan_to_num(f_beta(hits, number, n_true, beta))
    best = int(np.argmax(quality))
    at = float(score[last][best])
    return PrecisionRecallCurve(score[last], precision, recall, number, hits, area, at, float(quality[best]))
