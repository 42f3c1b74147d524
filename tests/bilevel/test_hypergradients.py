"""Exact hypergradients: the definition against central differences, every exact form against the definition."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import (
    METHODS,
    BilevelProblem,
    Estimate,
    accepts,
    check_optimizer,
    hypergradient,
    hypergradients,
)
from robpicker_jax.bilevel.hypergradients import find_method
from robpicker_jax.system.errors import InputError
from tests.bilevel.bilevel_problems import OPTIMIZERS, Case, flat, float64, network_case, relative_error

# Compiling takes far longer than running problems this small, so most tests run operation by operation.
CASES = [
    *[pytest.param("momentum", k, id=f"momentum-{k}") for k in (1, 2, 5)],
    *[pytest.param("sgd", 1, id="sgd-1"), pytest.param("adam", 2, id="adam-2")],
    *[pytest.param("sgd", k, id=f"sgd-{k}", marks=pytest.mark.slow) for k in (2, 5)],
    *[pytest.param("adam", k, id=f"adam-{k}", marks=pytest.mark.slow) for k in (1, 5)],
]


def run(method: str, case: Case, inner_steps: int, *, compiled: bool = False, **options: object) -> Estimate:
    estimate = hypergradient(method, case.problem, inner_steps, **options)
    if compiled:
        out = jax.jit(estimate)(*case.arguments())
    else:
        with jax.disable_jit():
            out = estimate(*case.arguments())
    return jax.device_get(out._replace(state={**out.state, "key": jax.random.key_data(out.state["key"])}))


@functools.cache
def reference(
    optimizer: str, inner_steps: int, uses_frozen: bool = False, direct: bool = False
) -> tuple[Case, Estimate]:
    """A case in float64 and its unrolled estimate, made once for all tests."""
    with float64():
        case = network_case(OPTIMIZERS[optimizer](), inner_steps, uses_frozen=uses_frozen, direct=direct)
        return case, run("unrolled", case, inner_steps)


def plain_training(case: Case, meta: object) -> tuple[object, jax.Array]:
    """Parameters and outer loss after the inner steps, written out with optax alone."""
    problem, params, _, state, opt_state, batches, outer_batch = case.problem, *case.arguments()
    for k in range(batches[0].shape[0]):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)

        def loss(params: object, state: object = state, batch: object = batch, frozen: object = params) -> jax.Array:
            extra = (frozen,) if problem.inner_loss_uses_frozen else ()
            return problem.inner_loss(params, meta, state, batch, *extra)

        gradient, (state, _) = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = problem.inner_optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    extra = (meta,) if problem.outer_loss_uses_meta else ()
    return params, problem.outer_loss(params, *extra, state, outer_batch)[0]


def assert_is_derivative(case: Case, estimate: Estimate, width: float = 1e-3) -> None:
    """Compare with fourth-order central differences of whole training runs, along a direction in meta."""
    vector, restore = jax.flatten_util.ravel_pytree(case.meta)
    gradient = flat(estimate.hypergradient)
    direction = gradient / np.linalg.norm(gradient) + 0.5 * np.random.default_rng(0).standard_normal(gradient.size)

    def outer(shift: float) -> float:
        return float(plain_training(case, restore(vector + shift * direction))[1])

    near, far = (outer(k * width) - outer(-k * width) for k in (1, 2))
    assert (8 * near - far) / (12 * width) == pytest.approx(gradient @ direction, abs=1e-7 * np.linalg.norm(gradient))


@pytest.mark.parametrize(("optimizer", "inner_steps"), CASES)
def test_unrolled_is_the_derivative_of_the_outer_loss(optimizer: str, inner_steps: int) -> None:
    case, estimate = reference(optimizer, inner_steps)
    with float64(), jax.disable_jit():
        assert_is_derivative(case, estimate)


@pytest.mark.parametrize(("uses_frozen", "direct"), [(True, False), (True, True)])
def test_frozen_paths_and_direct_dependence_are_part_of_the_derivative(uses_frozen: bool, direct: bool) -> None:
    case, estimate = reference("momentum", 2, uses_frozen, direct)
    with float64(), jax.disable_jit():
        assert_is_derivative(case, estimate)


@pytest.mark.parametrize(("optimizer", "inner_steps"), CASES)
@pytest.mark.parametrize("method", ["tangent", "forward_over_reverse"])
def test_exact_methods_equal_unrolled(method: str, optimizer: str, inner_steps: int) -> None:
    case, expected = reference(optimizer, inner_steps)
    with float64():
        estimate = run(method, case, inner_steps)
    assert relative_error(estimate.hypergradient, expected.hypergradient) < 1e-10
    for value, reference_value in zip(jax.tree.leaves(estimate), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, reference_value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ["tangent", "forward_over_reverse"])
@pytest.mark.parametrize(("uses_frozen", "direct", "inner_steps"), [(True, False, 1), (True, True, 2)])
def test_exact_methods_follow_frozen_paths_and_direct_dependence(
    method: str, uses_frozen: bool, direct: bool, inner_steps: int
) -> None:
    case, expected = reference("momentum", inner_steps, uses_frozen, direct)
    with float64():
        estimate = run(method, case, inner_steps)
    assert relative_error(estimate.hypergradient, expected.hypergradient) < 1e-10


@pytest.mark.parametrize(("method", "inner_steps"), [("tangent", 2), ("forward_over_reverse", 1)])
def test_exact_methods_compiled_in_float32(method: str, inner_steps: int) -> None:
    _, expected = reference("momentum", inner_steps)
    estimate = run(method, network_case(OPTIMIZERS["momentum"](), inner_steps), inner_steps, compiled=True)
    assert estimate.hypergradient["alpha"].dtype == np.float32
    assert relative_error(estimate.hypergradient, expected.hypergradient) < 1e-4


def test_options_that_trade_memory_for_time_change_nothing() -> None:
    case, expected = reference("momentum", 2)
    one, expected_one = reference("momentum", 1)
    with float64():
        assert relative_error(run("unrolled", case, 2, remat=False).hypergradient, expected.hypergradient) < 1e-12
        for method in ("tangent", "forward_over_reverse"):
            estimate = run(method, one, 1, recompute=False)
            assert relative_error(estimate.hypergradient, expected_one.hypergradient) < 1e-10


def test_the_inner_steps_are_those_of_plain_training() -> None:
    case, estimate = reference("momentum", 2)
    with float64(), jax.disable_jit():
        params, outer_loss = plain_training(case, case.meta)
    assert relative_error(estimate.params, params) < 1e-12
    assert float(estimate.outer_loss) == pytest.approx(float(outer_loss), rel=1e-12)
    assert estimate.state["count"] == 2
    assert estimate.aux.inner["losses"].shape == (4,)
    assert estimate.aux.outer.shape == (4,)
    assert float(estimate.inner_loss) == pytest.approx(
        float(np.mean(estimate.aux.inner["losses"] * estimate.aux.inner["weights"]))
    )


@pytest.mark.parametrize("method", [name for name in METHODS if name != "unrolled"])
def test_every_method_runs_the_same_inner_steps(method: str) -> None:
    case, expected = reference("momentum", 2)
    with float64():
        estimate = run(method, case, 2)
    for value, reference_value in zip(jax.tree.leaves(estimate[1:]), jax.tree.leaves(expected[1:]), strict=True):
        np.testing.assert_allclose(value, reference_value, rtol=1e-10, atol=1e-13)
    assert jax.tree.structure(estimate.hypergradient) == jax.tree.structure(case.meta)


def test_state_is_data_to_every_exact_method() -> None:
    """A state made from the parameters and read by the losses carries no derivative, whichever the method."""

    def inner_loss(params: jax.Array, meta: jax.Array, state: jax.Array, batch: jax.Array) -> tuple:
        return jnp.sum((params - meta * state) ** 2 * batch), (state + params**2, None)

    def outer_loss(params: jax.Array, state: jax.Array, batch: jax.Array) -> tuple:
        return jnp.sum(params * state * batch), None

    problem = BilevelProblem(inner_loss, outer_loss, optax.sgd(0.1))
    params, meta = jnp.array([0.3, 1.0]), jnp.array([0.5, -0.7])
    arguments = (params, meta, params, problem.inner_optimizer.init(params), jnp.ones((3, 2)), jnp.ones(2))
    values = [hypergradient(m, problem, 3)(*arguments).hypergradient for m in ("unrolled", "tangent")]
    np.testing.assert_allclose(*values, rtol=1e-5)


def test_tangent_needs_no_more_memory_than_finite_differences_and_less_than_unrolled() -> None:
    """Temporary memory as the compiler plans it, for a network whose activations are what counts."""

    def layers(params: list[jax.Array], x: jax.Array) -> jax.Array:
        for weight in params:
            x = jnp.tanh(x @ weight)
        return x

    def inner_loss(params: list[jax.Array], meta: jax.Array, state: tuple, batch: jax.Array) -> tuple:
        return jnp.mean((layers(params, batch) @ jnp.ones(64) - jnp.tanh(batch[:, :4] @ meta)) ** 2), (state, None)

    def outer_loss(params: list[jax.Array], state: tuple, batch: jax.Array) -> tuple:
        return jnp.mean(layers(params, batch) ** 2), None

    problem = BilevelProblem(inner_loss, outer_loss, optax.sgd(0.1))
    params, x = [jnp.eye(64)] * 8, jnp.ones((8192, 64))
    arguments = (params, jnp.ones(4), (), problem.inner_optimizer.init(params), x[None], x)

    def temporary(method: str) -> int:
        compiled = jax.jit(hypergradient(method, problem)).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    lean = temporary("tangent")
    assert lean <= 1.1 * temporary("finite_difference")
    assert lean < 0.8 * temporary("unrolled")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    problem = network_case(optax.sgd(0.1), 1).problem
    with pytest.raises(InputError, match=r"'tangnet'; did you mean tangent"):
        hypergradient("tangnet", problem)
    with pytest.raises(InputError, match=r"choose one \(known: unrolled, tangent"):
        hypergradient("zzz", problem)
    with pytest.raises(InputError, match=r"finite_difference: .*'eps'.*epsilon, mean"):
        hypergradient("finite_difference", problem, eps=1.0)
    with pytest.raises(InputError, match="unknown option 'mean'"):
        hypergradient("truncated", problem, method="unrolled", mean=lambda tree: tree)
    with pytest.raises(InputError, match="inner_steps is 0"):
        hypergradient("unrolled", problem, 0)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("finite_difference", {"epsilon": 0.0}),
        ("darts", {"epsilon": -1.0}),
        ("neumann", {"step": 0.0}),
        ("neumann", {"terms": -1}),
        ("conjugate_gradient", {"terms": 0}),
        ("conjugate_gradient", {"damping": -1.0}),
        ("truncated", {"last": 2}),
    ],
)
def test_options_out_of_range_are_refused(method: str, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"hypergradient {method}"):
        hypergradient(method, network_case(optax.sgd(0.1), 1).problem, 1, **options)


@pytest.mark.parametrize("method", METHODS)
def test_batches_without_an_axis_of_inner_steps_are_refused(method: str) -> None:
    case = network_case(optax.sgd(0.1), 3)
    with pytest.raises(InputError, match="leading axis of 2 inner steps"):
        hypergradient(method, case.problem, 2)(*case.arguments())


def test_the_registry_and_the_files_agree_and_every_file_says_what_it_costs() -> None:
    folder = Path(hypergradients.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(METHODS)
    for name in METHODS:
        text = inspect.getdoc(inspect.getmodule(find_method(name).load()))
        assert text.startswith(f"`{name}`")
        for part in ("h ", "\nCost, in U-Net forwards", "\nMemory: ", "\nReference: "):
            assert part in text, (name, part)
    assert accepts("tangent", "mean")
    assert not accepts("unrolled", "mean")


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.adam(1e-3, eps_root=1e-12),
        optax.adamw(1e-3, eps_root=1e-12, weight_decay=1e-2),
        optax.rmsprop(1e-3),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)),
    ],
)
def test_optimisers_with_a_smooth_update_are_accepted(optimizer: optax.GradientTransformation) -> None:
    check_optimizer(optimizer, {"a": jnp.ones((3, 3)), "b": jnp.zeros(2)})


@pytest.mark.parametrize("optimizer", [optax.adam(1e-3), optax.adamw(1e-3), optax.amsgrad(1e-3)])
def test_optimisers_without_a_finite_second_derivative_are_refused(optimizer: optax.GradientTransformation) -> None:
    params = {"a": jnp.ones((3, 3)), "b": jnp.zeros(2)}
    with pytest.raises(InputError, match=r"zero gradient .*eps_root"):
        check_optimizer(optimizer, params)
    with pytest.raises(InputError):
        check_optimizer(network_case(optimizer, 1).problem, params, method="tangent")
    check_optimizer(optimizer, params, method="darts")


def test_sign_based_optimisers_are_refused() -> None:
    with pytest.raises(InputError, match="does not change with the gradient"):
        check_optimizer(optax.lion(1e-3), {"a": jnp.ones(4)})


def test_the_refused_optimiser_would_have_given_nan() -> None:
    """The reason for the refusal is real: one weight without a gradient spoils the whole hypergradient."""

    def inner_loss(params: jax.Array, meta: jax.Array, state: tuple, batch: jax.Array) -> tuple:
        return jnp.sum((batch @ params - meta) ** 2), (state, None)

    def outer_loss(params: jax.Array, state: tuple, batch: jax.Array) -> tuple:
        return jnp.sum(params**2), None

    batch = jnp.array([[[1.0, 0.0], [2.0, 0.0]]])  # the second input is always zero
    params, meta = jnp.ones(2), jnp.array([0.5, -0.5])
    for eps_root, finite in ((0.0, False), (1e-12, True)):
        problem = BilevelProblem(inner_loss, outer_loss, optax.adam(0.1, eps_root=eps_root))
        for method in ("unrolled", "tangent"):
            estimate = hypergradient(method, problem, check_update=False)(
                params, meta, (), problem.inner_optimizer.init(params), batch, None
            )
            assert np.isfinite(flat(estimate.hypergradient)).all() == finite
