"""Where the calibration of a model is found: its card first, then the run's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from robpicker_jax.config import DataConfig, InferenceConfig, ModelConfig, PickingConfig
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.provenance import Provenance
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking import calibration
from robpicker_jax.picking.known_calibration import known_calibration

OF_RUN = {"ribosome": ClassCalibration((0.8, 0.4), (10, 20), (10, 12), 16)}
OF_CARD = {"ribosome": ClassCalibration((0.5,), (7,), (6,), 8)}
CARD = ModelCard(ModelConfig(), DataConfig(), InferenceConfig(), PickingConfig(), None, 0, None)


def test_the_card_goes_before_the_run_and_a_file_of_a_run_has_its_calibration(tmp_path: Path) -> None:
    assert known_calibration(tmp_path, CARD) == {}
    calibration.save(tmp_path, OF_RUN, ["meta_000"])
    (tmp_path / "model.rpk").touch()
    for source in (tmp_path, tmp_path / "model.rpk"):
        assert known_calibration(source, CARD) == OF_RUN
        assert known_calibration(source, replace(CARD, provenance=Provenance())) == OF_RUN
        assert known_calibration(source, replace(CARD, provenance=Provenance(calibration=OF_CARD))) == OF_CARD
