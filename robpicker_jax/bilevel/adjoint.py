"""Backwards over the K inner steps: the recursion shared by the explicit methods.

A method supplies only the second-order product of one step along a direction u,

    product(u) = (∂/∂θ, ∂/∂M) ⟨∇_θ L(θ, M), u⟩,

and this file does the rest. With λ the adjoint of θ_{t+1}, ω that of the optimiser's state, starting from λ = v =
∇_θ F and ω = 0, each step from the last to the first does

    (u, ω, μ) = pull-back of (λ, ω) through (g, o, θ) → U(g, o, θ)        (for SGD: u = −η λ, μ = λ)
    h += ∂/∂M ⟨∇_θ L, u⟩,     λ = μ + ∂/∂θ ⟨∇_θ L, u⟩

The update U works entry by entry, so its pull-back costs next to nothing compared with a pass through the network.
The first step needs only the derivative by M: with K = 1 no second-order pass through the network's parameters is
made.

All that is differentiated here is a loss on one device's share of the batch; `mean` averages over devices what comes
out (gradients and products are linear in the loss, so their mean over equal shares is that of the whole batch).
Hence no gradient is ever taken through a collective of this library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robpicker_jax.bilevel.problem import (
    BilevelProblem,
    Carry,
    Estimate,
    Estimator,
    LossAux,
    Mean,
    StepRecord,
    Tree,
    check_batches,
    inner_step,
    no_mean,
    outer_gradient,
    take,
    update,
)


class Point(NamedTuple):
    """Where a second-order product is taken: the arguments of the inner loss."""

    params: Tree
    meta: Tree
    state: Tree
    batch: Tree


Product = Callable[[BilevelProblem, Point, Tree, bool], tuple[Tree, Tree]]
"""`(problem, point, u, wrt_params) -> (∂/∂θ, ∂/∂M) of ⟨∇_θ L, u⟩`; the first is None unless `wrt_params`."""


def apart(point: Point, u: Tree) -> tuple[Point, Tree]:
    """The same point and direction, in a form that the compiler cannot share with the inner step.

    A product repeats the inner step's forward pass. Sharing it would save a pass and keep all its activations alive
    across the outer one. An optimization barrier is meant to prevent that, but XLA's CPU compiler drops barriers before
    it eliminates common subexpressions; θ + 0·u has the value of θ, and depends on u, which comes after the outer pass.
    """
    point, u = jax.lax.optimization_barrier((point, u))
    return point._replace(params=jax.tree.map(lambda p, d: p + 0 * d.astype(p.dtype), point.params, u)), u


def reverse_through_steps(
    problem: BilevelProblem, inner_steps: int, product: Product, mean: Mean = no_mean
) -> Estimator:
    """Estimator that runs K inner steps, keeps their θ, o, s and gradients, and goes back over them with `product`.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        product: the method's second-order product.
        mean: average over devices of what one device computed from its share of the batch.
    """

    def averaged_product(point: Point, u: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
        averaged: tuple[Tree, Tree] = mean(product(problem, point, u, wrt_params))
        return averaged

    def estimate(
        params: Tree, meta: Tree, state: Tree, opt_state: Tree, inner_batches: Tree, outer_batch: Tree
    ) -> Estimate:
        check_batches(inner_batches, inner_steps)
        start = Carry(params, state, opt_state)

        def forward(carry: Carry, batch: Tree) -> tuple[Carry, tuple[Carry, StepRecord]]:
            after, record = inner_step(problem, meta, carry, batch, mean)
            return after, (carry, record)

        if inner_steps == 1:
            end, (_, last) = forward(start, take(inner_batches, 0))
            first_gradient = last.gradient
        else:
            end, (carries, records) = jax.lax.scan(forward, start, inner_batches)
            last, first_gradient = take(records, -1), take(records.gradient, 0)

        outer = outer_gradient(problem, meta, end, outer_batch, mean)
        adjoint, state_adjoint, total = outer.params, _zeros(_floats(end.opt_state)), outer.meta

        if inner_steps > 1:

            def backward(adjoints: tuple[Tree, Any, Tree], step: tuple[Carry, Tree, Tree]) -> tuple[Any, None]:
                adjoint, state_adjoint, total = adjoints
                carry, gradient, batch = step
                u, state_adjoint, through_update = _pull_back(problem, gradient, carry, adjoint, state_adjoint)
                point = Point(carry.params, meta, carry.state, batch)
                through_gradient, contribution = averaged_product(point, u, True)
                return (_add(through_update, through_gradient), state_adjoint, _add(total, contribution)), None

            later = jax.tree.map(lambda leaf: leaf[1:], (carries, records.gradient, inner_batches))
            (adjoint, state_adjoint, total), _ = jax.lax.scan(
                backward, (adjoint, state_adjoint, total), later, reverse=True
            )

        u, _, _ = _pull_back(problem, first_gradient, start, adjoint, state_adjoint)
        _, contribution = averaged_product(Point(params, meta, state, take(inner_batches, 0)), u, False)
        return Estimate(
            _add(total, contribution),
            end.params,
            end.state,
            end.opt_state,
            last.loss,
            outer.loss,
            LossAux(last.aux, outer.aux),
        )

    return estimate


def _pull_back(
    problem: BilevelProblem, gradient: Tree, carry: Carry, adjoint: Tree, state_adjoint: list[jax.Array]
) -> tuple[Tree, list[jax.Array], Tree]:
    """Adjoints of (gradient, optimiser state, parameters) from those of what the update makes of them.

    The optimiser's state holds counters and keys too; only its floating-point leaves have an adjoint.
    """

    def of_floats(gradient: Tree, floats: list[jax.Array], params: Tree) -> tuple[Tree, list[jax.Array]]:
        new_params, new_opt_state = update(problem, gradient, _with_floats(carry.opt_state, floats), params)
        return new_params, _floats(new_opt_state)

    _, transpose = jax.vjp(of_floats, gradient, _floats(carry.opt_state), carry.params)
    adjoints: tuple[Tree, list[jax.Array], Tree] = transpose((adjoint, state_adjoint))
    return adjoints


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)


def _floats(tree: Tree) -> list[jax.Array]:
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if _is_float(leaf)]


def _with_floats(tree: Tree, floats: list[jax.Array]) -> Tree:
    """`tree` with its floating-point leaves replaced, in order, by `floats`."""
    replacement = iter(floats)
    return jax.tree.map(lambda leaf: next(replacement) if _is_float(leaf) else leaf, tree)


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)


def _add(left: Tree, right: Tree) -> Tree:
    return jax.tree.map(jnp.add, left, right)
