"""A tiny configuration, data set and finished run, made once for all tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from robpicker_jax.commands import simulate, train
from robpicker_jax.commands.cli import call
from tests.tiny import write_tiny


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration as a file."""
    return write_tiny(tmp_path_factory.mktemp("config") / "tiny.yaml")


@pytest.fixture(scope="session")
def tiny_data(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny simulated data set."""
    folder = tmp_path_factory.mktemp("tiny") / "data"
    assert call(simulate.main, ["--config", str(tiny_config), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert call(train.main, ["--config", str(tiny_config), "--workdir", str(workdir)]) == 0
    return workdir
