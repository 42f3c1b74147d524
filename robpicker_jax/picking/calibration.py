"""Score thresholds for a required precision, calibrated on the clean tomograms: meta, and validation where there is any.

The precision that some picks happened to have is a point estimate: on other tomograms it is missed about every second time.
For each class c the threshold is therefore

    t_c(p) = min {t : the lower bound of precision_c(t) is at least p}

where precision_c(t) is that of the picks of class c with a score of at least t, and the bound is Clopper and Pearson's
one-sided 95 % bound: were the true precision below it, so many right picks would be seen once in twenty times at most.
Candidates for t are the ends of the steps of an isotonic regression of right and wrong on the score. Within a step the
scores do not tell right from wrong, so no lucky place within it is taken, and one false pick at the very top does
not spoil what comes after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.config import validated
from robpicker_jax.evaluation import Evaluation
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import one_line, read_json_object, write_text

FILE = "calibration.json"
CONFIDENCE = 0.95
"""Of the lower bound, one-sided."""


@dataclass(frozen=True)
class Operating:
    """What a threshold gave on the calibration tomograms.

    Attributes:
        threshold: smallest score that is kept.
        precision: share of the picks that were right.
        bound: its lower bound.
        recall: share of the particles that were found.
    """

    threshold: float
    precision: float
    bound: float
    recall: float


@dataclass(frozen=True)
class Calibration:
    """The contents of `calibration.json`: tomograms it was made on, and classes by name."""

    tomograms: tuple[str, ...]
    classes: dict[str, ClassCalibration]


def operating_points(calibration: ClassCalibration) -> list[Operating]:
    """The candidate thresholds of a class, falling."""
    from scipy.stats import beta

    ends = _ends_of_steps(calibration)
    picked = np.asarray(calibration.picked, np.float64)
    hits = np.minimum(np.asarray(calibration.hits, np.float64), picked)
    bounds = np.nan_to_num(beta.ppf(1 - CONFIDENCE, hits[ends], picked[ends] - hits[ends] + 1))
    return [
        Operating(
            calibration.thresholds[end],
            float(hits[end] / picked[end]),
            float(bound),
            float(hits[end] / calibration.true) if calibration.true else 0.0,
        )
        for end, bound in zip(ends.tolist(), bounds, strict=True)
    ]


def condensed(calibration: ClassCalibration) -> ClassCalibration:
    """A calibration at the ends of the steps of its isotonic regression alone, as a model's card holds it.

    Its operating points are those of the whole, and so is the threshold of the highest F-beta: the ends are the corners
    of the concave hull of hits over picks, and F-beta, (1 + β²) hits / (picked + β² true), is highest at one of them.
    """
    ends = _ends_of_steps(calibration).tolist()
    columns = (calibration.thresholds, calibration.picked, calibration.hits)
    thresholds, picked, hits = (tuple(column[end] for end in ends) for column in columns)
    return ClassCalibration(thresholds, picked, hits, calibration.true)


def _ends_of_steps(calibration: ClassCalibration) -> np.ndarray:
    """Indices of the last threshold of each step of the isotonic regression of right and wrong on the score."""
    from sklearn.isotonic import isotonic_regression

    picked = np.asarray(calibration.picked, np.float64)
    hits = np.minimum(np.asarray(calibration.hits, np.float64), picked)
    if not picked.size:
        return np.zeros(0, np.intp)
    new = np.diff(picked, prepend=0.0)
    share = isotonic_regression(np.diff(hits, prepend=0.0) / new, sample_weight=new, increasing=False)
    return np.append(np.flatnonzero(np.diff(share) < -1e-12), len(share) - 1)


def lowest(points: Sequence[Operating], precision: float) -> Operating | None:
    """The lowest threshold whose bound is at least a precision; None where none is."""
    good = [point for point in points if point.bound >= precision]
    return good[-1] if good else None


def calibrate(evaluation: Evaluation) -> dict[str, ClassCalibration]:
    """Calibration of every class whose picks have scores, by name."""
    found = {}
    for score in evaluation.classes:
        if score.curve is not None and len(score.curve.thresholds):
            curve = score.curve
            found[score.name] = ClassCalibration(
                tuple(curve.thresholds.tolist()),
                tuple(curve.picked.tolist()),
                tuple(curve.hits.tolist()),
                score.counts.true,
            )
    return found


def save(workdir: Path, calibration: Mapping[str, ClassCalibration], tomograms: Sequence[str]) -> None:
    """Write the calibration into the workdir, with the names of the tomograms it was made on."""
    content = Calibration(tuple(tomograms), dict(calibration))
    write_text(workdir / FILE, json.dumps(asdict(content), indent=1) + "\n")


def load(workdir: Path) -> Calibration:
    """Read the calibration of a run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = workdir / FILE
    if not path.is_file():
        raise InputError(
            "the run was not calibrated",
            where=path,
            fix="let the training finish, with meta or validation tomograms, or leave --precision out",
        )
    content = read_json_object(path)
    try:
        found = validated(Calibration, content, path)
    except InputError as error:
        raise InputError(f"damaged: no calibration ({one_line(error)})", where=path, fix="run train again") from None
    for name, entry in found.classes.items():
        lists = np.asarray(entry.picked), np.asarray(entry.hits)
        fits = len(entry.thresholds) == len(entry.picked) == len(entry.hits)
        if not fits or (np.diff(lists[0], prepend=0) < 1).any() or (np.diff(lists[1], prepend=0) < 0).any():
            raise InputError(f"the numbers of {name} do not fit together", where=path, fix="run train again")
    return found


def min_scores(
    workdir: Path,
    class_names: Sequence[str],
    precision: float,
    known: Mapping[str, ClassCalibration] | None = None,
) -> list[Operating]:
    """What to keep of each class for a required precision.

    Args:
        workdir: the run's folder.
        class_names: name of class 1, 2, ….
        precision: the least share of the picks that are to be right.
        known: the calibration, where a model's card has it; None: the run's.

    Raises:
        InputError: no calibration, a precision outside (0, 1), or a class for which its picks do not show it.
    """
    if not 0 < precision < 1:
        raise InputError(
            f"must lie above 0 and below 1, got {precision:g}",
            where="--precision",
            fix="no number of picks shows a precision of 1; ask for 0.9, say",
        )
    path, classes = (workdir / FILE, load(workdir).classes) if known is None else (Path("the model's card"), known)
    scores = []
    for name in class_names:
        points = operating_points(classes[name]) if name in classes else []
        if not points:
            raise InputError(
                f"no picks of {name} on the calibration tomograms", where=path, fix="leave --precision out"
            )
        chosen = lowest(points, precision)
        if chosen is None:
            best = max(points, key=lambda point: point.bound)
            raise InputError(
                f"a precision of {precision:g} is not shown for {name}: at best {best.precision:.2f} was seen, which may "
                f"be {best.bound:.2f} (lower bound, {classes[name].picked[-1]} picks in all)",
                where=path,
                fix="ask for less, choose --picking.min_score yourself, or train with more annotated tomograms in val/",
            )
        scores.append(chosen)
    return scores
