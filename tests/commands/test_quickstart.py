"""The built-in example as it is shipped: label correction and sample weights do what the documentation says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quickstart import weight_ratio
from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, load_config
from robpicker_jax.training.metrics_log import read_metrics

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(CONFIG)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the shipped configuration, with nothing overridden."""
    workdir = tmp_path_factory.mktemp("quickstart") / "run"
    assert call(train.main, ["--config", str(CONFIG), "--workdir", str(workdir)]) == 0
    return workdir


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == kind]


@pytest.mark.timeout(3600)  # a few minutes on two free cores; the first test waits for the run
def test_labels_get_better_by_a_quarter_and_little_is_added(run: Path, config: Config) -> None:
    last = rows(run, "validation")[-1]
    assert last["step"] == config.train.steps
    assert last["correction/added"] <= 0.01
    assert last["correction/error_change"] <= -0.25
    assert last["correction/error_after"] < last["correction/error_before"]


@pytest.mark.timeout(3600)
def test_missing_particles_come_back(run: Path) -> None:
    assert rows(run, "validation")[-1]["correction/recovered"] >= 0.8


@pytest.mark.timeout(3600)
def test_the_smallest_and_rarest_species_is_weighted_up(run: Path, config: Config) -> None:
    assert weight_ratio(config, read_metrics(run / "metrics.jsonl")) >= 1.3


@pytest.mark.timeout(3600)
def test_the_test_tomogram_is_picked_well(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["macro"]["f1"] >= 0.90
