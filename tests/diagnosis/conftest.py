"""A clean simulated data set that the tests of the doctor break or lay out otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from robpicker_jax.config import Config, load_config
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from tests.diagnosis.doctor_cases import SETTINGS


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doctor") / "config.yaml"
    path.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def config(config_file: Path) -> Config:
    return load_config(config_file)


@pytest.fixture(scope="session")
def clean(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "clean"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), folder)
    return folder


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data", ignore=shutil.ignore_patterns("*_target.mrc")))
