"""RobPicker's own bi-level problem: hypergradient against central differences, variants, step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import BilevelProblem, hypergradient
from robpicker_jax.bilevel.step import bilevel_step, initial_state, plain_step
from robpicker_jax.config import ModelConfig
from robpicker_jax.models import build_data_reweighting, build_label_correction
from robpicker_jax.models.presets import UNetShape
from robpicker_jax.models.unet import UNet
from robpicker_jax.training import objective
from robpicker_jax.training.losses import dice
from robpicker_jax.training.objective import Batch, Networks, NetworkState

N_CLASSES = 3


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision for one test."""
    former = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", former)


def small_networks(batch_norm: bool, dtype: str = "float64") -> tuple[Networks, dict[str, Any]]:
    """A two-level U-Net with its meta networks, and their parameters in `dtype`."""
    shape = UNetShape((4, 6), 1, 0, 1, 1, batch_norm, 0.0, "transposed")
    unet = UNet(shape, N_CLASSES, dtype)
    model = ModelConfig(
        reweighting_hidden=20, reweighting_inputs="loss", correction="head", alpha_channels="classes", alpha_bias=-1.0
    )
    correction = build_label_correction(model, N_CLASSES, unet.features)
    reweighting = build_data_reweighting(model)
    params, batch_stats = unet.init(jax.random.key(0, impl="rbg"))
    trees = {
        "unet": params,
        "batch_stats": batch_stats,
        "correction": alive(correction.init(jax.random.key(1, impl="rbg")), 1),
        "reweighting": alive(reweighting.init(jax.random.key(2, impl="rbg")), 2),
    }
    return (
        Networks(unet.apply, correction.apply, reweighting.apply),
        jax.tree.map(lambda leaf: leaf.astype(dtype), trees),
    )


def alive(params: Any, seed: int) -> Any:
    """Parameters with random numbers in place of layers that start at zero: behind those every gradient is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf if leaf.ndim < 2 or leaf.any() else jnp.asarray(0.5 * rng.normal(size=leaf.shape)), params
    )


def random_batch(seed: int, n: int = 3, lead: tuple[int, ...] = (), dtype: str = "float64") -> Batch:
    """Noise with blocky labels, so that every class occurs."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, N_CLASSES, (*lead, n, 2, 2, 2)).repeat(4, -1).repeat(4, -2).repeat(4, -3)
    image = (rng.normal(size=label.shape) + label)[..., None].astype(dtype)
    return Batch(jnp.asarray(image), jnp.asarray(label), jnp.ones((*lead, n), jnp.int32))


def state_after_a_step(problem: BilevelProblem, trees: dict[str, Any], names: tuple[str, ...]) -> Any:
    """A state whose momentum is not zero."""
    state = initial_state(
        trees["unet"],
        NetworkState(trees["batch_stats"], jax.random.PRNGKey(3)),
        {name: trees[name] for name in names},
        problem.inner_optimizer,
        dict.fromkeys(names, META_OPTIMIZER),
    )
    return jax.jit(plain_step(problem))(state, random_batch(7, lead=(1,)), random_batch(8))[0]


META_OPTIMIZER = optax.adam(1e-3)
OPTIMIZERS = {
    "sgd": optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.05, momentum=0.9)),
    "adam": optax.adam(0.01, eps_root=1e-12),
}


CASES: list[Any] = [("adam", True, True, True, 1)]
CASES += [pytest.param("sgd", False, True, True, 2, marks=pytest.mark.slow)]
CASES += [
    pytest.param("sgd", *switches, 1, marks=pytest.mark.slow) for switches in itertools.product([False, True], repeat=3)
]


@pytest.mark.parametrize(("optimizer", "batch_norm", "stop_label", "stop_weight", "inner_steps"), CASES)
def test_hypergradient_equals_central_differences(
    float64: None, optimizer: str, batch_norm: bool, stop_label: bool, stop_weight: bool, inner_steps: int
) -> None:
    networks, trees = small_networks(batch_norm)
    problem = objective.robpicker_problem(
        networks, OPTIMIZERS[optimizer], stop_gradient_label=stop_label, stop_gradient_weight=stop_weight
    )
    state = state_after_a_step(problem, trees, ("correction", "reweighting"))
    train, meta_batch = random_batch(1, lead=(inner_steps,)), random_batch(2)
    estimate = jax.jit(hypergradient("unrolled", problem, inner_steps))

    def run(meta: Any) -> Any:
        return estimate(state.params, meta, state.network_state, state.opt_state, train, meta_batch)

    gradient = run(state.meta).hypergradient
    for name in ("correction", "reweighting"):
        # Along the gradient itself: the derivative there is its norm, as large as any direction gives.
        norm = optax.tree.norm(gradient[name])
        assert norm > 0
        direction = jax.tree.map(lambda leaf, norm=norm: leaf / norm, gradient[name])

        def moved(by: float, name: str = name, direction: Any = direction) -> float:
            shifted = jax.tree.map(lambda leaf, d: leaf + by * d, state.meta[name], direction)
            return float(run({**state.meta, name: shifted}).outer_loss)

        # Steps so small that hardly a ReLU changes its side: truncation ~ h², rounding ~ 1e-16 / h.
        h = 2e-5
        measured = (moved(h) - moved(-h)) / (2 * h)
        assert measured == pytest.approx(float(norm), rel=1e-6), name


def on_the_unet(method: str, inner_steps: int, dtype: str, **options: Any) -> np.ndarray:
    """Hypergradient on the batch-normed U-Net in one vector."""
    networks, trees = small_networks(True, dtype)
    problem = objective.robpicker_problem(networks, OPTIMIZERS["sgd"])
    meta = {name: trees[name] for name in ("correction", "reweighting")}
    state = NetworkState(trees["batch_stats"], jax.random.PRNGKey(3))
    opt_state = jax.tree.map(lambda leaf: leaf + 0.01, problem.inner_optimizer.init(trees["unet"]))  # some momentum
    batches = random_batch(1, lead=(inner_steps,), dtype=dtype), random_batch(2, dtype=dtype)
    estimate = jax.jit(hypergradient(method, problem, inner_steps, **options))
    found = estimate(trees["unet"], meta, state, opt_state, *batches).hypergradient
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(found)])


@pytest.mark.parametrize("inner_steps", [pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 2, 5)])
def test_exact_methods_agree_on_the_batch_normed_unet(float64: None, inner_steps: int) -> None:
    expected = on_the_unet("unrolled", inner_steps, "float64")
    size = np.linalg.norm(expected)
    assert size > 1e-6
    for method in ("tangent", "forward_over_reverse"):
        assert np.linalg.norm(on_the_unet(method, inner_steps, "float64") - expected) < 1e-10 * size, method
    if inner_steps == 1:  # quick; the others compare in float32 too
        return
    jax.config.update("jax_enable_x64", False)
    for method in ("unrolled", "tangent", "forward_over_reverse"):
        assert np.linalg.norm(on_the_unet(method, inner_steps, "float32") - expected) < 1e-4 * size, method


@pytest.mark.slow
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_a25_finite_differences_converge_to_the_exact_hypergradient_under_the_default_stops(
    float64: None, inner_steps: int
) -> None:
    """They shift `params` and not `frozen`, so the paths that are stopped for the inner gradient stay as they are."""
    exact = on_the_unet("tangent", inner_steps, "float64")
    found = on_the_unet("finite_difference", inner_steps, "float64", epsilon=1e-7)
    assert np.linalg.norm(found - exact) < 1e-5 * np.linalg.norm(exact)


def test_the_variants_are_what_meta_holds(float64: None) -> None:
    networks, trees = small_networks(True)
    loss = objective.inner_loss(networks)
    batch, state = random_batch(1), NetworkState(trees["batch_stats"], jax.random.PRNGKey(0))

    value, (_, aux) = loss(trees["unet"], {}, state, batch, trees["unet"])
    _, logits, _ = networks.segment(trees["unet"], trees["batch_stats"], batch.image, train=True)
    expected = dice(jax.nn.softmax(logits), jax.nn.one_hot(batch.label, N_CLASSES)).per_patch
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-12)
    np.testing.assert_array_equal(aux.weight, 1.0)
    np.testing.assert_array_equal(aux.changed, 0.0)

    value, (_, aux) = loss(trees["unet"], {"reweighting": trees["reweighting"]}, state, batch, trees["unet"])
    by_class = dice(jax.nn.softmax(logits), jax.nn.one_hot(batch.label, N_CLASSES)).per_class
    present = jnp.stack([jnp.any(batch.label == k, axis=(1, 2, 3)) for k in range(N_CLASSES)], axis=-1)
    weights = networks.reweight(trees["reweighting"], by_class, present)
    np.testing.assert_allclose(value, (weights * expected).mean(), rtol=1e-12)
    for how, total in (("mean", len(weights)), ("sum", 1.0)):
        normalised = objective.inner_loss(networks, weights=how)
        _, (_, aux) = normalised(trees["unet"], {"reweighting": trees["reweighting"]}, state, batch, trees["unet"])
        np.testing.assert_allclose(aux.weight, weights * total / weights.sum(), rtol=1e-12)

    _, (_, aux) = loss(trees["unet"], {"correction": trees["correction"]}, state, batch, trees["unet"])
    assert not np.allclose(aux.loss, expected)
    assert 0 < float(aux.alpha.mean()) < 1


def test_outer_loss_leaves_running_statistics_alone(float64: None) -> None:
    networks, trees = small_networks(True)
    problem = objective.robpicker_problem(networks, optax.sgd(0.1))
    state = state_after_a_step(problem, trees, ("reweighting",))
    train = random_batch(1, lead=(1,))
    step = jax.jit(bilevel_step(problem, {"reweighting": META_OPTIMIZER}))
    one, _ = step(state, train, random_batch(2))
    other, _ = step(state, train, random_batch(5))
    jax.tree.map(np.testing.assert_array_equal, one.network_state, other.network_state)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), one.network_state.batch_stats, state.network_state.batch_stats
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
def test_training_lowers_the_losses() -> None:
    networks, trees = small_networks(True, "float32")
    optimizer = optax.adam(3e-3, eps_root=1e-12)
    problem = objective.robpicker_problem(networks, optimizer)
    optimizers = {"correction": optax.adam(1e-2), "reweighting": optax.adam(1e-2)}
    state = initial_state(
        trees["unet"],
        NetworkState(trees["batch_stats"], jax.random.PRNGKey(3)),
        {name: trees[name] for name in optimizers},
        problem.inner_optimizer,
        optimizers,
    )
    step = jax.jit(bilevel_step(problem, optimizers))
    losses = []
    for number in range(30):
        train, meta_batch = (random_batch(2 * number + i, lead=(1,) * (1 - i), dtype="float32") for i in (0, 1))
        state, metrics = step(state, train, meta_batch)
        # Not the weighted inner loss: weights that grow raise it.
        losses.append((float(metrics.inner.loss.mean()), float(metrics.outer_loss)))
    first, last = np.mean(losses[:3], axis=0), np.mean(losses[-3:], axis=0)
    assert (last < 0.9 * first).all()
    assert int(state.step) == 30


def test_dice_is_the_closed_form() -> None:
    a = jnp.zeros((1, 2, 2, 2, 2)).at[..., 0].set(1)
    b = a[..., ::-1]
    s = 1.0
    np.testing.assert_allclose(dice(a, a, smoothing_vox=s).per_patch, 0.0, atol=1e-7)
    np.testing.assert_allclose(dice(a, b, smoothing_vox=s).per_patch, 1 - s / (8 + s), rtol=1e-6)
    half = jnp.full_like(a, 0.5)
    expected = np.mean([1 - (2 * 4 + s) / (4 + 8 + s), 1 - s / (4 + s)])
    np.testing.assert_allclose(dice(half, a, smoothing_vox=s).per_patch, expected, rtol=1e-6)
