"""The settings that an earlier state is given, and where its files come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.earlier_state import check_out, known_settings
from benchmarks.paper.study import Run, load_study
from robpicker_jax.config import as_plain_values
from robpicker_jax.system.errors import InputError


def test_an_earlier_schema_gets_the_settings_that_it_knows() -> None:
    config = load_study("loss", "cpu").config(Run("six_species", "dice_1", 3))
    keys = {
        "DataConfig": ["species", "meta_labels"],
        "Species": ["name", "radius_vox"],
        "PatchConfig": ["size"],
        "ModelConfig": ["widths"],
        "TrainConfig": ["steps", "seed", "inner", "correction", "reweighting"],
        "OptimizerConfig": ["name", "learning_rate"],
        "InferenceConfig": ["tile"],
        "PickingConfig": [],
    }
    known = known_settings(as_plain_values(config), keys)
    assert set(known) == {"data", "patches", "model", "train", "inference", "picking"}
    assert known["data"]["species"][0] == {"name": "proteasome", "radius_vox": 9.0}
    assert known["data"]["meta_labels"] == "sphere"
    assert known["train"]["steps"] == 900
    assert known["train"]["seed"] == 3
    assert known["train"]["inner"] == {"name": "adam", "learning_rate": 6.0e-3}
    assert "loss" not in known["train"]
    assert known["picking"] == {}


def test_a_commit_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0123456789abcdef"):
        check_out("0123456789abcdef", tmp_path)
