"""Score thresholds for a required precision, calibrated on the clean tomograms: meta, and validation where there is any.

    t_c(p) = min {t : precision_c(t') ≥ p for every candidate threshold t' ≥ t}

for each class c, where precision_c(t) is that of the picks of class c with a score of at least t. Asking it of every
threshold above keeps a lucky dip of a jagged curve from being taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from robpicker_jax.evaluation import Evaluation
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import one_line, read_json_object, write_text

FILE = "calibration.json"


@dataclass(frozen=True)
class ClassCalibration:
    """Precision of one class against the score threshold; thresholds fall, the number of picks kept rises."""

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]

    def threshold_for(self, precision: float) -> float | None:
        """The lowest threshold from which on the precision is at least the required one; None when no threshold reaches it."""
        good = np.asarray(self.precision) >= precision
        kept = int(np.argmin(good)) if not good.all() else len(good)
        return self.thresholds[kept - 1] if kept else None


def calibrate(evaluation: Evaluation) -> dict[str, ClassCalibration]:
    """Calibration of every class whose picks have scores, by name."""
    found = {}
    for score in evaluation.classes:
        if score.curve is not None and len(score.curve.thresholds):
            curve = score.curve
            found[score.name] = ClassCalibration(
                tuple(curve.thresholds.tolist()), tuple(curve.precision.tolist()), tuple(curve.recall.tolist())
            )
    return found


def save(workdir: Path, calibration: Mapping[str, ClassCalibration], tomograms: Sequence[str]) -> None:
    """Write the calibration into the workdir, with the names of the tomograms it was made on."""
    content = {"tomograms": list(tomograms), "classes": {name: vars(value) for name, value in calibration.items()}}
    write_text(workdir / FILE, json.dumps(content, indent=1) + "\n")


def read(path: Path) -> dict[str, ClassCalibration]:
    """The calibration that `save` wrote, by class.

    Raises:
        InputError: the file cannot be read, or is no calibration.
    """
    classes = read_json_object(path).get("classes")
    try:
        if not isinstance(classes, dict):
            raise TypeError("no classes")
        found = {}
        for name, curves in classes.items():
            numbers = {
                field.name: tuple(float(value) for value in curves[field.name]) for field in fields(ClassCalibration)
            }
            if len({len(values) for values in numbers.values()}) != 1 or not numbers["thresholds"]:
                raise ValueError(f"the curves of {name} do not belong together")
            found[name] = ClassCalibration(**numbers)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"damaged: no calibration ({one_line(error)})", where=path, fix="run train again") from None
    return found


def min_scores(workdir: Path, class_names: Sequence[str], precision: float) -> list[float]:
    """Smallest score for each class that gave the required precision on the calibration tomograms.

    Raises:
        InputError: no calibration, a precision outside (0, 1], or a class that never reached it.
    """
    if not 0 < precision <= 1:
        raise InputError(f"must lie above 0 and not above 1, got {precision:g}", where="--precision")
    path = workdir / FILE
    if not path.is_file():
        raise InputError(
            "the run was not calibrated", where=path, fix="let the training finish, or leave --precision out"
        )
    classes = read(path)
    scores = []
    for name in class_names:
        if name not in classes:
            raise InputError(
                f"no picks of {name} on the calibration tomograms", where=path, fix="leave --precision out"
            )
        calibration = classes[name]
        threshold = calibration.threshold_for(precision)
        if threshold is None:
            best = max(calibration.precision)
            raise InputError(
                f"{name} never reached a precision of {precision:g} from its best picks down (highest: {best:.2f})",
                where=path,
                fix="ask for less, or train longer",
            )
        scores.append(threshold)
    return scores
