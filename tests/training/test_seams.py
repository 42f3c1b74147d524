"""A loss, a hypergradient's options and a validation score chosen by name, and extended from outside of the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.bilevel import configured_options
from robpicker_jax.config import Config, load_config
from robpicker_jax.evaluation.validation import VALIDATION_METRICS
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.losses import LOSSES, LossValues, build_loss, dice
from tests.steps import noise_batches
from tests.tiny import write_tiny

FAST = ["model.widths=[2,3]", "patches.size=8", "patches.shift_vox=2", "inference.tile=null", "inference.overlap_vox=2"]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.yaml")


def tiny(path: Path, *overrides: str) -> Config:
    """A configuration whose step compiles fast."""
    return load_config(path, [*FAST, *overrides])


def two_steps(experiment: Experiment) -> Any:
    """State and metrics after two steps on noise."""
    rng = np.random.default_rng(0)
    state, metrics = experiment.state, None
    for _ in range(2):
        state, metrics = experiment.step(state, *noise_batches(experiment, rng))
    return state, metrics


def squared_error(predicted: jax.Array, label: jax.Array, /, *, scale: float = 1.0) -> LossValues:
    """A loss that the package does not have."""
    per_class = scale * jnp.mean((predicted - label) ** 2, axis=(1, 2, 3))
    return LossValues(per_class.sum(axis=-1), per_class)


def test_a_loss_from_outside_trains_with_its_options(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "squared_error", squared_error)
    config = tiny(config_file, "train.loss=squared_error", "train.variant=dr_only", "train.loss_options={scale: 10}")
    state, metrics = two_steps(build_experiment(config))
    assert int(state.step) == 2
    # Ten times a squared distance between probabilities and one-hot labels; a Dice loss is 1 at most.
    assert (np.asarray(metrics.inner.loss) > 1).all()
    assert float(metrics.outer_loss) > 1
    assert np.isfinite(float(metrics.hypergradient_norm))
    assert float(metrics.hypergradient_norm) > 0


def test_dice_takes_its_smoothing_from_the_configuration(config_file: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 2, 4, 4, 4, 3)).astype(np.float32)
    loss = build_loss(tiny(config_file, "train.loss=dice", "train.loss_options={smoothing_vox: 7}").train)
    values = loss(jnp.asarray(a), jnp.asarray(b))
    expected = 1 - (2 * (a * b).sum((1, 2, 3)) + 7) / (a.sum((1, 2, 3)) + b.sum((1, 2, 3)) + 7)
    np.testing.assert_allclose(values.per_class, expected, rtol=1e-5)
    np.testing.assert_allclose(values.per_patch, expected.mean(-1), rtol=1e-5)
    assert not np.allclose(values.per_patch, dice(jnp.asarray(a), jnp.asarray(b)).per_patch)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["train.loss=dise"], ["train.loss", "'dise'", "did you mean dice", "known: dice"]),
        (["train.loss_options={smoothing: 1}"], ["train.loss_options", "'smoothing'", "smoothing_vox"]),
        (["train.loss_options={smoothing_vox: much}"], ["train.loss_options.smoothing_vox", "number", "much"]),
        (["train.hypergradient=tangant"], ["'tangant'", "did you mean tangent"]),
        (["train.hypergradient_options={epsilon: 1}"], ["train.hypergradient_options", "'epsilon'", "remat"]),
        (
            ["train.hypergradient=tangent", "train.hypergradient_options={mean: 1}"],
            ["train.hypergradient_options", "'mean'", "recompute"],
        ),
        (["model.backbone=unett"], ["model.backbone", "'unett'", "did you mean unet"]),
        (["model.backbone_options={depth: 3}"], ["model.backbone_options", "'depth'", "no options"]),
        (["evaluation.choose_by=macro_f2"], ["evaluation.choose_by", "'macro_f2'", "macro_f1"]),
    ],
)
def test_unknown_names_and_options_are_refused_with_the_known_ones(
    config_file: Path, overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        build_experiment(tiny(config_file, *overrides))
    for part in parts:
        assert part in str(caught.value)


def test_options_reach_the_method_and_the_method_that_truncated_differentiates_by() -> None:
    def checked(name: str, **options: Any) -> dict[str, Any]:
        return configured_options(name, options, key="train.hypergradient_options")

    assert checked("finite_difference", epsilon="1e-3") == {"epsilon": 1e-3}  # YAML reads 1e-3 as text
    assert checked("neumann", terms=3, step=0.1, damping=1) == {"terms": 3, "step": 0.1, "damping": 1.0}
    found = checked("truncated", last=2, method="finite_difference", epsilon="1e-4")
    assert found == {"last": 2, "method": "finite_difference", "epsilon": 1e-4}
    with pytest.raises(InputError, match="unknown option 'epsilon'"):
        checked("truncated", last=2, epsilon=0.1)  # tangent, its default method, has none
    with pytest.raises(InputError, match=r"train.hypergradient_options.terms: .*integer"):
        checked("neumann", terms=2.5)


@pytest.mark.slow
def test_hypergradient_options_change_the_step(config_file: Path) -> None:
    """`truncated` finds another hypergradient when it differentiates one step of two: the option has arrived."""
    fixed = ["train.variant=dr_only", "train.inner_steps=2", "model.batch_norm=false"]

    def norm(*overrides: str) -> float:
        return float(two_steps(build_experiment(tiny(config_file, *fixed, *overrides)))[1].hypergradient_norm)

    whole = norm("train.hypergradient=truncated", "train.hypergradient_options={last: 2, recompute: false}")
    short = norm("train.hypergradient=truncated", "train.hypergradient_options={last: 1}")
    assert short != pytest.approx(whole, rel=1e-2)


def test_a_validation_score_from_outside_is_known(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(config_file, "evaluation.choose_by=mine", "train.variant=supervised")
    with pytest.raises(InputError, match="choose_by"):
        build_experiment(config)
    monkeypatch.setitem(VALIDATION_METRICS, "mine", lambda evaluation: evaluation.micro.recall)
    assert build_experiment(config).config.evaluation.choose_by == "mine"
    assert replace(config.train, meta_batch_size=None).meta_batch == config.train.batch_size
