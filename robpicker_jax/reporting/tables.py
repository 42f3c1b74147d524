"""The evaluation and the history as the report reads them: missing or malformed entries are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """Scores of one class, group or average; None where undefined or not given.

    Attributes:
        members: classes of a group.
        average_precision: area under the precision-recall curve.
        best_threshold: score threshold of the highest F-beta.
        error_angstrom, error_vox: mean distance of correct picks from their particles.
        curve: thresholds (falling), precision, recall; empty without scored picks.
    """

    name: str
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    fbeta: float | None = None
    true_positives: int | None = None
    picked: int | None = None
    true: int | None = None
    members: tuple[str, ...] = ()
    average_precision: float | None = None
    best_threshold: float | None = None
    error_angstrom: float | None = None
    error_vox: float | None = None
    interval: tuple[float, float] | None = None
    curve: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores of the test tomograms, and how picks were judged."""

    classes: tuple[Score, ...] = ()
    macro: Score = Score("macro average")
    groups: tuple[Score, ...] = ()
    rule: str = ""
    one_to_one: bool = True
    beta: float = 1.0

    def of_class(self, name: str) -> Score | None:
        """The score of a class by name."""
        return next((score for score in self.classes if score.name == name), None)


def read_evaluation(evaluation: Mapping[str, Any]) -> Evaluation:
    """Read `metrics.Evaluation.as_dict()`, as evaluation.json holds it.

    "classes" and "groups" may be lists of records with "name", or mappings of name to record; a mean F1 that is not
    given is taken over the classes.
    """
    classes, groups = _scores(evaluation.get("classes")), _scores(evaluation.get("groups"))
    macro = _score("macro average", evaluation.get("macro") or {"f1": evaluation.get("macro_f1")})
    if macro.f1 is None and any(score.f1 is not None for score in classes):
        macro = _score("macro average", {"f1": float(np.mean([s.f1 for s in classes if s.f1 is not None]))})
    return Evaluation(
        classes,
        macro,
        groups,
        rule=str(evaluation.get("rule") or ""),
        one_to_one=bool(evaluation.get("one_to_one", True)),
        beta=number(evaluation.get("beta")) or 1.0,
    )


def series(
    history: Sequence[Mapping[str, Any]], kind: str, key: str, *, step: str = "step"
) -> tuple[np.ndarray, np.ndarray]:
    """One curve of the history: (steps, values), in order; a step logged twice (a resumed run) counts once, the later.

    Rows without the key and values that are not finite numbers are left out.
    """
    points: dict[float, float] = {}
    for row in history:
        value, at = number(row.get(key)), number(row.get(step))
        if row.get("kind") == kind and at is not None:
            points.pop(at, None)
            if value is not None:
                points[at] = value
    steps = np.array(sorted(points), dtype=np.float64)
    return steps, np.array([points[at] for at in steps], dtype=np.float64)


def keys_with_prefix(history: Sequence[Mapping[str, Any]], kind: str, prefix: str) -> list[str]:
    """What follows `prefix` in the keys of the rows of one kind, in order of appearance."""
    rows = (row for row in history if row.get("kind") == kind)
    return list(dict.fromkeys(key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix)))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average; at the ends, over what there is of its window."""
    if window < 2 or len(values) < 3:
        return values
    half = window // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))


def number(value: object) -> float | None:
    """A finite number, else None (NaN, text, missing)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value) if math.isfinite(value) else None


def _scores(block: Any) -> tuple[Score, ...]:
    if isinstance(block, Mapping):
        return tuple(_score(str(name), values) for name, values in block.items())
    return tuple(_score(str(values.get("name", "?")), values) for values in block or ())


def _score(name: str, values: Mapping[str, Any]) -> Score:
    errors = values.get("localisation") or {}
    bounds = [number(bound) for bound in values.get("fbeta_interval") or ()]
    low, high = bounds if len(bounds) == 2 else (None, None)
    return Score(
        name,
        precision=number(values.get("precision")),
        recall=number(values.get("recall")),
        f1=number(values.get("f1")),
        fbeta=number(values.get("fbeta")),
        true_positives=_count(values.get("true_positives")),
        picked=_count(values.get("picked")),
        true=_count(values.get("true")),
        members=tuple(map(str, values.get("members") or ())),
        average_precision=number(values.get("average_precision")),
        best_threshold=number(values.get("best_threshold")),
        error_angstrom=number(errors.get("mean_angstrom")),
        error_vox=number(errors.get("mean_vox")),
        interval=None if low is None or high is None else (low, high),
        curve=_curve(values.get("curve")),
    )


def _curve(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    if not values or not values.get("thresholds"):
        return None
    thresholds, precision, recall = (
        np.array([math.nan if v is None else v for v in values[key]], np.float64)
        for key in ("thresholds", "precision", "recall")
    )
    return thresholds, precision, recall


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None else round(found)
