"""Approximate hypergradients: convergence to closed forms, order of the error, definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import Estimate, hypergradient
from tests.bilevel.bilevel_problems import Case, Quadratic, flat, float64, network_case, quadratic, relative_error


@pytest.fixture(autouse=True)
def _double_precision() -> object:
    with float64():
        yield


def estimate_quadratic(problem: Quadratic, method: str, inner_steps: int = 1, **options: object) -> Estimate:
    return network_estimate_of(problem.case, method, inner_steps, **options)


def test_neumann_is_the_partial_sum_and_converges_to_the_closed_form() -> None:
    problem, step = quadratic(0.1), 0.5
    exact = problem.closed_form(problem.case.params)
    for terms, error in ((0, 1.0), (3, 0.5), (60, 1e-6)):
        value = estimate_quadratic(problem, "neumann", terms=terms, step=step).hypergradient
        v = np.asarray(problem.case.params) - problem.target
        remainder = np.linalg.matrix_power(np.eye(6) - step * problem.a, terms + 1)
        partial = problem.b.T @ np.linalg.solve(problem.a, v - remainder @ v)
        assert relative_error(value, partial) < 1e-10
        assert relative_error(value, exact) < error


def test_conjugate_gradient_is_exact_after_as_many_terms_as_dimensions() -> None:
    problem = quadratic(0.1)
    exact = problem.closed_form(problem.case.params)
    errors = [
        relative_error(estimate_quadratic(problem, "conjugate_gradient", terms=terms).hypergradient, exact)
        for terms in (1, 3, 6, 50)
    ]
    assert errors[0] > errors[1] > 1e-6
    assert max(errors[2:]) < 1e-10


@pytest.mark.parametrize(
    ("method", "options"), [("neumann", {"terms": 50, "step": 0.6}), ("conjugate_gradient", {"terms": 6})]
)
def test_damping_is_added_to_the_hessian(method: str, options: dict[str, float]) -> None:
    problem = quadratic(0.1)
    value = estimate_quadratic(problem, method, damping=0.7, **options).hypergradient
    assert relative_error(value, problem.closed_form(problem.case.params, damping=0.7)) < 1e-8


@pytest.mark.parametrize("terms", [0, 1, 4])
def test_neumann_at_a_stationary_point_is_unrolled_gradient_descent(terms: int) -> None:
    problem = quadratic(0.3, inner_steps=terms + 1)
    unrolled = estimate_quadratic(problem, "unrolled", terms + 1).hypergradient
    value = estimate_quadratic(problem, "neumann", terms + 1, terms=terms, step=0.3).hypergradient
    assert relative_error(value, unrolled) < 1e-10


def test_conjugate_gradient_stops_at_negative_curvature() -> None:
    value = estimate_quadratic(quadratic(0.1, indefinite=True), "conjugate_gradient", terms=20).hypergradient
    assert np.isfinite(flat(value)).all()
    assert np.abs(flat(value)).max() < 100


def test_conjugate_gradient_and_finite_differences_of_a_vanishing_outer_gradient_are_zero() -> None:
    problem = quadratic(0.1)
    case = problem.case._replace(params=jnp.asarray(problem.target))
    meta = jnp.asarray(np.linalg.lstsq(problem.b, problem.a @ problem.target, rcond=None)[0])

    def outer_loss(params: jax.Array, state: object, batch: object) -> tuple[jax.Array, None]:
        return 0.0 * jnp.sum(params), None

    flat_problem = case._replace(
        problem=type(case.problem)(case.problem.inner_loss, outer_loss, case.problem.inner_optimizer), meta=meta
    )
    for method in ("conjugate_gradient", "neumann", "finite_difference", "darts"):
        value = network_estimate_of(flat_problem, method, 1).hypergradient
        np.testing.assert_array_equal(flat(value), 0.0)


def network_estimate(method: str, inner_steps: int = 1, **options: object) -> Estimate:
    case = network_case(optax.sgd(0.3, momentum=0.5), inner_steps, uses_frozen=True)
    return network_estimate_of(case, method, inner_steps, **options)


def test_a25_finite_differences_are_of_second_order_until_rounding_takes_over() -> None:
    inner_steps = 2
    exact = network_estimate("tangent", inner_steps).hypergradient
    errors = [
        relative_error(network_estimate("finite_difference", inner_steps, epsilon=epsilon).hypergradient, exact)
        for epsilon in (1e-2, 1e-4, 1e-13)
    ]
    assert np.log10(errors[0] / errors[1]) / 2 == pytest.approx(2.0, abs=0.02)
    assert errors[2] > 10 * errors[1]


def test_finite_difference_is_the_papers_formula_for_sgd() -> None:
    """Equations 12–13 written out: shift by ε along v = ∇F(θ')/‖…‖ at the old θ, times −η."""
    learning_rate, epsilon = 0.3, 0.05
    case = network_case(optax.sgd(learning_rate), 1)
    with jax.disable_jit():
        check_the_papers_formula(case, learning_rate, epsilon)


def check_the_papers_formula(case: Case, learning_rate: float, epsilon: float) -> None:
    inner, outer = case.problem.inner_loss, case.problem.outer_loss
    batch = jax.tree.map(lambda leaf: leaf[0], case.inner_batches)
    gradient = jax.grad(inner, has_aux=True)(case.params, case.meta, case.state, batch)[0]
    updated = jax.tree.map(lambda p, g: p - learning_rate * g, case.params, gradient)
    v = jax.grad(outer, has_aux=True)(updated, case.state, case.outer_batch)[0]
    radius = epsilon / optax.tree.norm(v)

    def meta_gradient(params: object, sign: float) -> object:
        shifted = jax.tree.map(lambda p, d: p + sign * radius * d, params, v)
        return jax.grad(inner, argnums=1, has_aux=True)(shifted, case.meta, case.state, batch)[0]

    def quotient(params: object, factor: float) -> object:
        return jax.tree.map(
            lambda plus, minus: factor * (plus - minus) / (2 * radius),
            meta_gradient(params, 1),
            meta_gradient(params, -1),
        )

    paper = hypergradient("finite_difference", case.problem, epsilon=epsilon)(*case.arguments()).hypergradient
    assert relative_error(paper, quotient(case.params, -learning_rate)) < 1e-9
    published = hypergradient("darts", case.problem, epsilon=epsilon)(*case.arguments()).hypergradient
    assert relative_error(published, quotient(updated, -1.0)) < 1e-9


def test_darts_tends_to_neumann_without_terms_and_step_one() -> None:
    darts = network_estimate("darts", epsilon=1e-4).hypergradient
    assert relative_error(darts, network_estimate("neumann", terms=0, step=1.0).hypergradient) < 1e-6


@pytest.mark.parametrize("method", ["unrolled", "tangent"])
def test_truncated_differentiates_the_last_steps_only(method: str) -> None:
    case = network_case(optax.sgd(0.3, momentum=0.5), 3)
    value = network_estimate_of(case, "truncated", 3, last=1, method=method)
    two = network_estimate_of(
        case._replace(inner_batches=jax.tree.map(lambda leaf: leaf[:2], case.inner_batches)), "none", 2
    )
    last = case._replace(inner_batches=jax.tree.map(lambda leaf: leaf[2:], case.inner_batches))
    with jax.disable_jit():
        expected = hypergradient("unrolled", case.problem)(
            two.params, case.meta, two.state, two.opt_state, last.inner_batches, case.outer_batch
        )
    assert relative_error(value.hypergradient, expected.hypergradient) < 1e-10
    assert relative_error(value.params, expected.params) < 1e-12
    whole = network_estimate_of(case, "truncated", 3, last=3, method=method)
    assert relative_error(whole.hypergradient, network_estimate_of(case, "unrolled", 3).hypergradient) < 1e-10
    assert relative_error(value.hypergradient, whole.hypergradient) > 1e-3


def network_estimate_of(case: Case, name: str, inner_steps: int, /, **options: object) -> Estimate:
    with jax.disable_jit():
        return hypergradient(name, case.problem, inner_steps, **options)(*case.arguments())


def test_none_is_zero_and_the_direct_dependence_enters_all_others() -> None:
    assert not flat(network_estimate("none", 2).hypergradient).any()
    case = network_case(optax.sgd(0.3), 1, direct=True)
    without = network_case(optax.sgd(0.3), 1)
    direct = jax.tree.map(lambda leaf: 0.2 * leaf, case.meta)
    for method in ("finite_difference", "darts"):
        value = network_estimate_of(case, method, 1).hypergradient
        indirect = network_estimate_of(without, method, 1).hypergradient
        assert relative_error(value, jax.tree.map(jnp.add, indirect, direct)) < 1e-9
