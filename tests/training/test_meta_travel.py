"""Bounds on how far meta networks can move, and the warnings that follow."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
import pytest

from robpicker_jax.config import OptimizerConfig, TrainConfig
from robpicker_jax.training.meta_travel import meta_travel, travel_warnings
from robpicker_jax.training.optimizers import build_optimizer

SLOW = OptimizerConfig(name="sgd", learning_rate=1e-4, momentum=0.9)


@pytest.mark.parametrize("name", ["adam", "lion", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_no_parameter_moves_further_than_the_bound(name: str, schedule: str) -> None:
    optimizer = OptimizerConfig(name=name, learning_rate=1e-2, schedule=schedule, momentum=0.0)  # type: ignore[arg-type]
    train = TrainConfig(variant="lc_only", steps=60, correction=optimizer)
    update = build_optimizer(optimizer, 60)
    params = jnp.zeros(3)
    state = update.init(params)
    for _ in range(60):
        updates, state = update.update(jnp.array([1.0, 1e-3, -5.0]), state, params)
        params = optax.apply_updates(params, updates)
    travelled = float(jnp.abs(params).max())
    bound = meta_travel(train)["correction"]
    assert travelled <= 1.05 * bound * (3.5 if name == "rmsprop" else 1.0)  # its average of squares starts at zero
    assert travelled > 0.5 * bound


def test_a_run_that_cannot_move_says_so() -> None:
    frozen = TrainConfig(steps=10_000, correction=SLOW, reweighting=SLOW, hypergradient_scale="exact", meta_lambda=0.0)
    lines = travel_warnings(frozen)
    assert len(lines) == 2
    assert "train.correction.learning_rate" in lines[0]
    assert "over_rate" in lines[0]
    assert "never start" in travel_warnings(TrainConfig(steps=10, meta_warmup_steps=10))[0]
    assert travel_warnings(TrainConfig(variant="supervised", steps=10, meta_warmup_steps=10)) == []
    lively = OptimizerConfig(name="adam", learning_rate=1e-2)
    assert travel_warnings(TrainConfig(steps=1000, correction=lively, reweighting=lively)) == []


def test_the_own_loss_of_the_correction_is_not_slowed_by_the_inner_rate() -> None:
    plain = OptimizerConfig(name="sgd", learning_rate=1e-2, schedule="constant", momentum=0.0)
    train = TrainConfig(steps=1000, correction=plain, reweighting=plain, hypergradient_scale="exact", meta_lambda=1.0)
    rate = train.inner.learning_rate
    assert meta_travel(train) == {
        "correction": pytest.approx(1000 * 1e-2 * (1 + rate)),
        "reweighting": pytest.approx(1000 * 1e-2 * rate),
    }
    (line,) = travel_warnings(train)
    assert "reweighting" in line
    own_alone = TrainConfig(variant="lc_only", steps=1000, correction=plain, hypergradient="none", meta_lambda=0.5)
    assert meta_travel(own_alone)["correction"] == pytest.approx(1000 * 1e-2 * 0.5)


def test_a_scale_is_proposed_only_to_an_optimiser_that_feels_it() -> None:
    creeping = OptimizerConfig(name="adam", learning_rate=1e-6)
    lines = travel_warnings(TrainConfig(steps=100, correction=creeping, reweighting=creeping))
    assert len(lines) == 2
    assert not any("over_rate" in line for line in lines)


LIVELY = OptimizerConfig(name="adam", learning_rate=1e-2)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"variant": "dr_only", "hypergradient": "none"}, ["reweighting"]),
        ({"variant": "lc_only", "hypergradient": "none", "meta_lambda": 0.0}, ["correction"]),
        ({"hypergradient": "none"}, ["reweighting"]),  # the correction has its own loss
        ({"hypergradient": "none", "meta_lambda": 0.0}, ["correction", "reweighting"]),
        ({"weights": "mean", "batch_size": 1}, ["reweighting"]),
        ({"weights": "sum", "batch_size": 1}, ["reweighting"]),
        ({"weights": "none", "batch_size": 1}, []),
        ({"meta_lambda": 0.0}, []),
    ],
)
def test_a_network_that_no_gradient_reaches_is_named(settings: dict[str, Any], names: list[str]) -> None:
    train = TrainConfig(steps=1000, correction=LIVELY, reweighting=LIVELY, **settings)
    lines = travel_warnings(train)
    assert [line.split()[2] for line in lines] == names
    assert all("learns nothing" in line for line in lines)


def test_steps_of_fine_tuning_are_none_of_the_meta_level() -> None:
    settings: dict[str, Any] = {"steps": 900, "meta_share": 0.25, "correction": LIVELY, "reweighting": LIVELY}
    (line,) = travel_warnings(TrainConfig(meta_warmup_steps=810, fine_tune_steps=90, **settings))
    assert "never start" in line
    assert "810 steps before fine-tuning" in line
    assert travel_warnings(TrainConfig(meta_warmup_steps=700, fine_tune_steps=90, **settings)) == []
    short = TrainConfig(meta_warmup_steps=300, fine_tune_steps=90, **settings)
    assert meta_travel(short)["correction"] == pytest.approx(510 * 1e-2)
