"""Losses against closed forms written anew in NumPy, and their gradients where classes are absent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import TrainConfig
from robpicker_jax.training.losses import LOSSES, build_loss

N, EDGE, C = 3, 5, 4


def patches(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and one-hot labels of which class 3 is absent from all patches and class 2 from the first."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, EDGE, EDGE, EDGE, C))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    label = rng.integers(0, 3, (N, EDGE, EDGE, EDGE))
    label[0][label[0] == 2] = 0
    return p, np.eye(C)[label]


def expected(name: str, p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Loss of each patch with the default options, class by class and patch by patch."""
    result = np.zeros(len(p))
    for i in range(len(p)):
        a, b = p[i].reshape(-1, C), y[i].reshape(-1, C)
        ratios = [2 * (a[:, j] @ b[:, j]) / (a[:, j].sum() + b[:, j].sum()) for j in range(C)]
        entropy = -(b * np.log(a)).sum(-1).mean()
        if name in ("dice", "dice_cross_entropy"):
            s = 1e-3
            ratios = [(2 * (a[:, j] @ b[:, j]) + s) / (a[:, j].sum() + b[:, j].sum() + s) for j in range(C)]
            result[i] = 1 - np.mean(ratios) + (entropy if name == "dice_cross_entropy" else 0)
        elif name == "present_dice":
            result[i] = np.mean([1 - ratios[j] for j in range(C) if b[:, j].any()])
        elif name == "generalised_dice":
            w = 1 / (b.sum(0) + 1) ** 2
            result[i] = 1 - 2 * (w * (a * b).sum(0)).sum() / (w * (a + b).sum(0)).sum()
        elif name == "tversky":
            overlap = (a * b).sum(0)
            index = overlap / (overlap + 0.3 * (a * (1 - b)).sum(0) + 0.7 * ((1 - a) * b).sum(0))
            result[i] = 1 - index.mean()
        elif name == "focal":
            result[i] = -(b * (1 - a) ** 2 * np.log(a)).sum(-1).mean()
    return result


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "batch_dice"])
def test_equals_its_formula(name: str) -> None:
    p, y = patches()
    found = LOSSES[name](jnp.asarray(p), jnp.asarray(y)).per_patch
    np.testing.assert_allclose(found, expected(name, p, y), rtol=1e-4, atol=2e-5)


def test_batch_dice_shares_add_up_to_the_dice_of_the_batch() -> None:
    p, y = patches()
    values = LOSSES["batch_dice"](jnp.asarray(p), jnp.asarray(y))
    a, b = p.reshape(-1, C), y.reshape(-1, C)
    whole = np.mean(1 - 2 * (a * b).sum(0) / (a.sum(0) + b.sum(0)))
    np.testing.assert_allclose(values.per_patch.mean(), whole, rtol=1e-4)
    assert (np.asarray(values.per_patch) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_to_the_second_order_where_classes_are_absent(name: str) -> None:
    p, y = (jnp.asarray(array) for array in patches(1))
    p = p.at[0, 0, 0, 0].set(jnp.array([1.0, 0.0, 0.0, 0.0]))  # probabilities may be exactly 0 and 1

    def loss(p: Any, y: Any) -> jax.Array:
        return LOSSES[name](p, y).per_patch.mean()

    gradient = jax.grad(loss)(p, y)
    mixed = jax.grad(lambda y: jnp.vdot(jax.grad(loss)(p, y), gradient))(y)
    assert np.isfinite(gradient).all()
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_label_itself_costs_least(name: str) -> None:
    _, y = patches()
    sharp = 0.999 * y + 0.001 / C
    exact = LOSSES[name](jnp.asarray(sharp), jnp.asarray(y)).per_patch
    for seed in range(3):
        other = LOSSES[name](jnp.asarray(patches(seed)[0]), jnp.asarray(y)).per_patch
        assert (np.asarray(exact) < np.asarray(other)).all()


def test_small_smoothing_leaves_absent_classes_alone() -> None:
    """The pull on a class that the label does not hold falls with the smoothing, against that on one it holds."""
    p, y = (jnp.asarray(array) for array in patches())

    def pull(smoothing: float) -> float:
        gradient = jax.grad(lambda p: LOSSES["dice"](p, y, smoothing_vox=smoothing).per_patch.mean())(p)
        return float(jnp.abs(gradient[..., 3]).mean() / jnp.abs(gradient[..., 1]).mean())

    assert pull(1e-3) < 1e-3 * pull(1.0) * 2
    assert pull(1.0) > 1e-3


def test_options_come_from_the_configuration() -> None:
    p, y = (jnp.asarray(array) for array in patches())
    bound = build_loss(TrainConfig(loss="tversky", loss_options={"false_positive": 0.5, "false_negative": "5e-1"}))
    np.testing.assert_allclose(bound(p, y).per_patch, LOSSES["dice"](p, y).per_patch, atol=1e-4)
    assert not np.allclose(LOSSES["tversky"](p, y).per_patch, LOSSES["dice"](p, y).per_patch, atol=1e-3)
