"""How `pick` chooses the smallest scores that picks are kept with: `--precision` and `--thresholds`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.evaluation.calibration_counts import ClassCalibration
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.picking.species_choice import SpeciesChoice


def with_chosen_scores(picker: Picker, options: argparse.Namespace, choice: SpeciesChoice) -> Picker:
    """The picker with the smallest scores that the options ask for, of the species that are written; says what they are.

    Raises:
        InputError: both options are given, there is no calibration, or it does not show what is asked for.
    """
    from robpicker_jax.picking.thresholds import chosen_thresholds
    from robpicker_jax.system.errors import InputError

    if options.precision is not None and options.thresholds is not None:
        raise InputError("both --precision and --thresholds are given", where="--thresholds", fix="keep one")
    names = [name for name in picker.class_names if name in choice.written]
    folder = options.workdir if options.workdir.is_dir() else options.workdir.parent
    if options.precision is not None:
        from robpicker_jax.picking import calibration

        points = calibration.min_scores(folder, names, options.precision, _calibration(picker))
        for name, point in zip(names, points, strict=True):
            say(
                f"{name}: scores of at least {point.threshold:.3f}; precision {point.precision:.2f} (lower bound "
                f"{point.bound:.2f}) and recall {point.recall:.2f} on the calibration tomograms"
            )
        return _with(picker, {name: point.threshold for name, point in zip(names, points, strict=True)})
    if options.thresholds is not None:
        found = chosen_thresholds(folder, names, options.thresholds, {}, _calibration(picker))
        for name in names:
            kept = (
                f"scores of at least {found[name]:.4g}" if name in found else "all scores: none on the clean tomograms"
            )
            say(f"{name}: {kept}")
        return _with(picker, {name: found.get(name, 0.0) for name in names})
    return picker


def _calibration(picker: Picker) -> Mapping[str, ClassCalibration] | None:
    """What the picker's picks were worth on clean tomograms, where it knows."""
    from robpicker_jax.picking.picker import Calibrated

    return picker.calibration if isinstance(picker, Calibrated) else None


def _with(picker: Picker, scores: Mapping[str, float]) -> Picker:
    """The picker with these smallest scores; those of other species stay as they are."""
    from robpicker_jax.picking.picker import Thresholded

    before = picker.smallest_scores if isinstance(picker, Thresholded) else [0.0] * len(picker.class_names)
    return picker.with_min_scores(
        [scores.get(name, least or 0.0) for name, least in zip(picker.class_names, before, strict=True)]
    )
