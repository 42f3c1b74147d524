"""Score thresholds that are best on the calibration tomograms, by name: `picking.thresholds`, `pick --thresholds`.

They are chosen on the meta tomograms (and those of val, where there are any), never on the test tomograms that they are then
applied to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robpicker_jax.evaluation import f_beta
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.calibration import FILE, load
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import checked_options, look_up


class ThresholdRule(Protocol):
    """Chooses a class's score threshold from what picks above each score were worth; options are keyword-only."""

    def __call__(self, calibration: ClassCalibration, /) -> float:
        """The smallest score that is kept."""
        ...


def best(calibration: ClassCalibration, *, beta: float = 1.0) -> float:
    """The score at which F-beta is highest; of several, the highest score."""
    quality = np.nan_to_num(
        f_beta(np.asarray(calibration.hits), np.asarray(calibration.picked), calibration.true, beta)
    )
    return float(calibration.thresholds[int(np.argmax(quality))])


def grid(
    calibration: ClassCalibration, *, low: float = 0.1, high: float = 0.6, step: float = 0.005, beta: float = 1.0
) -> float:
    """The threshold low, low + step, … ≤ high at which F-beta is highest; of several, the lowest.

    The published RobPicker's grid.

    Raises:
        InputError: a grid without values.
    """
    if not (step > 0 and low <= high):
        raise InputError(
            f"no thresholds from {low} to {high} by {step}", where="picking.threshold_options", fix="give low < high"
        )
    values = low + step * np.arange(int(np.floor((high - low) / step + 1e-9)) + 1)
    # Scores fall, so that those of at least a value come before all others.
    kept = np.searchsorted(-np.asarray(calibration.thresholds), -(values - 1e-12), side="right")
    picked = np.append(0, calibration.picked)[kept]
    hits = np.append(0, calibration.hits)[kept]
    quality = np.nan_to_num(f_beta(hits, picked, calibration.true, beta))
    return float(values[int(np.argmax(quality))])


THRESHOLD_RULES: dict[str, ThresholdRule] = {"best": best, "grid": grid}
"""The rules by name."""


def build_threshold_rule(name: str, options: Mapping[str, Any]) -> Callable[[ClassCalibration], float]:
    """The rule of that name, its options bound.

    Raises:
        InputError: an unknown name or option; the error lists the known ones.
    """
    rule = look_up(THRESHOLD_RULES, name, key="picking.thresholds")
    return partial(rule, **checked_options(rule, options, key="picking.threshold_options"))


def chosen_thresholds(
    workdir: Path,
    class_names: Sequence[str],
    name: str,
    options: Mapping[str, Any],
    known: Mapping[str, ClassCalibration] | None = None,
) -> dict[str, float]:
    """The threshold of each class, from what a run's calibration tomograms showed.

    Args:
        workdir: the run's folder.
        class_names: name of class 1, 2, ….
        name: of the rule.
        options: its options.
        known: the calibration, where a model's card has it; None: the run's.

    Returns:
        By name, of the classes that had picks on the calibration tomograms.

    Raises:
        InputError: no calibration, or an unknown rule or option.
    """
    rule = build_threshold_rule(name, options)
    classes = load(workdir).classes if known is None else known
    found = {label: rule(classes[label]) for label in class_names if label in classes}
    if not found:
        raise InputError(
            "no class had picks on the calibration tomograms", where=workdir / FILE, fix="leave the thresholds out"
        )
    return found
