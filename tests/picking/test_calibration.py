"""Score thresholds for a wanted precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.picking import calibration
from robpicker_jax.picking.calibration import ClassCalibration
from robpicker_jax.system.errors import InputError


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0.05, 1.0))
def test_the_threshold_is_the_lowest_above_which_all_is_well(hits: list[bool], wanted: float) -> None:
    scores = np.linspace(0.95, 0.05, len(hits))
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    found = ClassCalibration(tuple(scores), tuple(precision), tuple(np.cumsum(hits) / len(hits))).threshold_for(wanted)
    allowed = [scores[k] for k in range(len(hits)) if (precision[: k + 1] >= wanted).all()]
    assert found == (min(allowed) if allowed else None)


def test_from_an_evaluation_to_the_file_and_back(tmp_path: Path) -> None:
    truth = Particles(np.array([[10.0, 10, 10], [30, 10, 10], [50, 10, 10]]), np.ones(3, int))
    positions = np.array([[10.0, 10, 10], [30, 10, 10], [70, 10, 10], [50, 10, 10]])
    picks = Particles(positions, np.ones(4, int), scores=np.array([0.9, 0.8, 0.7, 0.6]))
    result = evaluate({"a": truth}, {"a": picks}, EvaluationOptions(["one"], radii_vox=[3.0]))
    calibration.save(tmp_path, calibration.calibrate(result), ["a"])
    assert calibration.min_scores(tmp_path, ["one"], 1.0) == [0.8]
    assert calibration.min_scores(tmp_path, ["one"], 0.6) == [0.6]
    with pytest.raises(InputError, match="no picks of two"):
        calibration.min_scores(tmp_path, ["one", "two"], 0.5)
    with pytest.raises(InputError, match="--precision"):
        calibration.min_scores(tmp_path, ["one"], 1.5)


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not calibrated"):
        calibration.min_scores(tmp_path, ["one"], 0.9)
    calibration.save(tmp_path, {"one": ClassCalibration((0.9, 0.5), (0.0, 0.5), (0.0, 1.0))}, ["a"])
    with pytest.raises(InputError, match=r"never reached a precision of 0.9 .*highest: 0.50"):
        calibration.min_scores(tmp_path, ["one"], 0.9)
