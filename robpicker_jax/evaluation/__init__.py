"""Picks against truth: matching rules, scores, curves, intervals, tables."""

from robpicker_jax.evaluation.curves import PrecisionRecallCurve, precision_recall_curve
from robpicker_jax.evaluation.groups import GROUP_LIMITS_KDA, SIZE_GROUPS, size_group
from robpicker_jax.evaluation.intervals import Interval, fbeta_intervals
from robpicker_jax.evaluation.options import EvaluationOptions
from robpicker_jax.evaluation.results import ClassScore, Evaluation, GroupScore, Localisation, LocalisationError
from robpicker_jax.evaluation.rules import LABEL_RULES, RULES, Rule
from robpicker_jax.evaluation.scores import Counts, Rates, f_beta
from robpicker_jax.evaluation.scoring import evaluate
from robpicker_jax.evaluation.table import evaluation_table

__all__ = [
    "GROUP_LIMITS_KDA",
    "LABEL_RULES",
    "RULES",
    "SIZE_GROUPS",
    "ClassScore",
    "Counts",
    "Evaluation",
    "EvaluationOptions",
    "GroupScore",
    "Interval",
    "Localisation",
    "LocalisationError",
    "PrecisionRecallCurve",
    "Rates",
    "Rule",
    "evaluate",
    "evaluation_table",
    "f_beta",
    "fbeta_intervals",
    "precision_recall_curve",
    "size_group",
]
