"""Kind: optimisers that make a hypergradient meaningless without a word (field row B20)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import BilevelProblem, hypergradient
from robpicker_jax.system.errors import InputError

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(5, 6, 3)), RNG.normal(size=(5, 6))
PARAMS = {"w": RNG.normal(size=3)}


def inner_loss(params: dict, meta: jax.Array, state: tuple, batch: tuple) -> tuple:
    """A loss that the meta parameter weights entry by entry."""
    inputs, targets = batch
    residual = (jnp.tanh(inputs @ params["w"]) - targets) ** 2
    return jnp.mean(jax.nn.sigmoid(meta * residual) * residual), (state, None)


def outer_loss(params: dict, state: tuple, batch: tuple) -> tuple:
    """The plain loss."""
    inputs, targets = batch
    return jnp.mean((jnp.tanh(inputs @ params["w"]) - targets) ** 2), None


def estimated(
    method: str, optimizer: optax.GradientTransformation, steps: int, meta: float, wrap: Callable = lambda f: f
) -> tuple[float, float]:
    """Hypergradient and outer loss after some inner steps."""
    problem = BilevelProblem(inner_loss, outer_loss, optimizer)
    estimate = wrap(hypergradient(method, problem, inner_steps=steps))
    params = jax.tree.map(jnp.asarray, PARAMS)
    batches = jnp.asarray(INPUTS[:steps]), jnp.asarray(TARGETS[:steps])
    outer = jnp.asarray(INPUTS[-1]), jnp.asarray(TARGETS[-1])
    out = estimate(params, jnp.asarray(meta), (), optimizer.init(params), batches, outer)
    return float(out.hypergradient), float(out.outer_loss)


@pytest.mark.parametrize("wrap", [lambda estimate: estimate, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("method", ["unrolled", "tangent", "forward_over_reverse", "finite_difference", "truncated"])
def test_b20_adam_without_eps_root_is_refused_at_the_first_call(method: str, wrap: Callable) -> None:
    with pytest.raises(InputError, match="eps_root"):
        estimated(method, optax.adam(0.1), 1, 0.7, wrap)
    assert np.isfinite(estimated(method, optax.adam(0.1, eps_root=1e-12), 1, 0.7, wrap)[0])


def test_b20_methods_that_pass_by_the_update_take_every_optimiser_and_the_check_can_be_left_out() -> None:
    assert np.isfinite(estimated("darts", optax.adam(0.1), 1, 0.7)[0])
    with pytest.raises(InputError, match="does not change"):
        estimated("tangent", optax.lion(0.1), 1, 0.7)
    problem = BilevelProblem(inner_loss, outer_loss, optax.lion(0.1))
    assert callable(hypergradient("tangent", problem, check_update=False))


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.MultiSteps(optax.sgd(0.1), 20).gradient_transformation(),
        optax.chain(optax.sgd(0.1), optax.apply_every(20)),
        optax.masked(optax.sgd(0.1), {"w": True}),
        optax.sgd(optax.linear_schedule(0.0, 0.1, 50)),
    ],
)
def test_b20_optimisers_that_wait_or_are_made_for_these_parameters_are_accepted(
    optimizer: optax.GradientTransformation,
) -> None:
    assert np.isfinite(estimated("unrolled", optimizer, 2, 0.7)[0])


@pytest.mark.parametrize(("steps", "use_mean"), [(2, True), (3, False)])
def test_b20_accumulated_steps_have_the_true_hypergradient_once_their_accumulator_is_precise(
    steps: int, use_mean: bool
) -> None:
    """MultiSteps accumulates in float32 by default: then it is the finite difference that errs by 1e-2."""
    with jax.enable_x64(True):

        def optimizer(dtype: type) -> optax.GradientTransformation:
            steps_of = optax.MultiSteps(
                optax.sgd(0.3, momentum=0.9), 2, use_grad_mean=use_mean, accumulator_dtype=dtype
            )
            return steps_of.gradient_transformation()

        def difference(dtype: type) -> float:
            above, below = (estimated("none", optimizer(dtype), steps, 0.7 + change)[1] for change in (1e-5, -1e-5))
            return (above - below) / 2e-5

        precise = difference(jnp.float64)
        for method in ("unrolled", "tangent"):
            found, _ = estimated(method, optimizer(jnp.float64), steps, 0.7)
            assert found == pytest.approx(precise, rel=1e-6)
            single, _ = estimated(method, optimizer(jnp.float32), steps, 0.7)
            assert single == pytest.approx(precise, rel=1e-5)
