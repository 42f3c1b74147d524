"""The warm-up: labels and weights alone, then the correction's lessons, then the bi-level step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax.config import TrainConfig, load_config
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.metrics_log import MetricsLog
from robpicker_jax.training.trainer import _Phases
from tests.steps import noise_batches
from tests.tiny import write_tiny


def plain(*arguments: Any) -> Any:
    """Stands for the first half's step."""


def teach(*arguments: Any) -> Any:
    """Stands for the second half's."""


def bilevel(*arguments: Any) -> Any:
    """Stands for the training step."""


def phases(log: MetricsLog, **fields: Any) -> _Phases:
    """The choice of steps for an experiment that has nothing but its steps and its configuration."""
    train = TrainConfig(validate_every=2, meta_warmup_steps=8, **fields)
    experiment = object.__new__(Experiment)
    parts = {"config": SimpleNamespace(train=train), "step": bilevel, "warmup": plain, "teach": teach}
    for name, value in parts.items():
        object.__setattr__(experiment, name, value)
    return _Phases(experiment, log, "macro_f1")


def test_the_two_halves_of_the_warm_up(tmp_path: Path) -> None:
    chosen = phases(MetricsLog(tmp_path))
    assert [chosen.step(done) for done in (1, 4, 5, 8, 9)] == [plain, plain, teach, teach, bilevel]
    assert phases(MetricsLog(tmp_path), variant="supervised").step(1) == bilevel


def test_a_plateau_ends_the_warm_up_and_a_resumed_run_agrees(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    chosen = phases(log, meta_warmup_until="plateau")
    taken = []
    for done in range(1, 9):
        taken.append(chosen.step(done))
        if done % 2 == 0:
            log.write({"step": done, "kind": "validation", "macro_f1": {2: 0.1, 4: 0.5, 6: 0.5, 8: 0.9}[done]})
    assert taken == [plain] * 4 + [teach] * 2 + [bilevel] * 2
    for done in range(1, 9):  # started again at any step, the same step is taken
        log.truncate(done - 1)
        assert phases(log, meta_warmup_until="plateau").step(done) == taken[done - 1]
        for step in range(2, 9, 2):
            if step >= done:
                log.write({"step": step, "kind": "validation", "macro_f1": {2: 0.1, 4: 0.5, 6: 0.5, 8: 0.9}[step]})


@pytest.mark.parametrize(
    "correction", ["tied", pytest.param("ema", marks=pytest.mark.slow), pytest.param("head", marks=pytest.mark.slow)]
)
def test_each_phase_moves_what_it_should(tmp_path: Path, correction: str) -> None:
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), [f"model.correction={correction}"])
    experiment = build_experiment(config)
    train, meta = noise_batches(experiment, np.random.default_rng(0))
    assert experiment.teach is not None

    def moved(before: Any, after: Any) -> dict[str, bool]:
        return {
            name: any(
                bool((np.asarray(a) != np.asarray(b)).any()) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)
            )
            for name, pair in {
                "network": (before["params"], after.params),
                "correction": (before["meta"]["correction"], after.meta["correction"]),
                "reweighting": (before["meta"]["reweighting"], after.meta["reweighting"]),
            }.items()
        }

    state = experiment.state
    expected = [
        (experiment.warmup, {"network": True, "correction": False, "reweighting": False}),
        (experiment.teach, {"network": True, "correction": True, "reweighting": False}),
        (experiment.step, {"network": True, "correction": True, "reweighting": True}),
    ]
    for step, which in expected:
        before = jax.tree.map(np.asarray, {"params": state.params, "meta": state.meta})
        average = jax.tree.map(np.asarray, state.network_state.average)
        state, metrics = step(state, train, meta)
        assert moved(before, state) == which
        if step is not experiment.step:
            np.testing.assert_array_equal(metrics.inner.changed, 0)
            np.testing.assert_array_equal(metrics.inner.weight, 1)
        else:
            np.testing.assert_allclose(metrics.inner.weight.mean(), 1, rtol=1e-5)
            assert (np.asarray(metrics.inner.gained) > 0).any()
        if correction == "ema":
            wanted = jax.tree.map(
                lambda old, new: config.model.ema_decay * old + (1 - config.model.ema_decay) * new,
                average,
                before["params"],
            )
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.network_state.average, wanted
            )
