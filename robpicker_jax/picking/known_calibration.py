"""The calibration of a model, from wherever it is kept: the card of its file, or the folder of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.shipped import find_model
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking import calibration


def known_calibration(source: Path | None, card: ModelCard) -> Mapping[str, ClassCalibration]:
    """What picks of a model were worth by their score, by species; empty where neither its card nor its run tells.

    Args:
        source: where the model was loaded from: a run's folder, a file, or the name of a model that ships with the package;
            None: that is not known.
        card: its card, which goes before the run's folder.

    Raises:
        InputError: the run's calibration is damaged.
    """
    if card.provenance is not None and card.provenance.calibration:
        return card.provenance.calibration
    if source is None:
        return {}
    source = find_model(source)
    folder = source if source.is_dir() else source.parent
    return calibration.load(folder).classes if (folder / calibration.FILE).is_file() else {}
