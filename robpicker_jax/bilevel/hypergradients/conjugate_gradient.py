"""`conjugate_gradient`: implicit differentiation, the linear system with the Hessian by conjugate gradients.

    h = ∂F/∂M − ∂/∂M ⟨∇_θ L(θ', M), x⟩,     (H + δI) x = v

with x from J = `terms` iterations started at zero, δ = `damping`, v = ∇_θ F(θ'), H = ∂²L/∂θ², all at the end of the
K inner steps with the last inner batch. The iteration stops early where the residual has vanished, and where it
meets a direction of curvature ≤ 0 (networks have them): what has been reached by then is the result, and v itself if
that is nothing (Steihaug's rule). Where the inner loss takes a frozen copy of θ, H is that of the moving one, which
is symmetric.

Cost, in U-Net forwards, where M touches only the heads: 3K (inner) + 3 (outer) + 9J (Hessian-vector products, forward
over reverse; 6J where the compiler moves the passes they share out of the loop, at the price of memory) + 3 (mixed
product).
Memory: the activations and tangents of one step, and four vectors of the size of θ, for any K and J.
Reference: Pedregosa 2016 (arXiv 1602.02355); Rajeswaran et al. 2019, iMAML (arXiv 1909.04630); Steihaug 1983.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robpicker_jax.bilevel.adjoint import Point
from robpicker_jax.bilevel.hypergradients.forward_over_reverse import gradient_along
from robpicker_jax.bilevel.implicit import after_inner_steps
from robpicker_jax.bilevel.problem import BilevelProblem, Estimator, Mean, Tree, no_mean
from robpicker_jax.system.errors import InputError


def build(
    problem: BilevelProblem,
    inner_steps: int = 1,
    *,
    terms: int = 5,
    damping: float = 0.0,
    tolerance: float = 1e-12,
    mean: Mean = no_mean,
) -> Estimator:
    """Estimator by implicit differentiation with conjugate gradients.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        terms: largest number J ≥ 1 of iterations, each one Hessian-vector product.
        damping: δ ≥ 0.
        tolerance: the iteration stops where ‖residual‖ ≤ tolerance · ‖v‖.
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """
    if terms < 1 or not damping >= 0 or not tolerance >= 0:
        raise InputError(
            f"terms is {terms}, damping {damping}, tolerance {tolerance}",
            where="hypergradient conjugate_gradient",
            fix="give terms ≥ 1, damping ≥ 0 and tolerance ≥ 0",
        )

    def response(point: Point, v: Tree) -> Tree:
        def loss(moving: Tree) -> jax.Array:
            return problem.inner(moving, point.meta, point.state, point.batch, point.params)[0]

        def matrix(x: Tree) -> Tree:
            product = mean(jax.jvp(jax.grad(loss), (point.params,), (x,))[1])
            return jax.tree.map(lambda p, t: p + damping * t, product, x)

        x = solve(matrix, v, terms, tolerance)
        return mean(gradient_along(problem, point, x, False)[1])

    return after_inner_steps(problem, inner_steps, response, mean)


class _Iterate(NamedTuple):
    iteration: jax.Array
    solution: Tree
    residual: Tree
    direction: Tree
    squared_residual: jax.Array
    done: jax.Array


def solve(matrix: Callable[[Tree], Tree], right: Tree, iterations: int, tolerance: float) -> Tree:
    """Conjugate gradients for `matrix(x) = right` from zero, stopped at a direction of curvature ≤ 0."""
    start = _dot(right, right)
    limit = tolerance**2 * start

    def unfinished(it: _Iterate) -> jax.Array:
        return (it.iteration < iterations) & ~it.done

    def iterate(it: _Iterate) -> _Iterate:
        product = matrix(it.direction)
        curvature = _dot(it.direction, product)
        convex = curvature > 0
        length = jnp.where(convex, it.squared_residual / jnp.where(convex, curvature, 1), 0)
        # Where already the first direction has no positive curvature, v itself is taken as the solution.
        length = jnp.where(~convex & (it.iteration == 0), 1, length)
        solution = _add(it.solution, length, it.direction)
        residual = _add(it.residual, -length, product)
        squared = _dot(residual, residual)
        direction = _add(residual, squared / it.squared_residual, it.direction)
        return _Iterate(it.iteration + 1, solution, residual, direction, squared, ~convex | (squared <= limit))

    zero = jax.tree.map(jnp.zeros_like, right)
    first = _Iterate(jnp.zeros((), jnp.int32), zero, right, right, start, start <= 0)
    return jax.lax.while_loop(unfinished, iterate, first).solution


def _dot(left: Tree, right: Tree) -> jax.Array:
    products = [jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)]
    return jnp.sum(jnp.stack(products))


def _add(left: Tree, factor: jax.Array, right: Tree) -> Tree:
    return jax.tree.map(lambda a, b: a + factor.astype(a.dtype) * b, left, right)
