"""The direct loss of meta parameters beside the hypergradient, and the size of the hypergradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robpicker_jax.bilevel import BilevelProblem, bilevel_step, direct_step, hypergradient, initial_state

RATE = 0.1


def inner_loss(params: Any, meta: Any, state: Any, batch: Any) -> tuple[jax.Array, tuple[Any, None]]:
    weight = jax.nn.sigmoid(meta["net"]["w"])
    return jnp.mean(weight * (batch @ params["a"]) ** 2), (state, None)


def outer_loss(params: Any, state: Any, batch: Any) -> tuple[jax.Array, None]:
    return jnp.mean((batch @ params["a"] - 1.0) ** 2), None


def own(params: Any, meta: Any, state: Any, batch: Any, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Halved with every step done."""
    value = 0.5**step * jnp.sum(meta["net"]["w"] ** 2) * jnp.sum(params["a"] ** 2)
    return value, value


PROBLEM = BilevelProblem(inner_loss, outer_loss, optax.sgd(RATE))
META = {"net": optax.sgd(1.0)}
INNER, OUTER = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 3))), jnp.ones((2, 3))


def start() -> Any:
    meta = {"net": {"w": jnp.array([0.3, -0.2, 0.5, 0.1])}}
    return initial_state({"a": jnp.array([1.0, -0.5, 0.25])}, None, meta, PROBLEM.inner_optimizer, META)


def test_the_update_is_the_scaled_hypergradient_plus_the_gradient_of_the_direct_loss() -> None:
    state = start()
    found = hypergradient("unrolled", PROBLEM)(state.params, state.meta, None, state.opt_state, INNER, OUTER)
    step = bilevel_step(
        PROBLEM,
        META,
        direct_loss=own,
        direct_weight=0.5,
        scale=lambda tree, step: jax.tree.map(lambda leaf: leaf / RATE, tree),
    )
    after, metrics = step(state, INNER, OUTER)
    a, w = after.params["a"], state.meta["net"]["w"]
    expected = w - (found.hypergradient["net"]["w"] / RATE + 0.5 * 2 * w * jnp.sum(a**2))
    np.testing.assert_allclose(after.meta["net"]["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.direct, jnp.sum(w**2) * jnp.sum(a**2), rtol=1e-6)
    np.testing.assert_allclose(after.params["a"], found.params["a"])


def test_the_direct_step_leaves_the_hypergradient_out() -> None:
    state = start()
    after, metrics = direct_step(PROBLEM, META, own, direct_weight=2.0)(state, INNER, OUTER)
    a, w = after.params["a"], state.meta["net"]["w"]
    np.testing.assert_allclose(after.meta["net"]["w"], w - 2.0 * 2 * w * jnp.sum(a**2), rtol=1e-5)
    assert jnp.isnan(metrics.outer_loss)
    assert int(after.step) == 1


def test_the_direct_loss_is_told_how_many_steps_are_done() -> None:
    state = start()._replace(step=jnp.asarray(1))
    for step in (bilevel_step(PROBLEM, META, direct_loss=own), direct_step(PROBLEM, META, own)):
        after, metrics = step(state, INNER, OUTER)
        w = state.meta["net"]["w"]
        np.testing.assert_allclose(metrics.direct, 0.5 * jnp.sum(w**2) * jnp.sum(after.params["a"] ** 2), rtol=1e-6)
