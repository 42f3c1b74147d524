"""Score thresholds at which F1 is best on clean tomograms."""

from __future__ import annotations

import numpy as np

from robpicker_jax.evaluation import Evaluation
from robpicker_jax.evaluation.curves import PrecisionRecallCurve


def best_thresholds(evaluation: Evaluation) -> list[float]:
    """Smallest score of each class, from the evaluated tomograms: where F1 is best, halfway to the next pick's score below.

    The score of the worst pick worth keeping would be too strict: on other tomograms some good picks score a little
    lower. Where no pick is worth dropping, or none can be ranked, the threshold is 0.
    """
    return [_best_threshold(score.curve) for score in evaluation.classes]


def _best_threshold(curve: PrecisionRecallCurve | None) -> float:
    if curve is None or not len(curve.thresholds):
        return 0.0
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    last = int(np.flatnonzero(np.isclose(f1, f1.max()))[-1])  # thresholds fall: of equal ones, the lowest
    below = curve.thresholds[last + 1 :]
    return float((curve.thresholds[last] + below[0]) / 2) if len(below) else 0.0
