"""Losses against closed forms written anew in NumPy, and their gradients where classes are absent."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import TrainConfig
from robpicker_jax.system.errors import InputError
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
        elif name == "cross_entropy":
            result[i] = -(b * np.log(a)).sum(-1).mean()
    return result


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("batch_dice", "nnpu")])
def test_equals_its_formula(name: str) -> None:
    p, y = patches()
    found = LOSSES[name](jnp.asarray(p), jnp.asarray(y)).per_patch
    np.testing.assert_allclose(found, expected(name, p, y), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_batch_dice_shares_add_up_to_the_loss_of_the_batch(weight: float) -> None:
    p, y = patches()
    values = LOSSES["batch_dice"](jnp.asarray(p), jnp.asarray(y), cross_entropy=weight)
    a, b = p.reshape(-1, C), y.reshape(-1, C)
    entropy = -(b * np.log(a)).sum(0) / np.maximum(b.sum(0), 1)  # a class that is absent has none
    whole = np.mean(1 - 2 * (a * b).sum(0) / (a.sum(0) + b.sum(0)) + weight * entropy)
    np.testing.assert_allclose(values.per_patch.mean(), whole, rtol=1e-4)
    assert (np.asarray(values.per_patch) > 0).all()


def test_batch_dice_tells_which_patch_is_not_finite() -> None:
    p, y = patches()
    values = LOSSES["batch_dice"](jnp.asarray(p).at[1, 0, 0, 0, 0].set(jnp.nan), jnp.asarray(y))
    np.testing.assert_array_equal(np.isfinite(values.per_patch), np.arange(len(p)) != 1)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_class_that_is_predicted_nowhere_is_learnt_with_cross_entropy(weight: float) -> None:
    """All voxels are sure to be another class: Dice alone leaves the scores of the missing one where they are."""
    label = jnp.asarray(np.eye(C)[np.full((1, 4, 4, 4), 2)])
    scores = jnp.asarray(np.where(np.arange(C) == 1, 20.0, 0.0) * np.ones((1, 4, 4, 4, 1)))
    loss = functools.partial(LOSSES["batch_dice"], cross_entropy=weight)
    pull = -jax.grad(lambda s: loss(jax.nn.softmax(s), label).per_patch.sum())(scores)[..., 2].sum()
    np.testing.assert_allclose(pull, weight / C, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_batch_dice_of_devices_is_that_of_the_whole_batch(weight: float) -> None:
    """Devices hold patches of unlike sizes; each alone would divide by its own sums."""
    p, y = (np.concatenate([part, part[::-1] ** 2]) for part in patches())
    halves = [jnp.asarray(part.reshape(2, len(part) // 2, *part.shape[1:])) for part in (p, y)]
    loss = functools.partial(LOSSES["batch_dice"], cross_entropy=weight, device_axis="devices")
    found = jax.vmap(loss, axis_name="devices")(*halves).per_patch.reshape(-1)
    half, both = (p + y).sum((1, 2, 3)) / 2, (p * y).sum((1, 2, 3))
    entropy = -(y * np.log(np.maximum(p, 1e-18))).sum((1, 2, 3)) / np.maximum(y.sum((0, 1, 2, 3)), 1e-3)
    expected = ((half - both) / half.sum(0) + weight * entropy).mean(-1)
    np.testing.assert_allclose(found, len(p) * expected, rtol=1e-4)


def risk(p: np.ndarray, y: np.ndarray, priors: np.ndarray) -> tuple[float, float]:
    """Both terms of the risk of positive and unlabelled voxels, from means over labelled voxels."""
    a, b = p.reshape(-1, C), y.reshape(-1, C)
    positive, background = 0.0, -np.log(a[:, 0]).mean()
    for k in range(1, C):
        if b[:, k].any():
            labelled = a[b[:, k] == 1]
            positive += priors[k - 1] * -np.log(labelled[:, k]).mean()
            background -= priors[k - 1] * -np.log(labelled[:, 0]).mean()
    return positive, background


def sparse() -> tuple[np.ndarray, np.ndarray]:
    """As `patches`, with seven of eight labels taken away."""
    p, y = patches()
    label = y.argmax(-1) * (np.random.default_rng(1).random(y.shape[:-1]) < 1 / 8)
    return p, np.eye(C)[label]


def test_positive_unlabelled_risk_equals_its_formula() -> None:
    p, y = sparse()
    shares = y.reshape(-1, C).mean(0)[1:]
    stated = (0.1, 0.2, 0.05)
    for options, priors in (({"found_share": 0.5}, shares / 0.5), ({"class_priors": stated}, np.array(stated))):
        positive, background = risk(p, y, priors)
        assert background > 0
        found = LOSSES["nnpu"](jnp.asarray(p), jnp.asarray(y), **options).per_patch
        np.testing.assert_allclose(found.mean(), positive + background, rtol=1e-5)


def test_positive_unlabelled_risk_of_complete_labels_is_cross_entropy() -> None:
    p, y = sparse()
    found = LOSSES["nnpu"](jnp.asarray(p), jnp.asarray(y), found_share=1.0).per_patch
    np.testing.assert_allclose(found, LOSSES["focal"](jnp.asarray(p), jnp.asarray(y), gamma=0.0).per_patch, rtol=1e-4)


def test_positive_unlabelled_risk_is_not_negative() -> None:
    """More particles are expected than there is room for: the background's risk is cut off, and so is its gradient."""
    p, y = patches()
    priors = y.reshape(-1, C).mean(0)[1:] / 0.2
    positive, background = risk(p, y, priors)
    assert background < 0
    values = LOSSES["nnpu"](jnp.asarray(p), jnp.asarray(y), found_share=0.2)
    np.testing.assert_allclose(values.per_patch.mean(), positive, rtol=1e-5)
    gradient = jax.grad(lambda p: LOSSES["nnpu"](p, jnp.asarray(y), found_share=0.2).per_patch.mean())(jnp.asarray(p))
    assert np.abs(gradient[..., 0]).max() == 0
    assert np.abs(gradient[..., 1]).max() > 0


def test_positive_unlabelled_risk_is_that_of_the_complete_labels_on_average() -> None:
    """What it is for: half of the labels are taken away at random, and the mean risk is the cross-entropy of them all."""
    # Many voxels, so that the background's risk is hardly ever cut off at zero, and a network that sees something.
    p, truth = (np.concatenate(parts) for parts in zip(*map(patches, range(8)), strict=True))
    p = 0.5 * p + 0.5 * truth
    rng = np.random.default_rng(2)
    nnpu = jax.jit(lambda label: LOSSES["nnpu"](jnp.asarray(p), label, found_share=0.5).per_patch.mean())
    cross_entropy = jax.jit(lambda label: LOSSES["focal"](jnp.asarray(p), label, gamma=0.0).per_patch.mean())
    drawn = [jnp.asarray(np.eye(C)[truth.argmax(-1) * (rng.random(truth.shape[:-1]) < 0.5)]) for _ in range(40)]
    complete = float(cross_entropy(jnp.asarray(truth)))
    np.testing.assert_allclose(np.mean([nnpu(label) for label in drawn]), complete, rtol=0.015)
    assert abs(np.mean([cross_entropy(label) for label in drawn]) / complete - 1) > 0.2


@pytest.mark.parametrize("name", ["focal", "dice_cross_entropy"])
def test_classes_of_inverse_frequency_weigh_alike(name: str) -> None:
    """A prediction that is the same everywhere costs each labelled class the same, however rare the class is."""
    _, y = sparse()
    even = jnp.full(y.shape, 1 / C)
    options: dict[str, Any] = {"gamma": 0.0} if name == "focal" else {"cross_entropy": 1e3}
    values = LOSSES[name](even, jnp.asarray(y), class_weights="inverse_frequency", **options)
    parts = np.asarray(values.per_class).mean(0)[:3]
    np.testing.assert_allclose(parts, parts[0], rtol=2e-3)
    n, c = y[..., 0].size, C
    stated = tuple(n / (c * max(count, 1.0)) for count in y.reshape(-1, C).sum(0))
    same = LOSSES[name](even, jnp.asarray(y), class_weights=stated, **options)
    np.testing.assert_allclose(same.per_patch, values.per_patch, rtol=1e-5)


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
    weighted = build_loss(TrainConfig(loss="focal", loss_options={"class_weights": [1, 2, 3, 4]}))
    assert not np.allclose(weighted(p, y).per_patch, LOSSES["focal"](p, y).per_patch)
    with pytest.raises(InputError, match="class_weights"):
        build_loss(TrainConfig(loss="focal", loss_options={"class_weights": "by_feel"}))
    assert not np.allclose(LOSSES["tversky"](p, y).per_patch, LOSSES["dice"](p, y).per_patch, atol=1e-3)
