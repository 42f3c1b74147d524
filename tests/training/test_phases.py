"""The warm-up: labels and weights alone, then the correction's lessons, then the bi-level step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax.config import ModelConfig, OptimizerConfig, TrainConfig, load_config
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.export import trained_model
from robpicker_jax.training.metrics_log import MetricsLog
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.optimizers import learning_rate_schedule
from robpicker_jax.training.trainer import _Phases
from tests.steps import noise_batches
from tests.tiny import write_tiny


def plain(*arguments: Any) -> Any:
    """Stands for the first half's step."""


def teach(*arguments: Any) -> Any:
    """Stands for the second half's."""


def bilevel(*arguments: Any) -> Any:
    """Stands for the training step."""


def fine_tune(*arguments: Any) -> Any:
    """Stands for the step of the last stage."""


def phases(log: MetricsLog, model: ModelConfig | None = None, **fields: Any) -> _Phases:
    """The choice of steps for an experiment that has nothing but its steps and its configuration."""
    train = TrainConfig(validate_every=2, meta_warmup_steps=8, **fields)
    experiment = object.__new__(Experiment)
    parts = {
        "config": SimpleNamespace(train=train, model=model or ModelConfig(correction="tied")),
        "step": bilevel,
        "warmup": plain,
        "teach": teach,
    }
    parts["fine_tune"] = fine_tune if train.fine_tune_steps else None
    for name, value in parts.items():
        object.__setattr__(experiment, name, value)
    return _Phases(experiment, log, "macro_f1")


def test_the_end_of_the_warm_up_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = phases(MetricsLog(tmp_path))
    began = []
    for done in range(7, 12):
        chosen.step(done)
        began.append(chosen.began)
    assert began == [True, False, True, False, False]
    assert capsys.readouterr().out == "the warm-up is over: the meta networks take part from step 9 on\n"
    later = phases(MetricsLog(tmp_path))  # a run that goes on after its warm-up
    later.step(10)
    assert capsys.readouterr().out == ""


def test_the_two_halves_of_the_warm_up(tmp_path: Path) -> None:
    chosen = phases(MetricsLog(tmp_path))
    assert [chosen.step(done) for done in (1, 4, 5, 8, 9)] == [plain, plain, teach, teach, bilevel]
    assert phases(MetricsLog(tmp_path), variant="supervised").step(1) == bilevel
    own_network = phases(MetricsLog(tmp_path), ModelConfig(correction="network"))
    assert [own_network.step(done) for done in (1, 8, 9)] == [teach, teach, bilevel]


def test_fine_tuning_comes_last(tmp_path: Path) -> None:
    chosen = phases(MetricsLog(tmp_path), steps=20, fine_tune_steps=3)
    assert [chosen.step(done) for done in (8, 9, 17, 18, 20)] == [teach, bilevel, bilevel, fine_tune, fine_tune]


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


def test_a_network_that_finds_nothing_yet_is_not_on_a_plateau(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step, score in {2: 0.0, 4: 0.0, 6: 0.2}.items():
        log.write({"step": step, "kind": "validation", "macro_f1": score})
    assert phases(log, meta_warmup_until="plateau").step(7) == teach


@pytest.mark.slow
def test_fine_tuning_takes_the_meta_batch_alone_and_keeps_an_average(tmp_path: Path) -> None:
    overrides = ["train.variant=supervised", "train.steps=8", "train.fine_tune_steps=2", "train.average_decay=0.75"]
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), overrides)
    experiment = build_experiment(config)
    assert experiment.fine_tune is not None
    train, meta = noise_batches(experiment, np.random.default_rng(0))
    start = jax.tree.map(np.asarray, experiment.state)

    def after(train: Batch, meta: Batch) -> Any:
        state = jax.tree.map(jax.device_put, start)
        return jax.device_get(experiment.fine_tune(state, train, meta)[0])  # type: ignore[misc]

    one = after(train, meta)
    jax.tree.map(
        np.testing.assert_array_equal, one.params, after(jax.tree.map(jax.numpy.zeros_like, train), meta).params
    )
    other = after(train, meta._replace(label=1 - jax.numpy.minimum(meta.label, 1)))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one.params, other.params)), strict=True))
    # The average takes in the parameters that each step began with.
    average = one.network_state.average
    jax.tree.map(np.testing.assert_array_equal, average, start.params)
    exported = trained_model(experiment, one._replace(network_state=one.network_state._replace(average=start.params)))
    jax.tree.map(np.testing.assert_array_equal, exported.params, start.params)


def test_fine_tuning_follows_at_a_tenth_of_the_rate() -> None:
    rate = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, schedule="cosine"), 10, 4)
    np.testing.assert_allclose([rate(0), rate(10), rate(14)], [1.0, 0.1, 0.0], atol=1e-6)
    constant = learning_rate_schedule(OptimizerConfig(learning_rate=1.0), 10, 4)
    np.testing.assert_allclose([constant(9), constant(10), constant(14)], [1.0, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "correction",
    ["tied", *(pytest.param(name, marks=pytest.mark.slow) for name in ("network", "ema", "head"))],
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
