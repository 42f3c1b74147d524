"""Training that is stopped, crashes or diverges: what is kept, and that a resumed run is the uninterrupted one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax.config import Config, load_config
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.data import device_batches
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.feeding import Batches
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.trainer import fit
from robpicker_jax.training.validations import Interrupted, stop_if_asked
from tests.steps import loaded_data


@pytest.fixture(scope="session")
def tiny_experiment(tiny_config: Path, tiny_data: Path) -> tuple[Config, Experiment]:
    """The tiny run's compiled steps, without validation."""
    config = load_config(tiny_config, [f"data.dir={tiny_data}"])
    return config, build_experiment(config)


def fresh(experiment: Experiment) -> Experiment:
    """The experiment with a copy of its initial state, which a step would otherwise consume."""
    return Experiment(**{**vars(experiment), "state": jax.tree.map(lambda leaf: leaf.copy(), experiment.state)})


def train_tiny(setting: tuple[Config, Experiment], workdir: Path, fail_before: int | None = None) -> Any:
    """Fit without validation; raise before a given step when asked to, as a crash would."""
    config, experiment = setting
    batches = batches_of(config, experiment)

    def broken(start: int) -> Iterator[Any]:
        for step, pair in enumerate(batches(start), start=start + 1):
            if step == fail_before:
                raise RuntimeError("crash")
            yield pair

    return fit(fresh(experiment), broken, workdir).last


def test_a_resumed_run_is_the_uninterrupted_one(tiny_experiment: tuple[Config, Experiment], tmp_path: Path) -> None:
    whole = train_tiny(tiny_experiment, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="crash"):
        train_tiny(tiny_experiment, tmp_path / "parts", fail_before=4)
    resumed = train_tiny(tiny_experiment, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    keys = ("step", "inner_loss", "outer_loss", "weight_mean")
    rows = [
        [{key: row[key] for key in keys} for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


def batches_of(config: Config, experiment: Experiment) -> Batches:
    """Batches of the configuration's data set, cut on the host."""
    source = loaded_data(config).source()
    return device_batches(source, config.train, experiment.mesh)


def signalled(batches: Batches, last: int) -> Batches:
    """The same batches, with a SIGTERM just before that of step `last` (counted from 1)."""

    def make(start: int) -> Iterator[Any]:
        for step, pair in enumerate(batches(start), start=start + 1):
            if step == last:
                signal.raise_signal(signal.SIGTERM)
            yield pair

    return make


def test_a_signal_stops_the_run_with_its_state_saved(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    with pytest.raises(Interrupted, match="after step 3"):
        fit(fresh(experiment), signalled(batches, 3), tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest_step() == 3
    checkpoints.close()
    whole = train_tiny(tiny_experiment, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, whole, train_tiny(tiny_experiment, tmp_path))


def test_a_validation_that_a_signal_prevented_is_made_up_for(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    def validate(state: Any) -> dict[str, float]:
        return {"macro_f1": 1.0 / int(state.step)}  # the earlier the better

    with pytest.raises(Interrupted, match="after step 2"):
        fit(fresh(experiment), signalled(batches, 2), tmp_path, validate=validate)
    assert not [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    best: list[tuple[int, float]] = []
    result = fit(
        fresh(experiment),
        batches,
        tmp_path,
        validate=validate,
        on_best=lambda state, score: best.append((int(state.step), score)),
    )
    assert best == [(2, 0.5)]  # the state of step 4 is no better
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    assert [row["step"] for row in rows] == [2, 4]
    assert result.best_step == 2


def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment: tuple[Config, Experiment], tmp_path: Path) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    def poisoned(start: int) -> Iterator[Any]:
        for step, (first, meta) in enumerate(batches(start), start=start + 1):
            yield (first._replace(image=first.image * np.nan) if step == 3 else first), meta

    with pytest.raises(InputError, match=r"nan at step 3.*checkpoint of step 2 is good and kept"):
        fit(fresh(experiment), poisoned, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = checkpoints.restore(experiment.state)
    checkpoints.close()
    assert int(state.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("at", [2, 4])
def test_b14_a_signal_during_a_validation_ends_it_and_it_is_made_up_for(
    at: int, tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    """In a middle validation and in the last one, between its tomograms and after them."""
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)
    picked: list[tuple[int, int]] = []

    def validate(state: Any, signal_at: int = 0) -> dict[str, float]:
        step = int(state.step)
        for tomogram in range(3):
            stop_if_asked()
            picked.append((step, tomogram))
            if step == signal_at and tomogram == 1:
                signal.raise_signal(signal.SIGTERM)
        return {"macro_f1": 1.0 / step}

    with pytest.raises(Interrupted, match=f"after step {at}; its state is saved"):
        fit(fresh(experiment), batches, tmp_path, validate=lambda state: validate(state, at))
    assert picked[-1] == (at, 1)
    result = fit(fresh(experiment), batches, tmp_path, validate=validate)
    assert picked.count((at, 2)) == 1
    assert result.best_step == 2
    rows = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    assert rows == [2, 4]


def test_b14_a_signal_after_the_last_tomogram_of_the_last_validation_is_not_swallowed(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment

    def validate(state: Any) -> dict[str, float]:
        if int(state.step) == 4:
            signal.raise_signal(signal.SIGINT)
        return {"macro_f1": 0.5}

    with pytest.raises(Interrupted, match="after step 4"):
        fit(fresh(experiment), batches_of(config, experiment), tmp_path, validate=validate)


def test_b19_where_nothing_was_saved_nothing_is_said_to_be_kept(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment

    def poisoned(start: int) -> Iterator[Any]:
        for first, meta in batches_of(config, experiment)(start):
            yield first._replace(image=first.image * np.nan), meta

    with pytest.raises(InputError, match=r"nan at step 1; no checkpoint had been written"):
        fit(fresh(experiment), poisoned, tmp_path)
