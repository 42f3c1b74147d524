"""Scores of a validation, by name: `evaluation.choose_by` names the one that chooses the best checkpoint.

A new score is a function of an `Evaluation`, the larger the better, and one line in `VALIDATION_METRICS`: here, or from
outside of the package by `VALIDATION_METRICS["mine"] = my_score` before the configuration is used.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robpicker_jax.evaluation.results import Evaluation
from robpicker_jax.system.registry import look_up


class ValidationMetric(Protocol):
    """One number from an evaluation of the validation tomograms; larger is better, NaN where it is undefined."""

    def __call__(self, evaluation: Evaluation, /) -> float:
        """The score."""
        ...


def mean_average_precision(evaluation: Evaluation) -> float:
    """Mean over classes of the area under the precision-recall curve; classes without one are left out."""
    areas = [area for score in evaluation.classes if (area := score.average_precision) is not None]
    return float(np.mean(areas)) if areas else float("nan")


VALIDATION_METRICS: dict[str, ValidationMetric] = {
    "macro_f1": lambda evaluation: evaluation.macro.f1,
    "micro_f1": lambda evaluation: evaluation.micro.f1,
    "macro_fbeta": lambda evaluation: evaluation.macro.fbeta,
    "micro_fbeta": lambda evaluation: evaluation.micro.fbeta,
    "mean_average_precision": mean_average_precision,
}
"""Name → score."""


def validation_scores(evaluation: Evaluation, choose_by: str = "macro_f1") -> dict[str, float]:
    """What a validation records: macro F1, F1 of each class (`f1/NAME`), and the score named by `choose_by`.

    Undefined scores (nothing to find and nothing picked) count as 0.

    Raises:
        InputError: an unknown name.
    """
    chosen = look_up(VALIDATION_METRICS, choose_by, key="evaluation.choose_by")
    scores = {"macro_f1": evaluation.macro.f1}
    scores |= {f"f1/{score.name}": score.rates.f1 for score in evaluation.classes}
    scores[choose_by] = chosen(evaluation)
    return {name: 0.0 if np.isnan(value) else float(value) for name, value in scores.items()}
