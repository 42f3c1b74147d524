"""What the methods share that look only at the end of the inner steps: implicit differentiation and `darts`.

If the inner steps had converged, ∇_θ L(θ*, M) = 0 would define θ* as a function of M, and by the implicit function
theorem

    h = ∂F/∂M − ∂/∂M ⟨∇_θ L(θ*, M), x⟩,     (H + δI) x = v,     v = ∇_θ F(θ*),   H = ∂²L/∂θ²,

whatever optimiser led to θ*. Away from a stationary point this is an approximation. The damping δ ≥ 0 keeps the
solution small where H is small or negative.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robpicker_jax.bilevel.adjoint import Point
from robpicker_jax.bilevel.problem import (
    BilevelProblem,
    Carry,
    Estimate,
    Estimator,
    LossAux,
    Mean,
    Tree,
    check_batches,
    no_mean,
    outer_gradient,
    run_inner_steps,
    take,
)


def after_inner_steps(
    problem: BilevelProblem, inner_steps: int, response: Callable[[Point, Tree], Tree], mean: Mean = no_mean
) -> Estimator:
    """Estimator of ∂F/∂M − response(point, v), at θ, M, state and batch of the end of K plain inner steps.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps, none of them differentiated.
        response: `(point, v) -> tree like meta`, already averaged over devices.
        mean: average over devices.
    """

    def estimate(
        params: Tree, meta: Tree, state: Tree, opt_state: Tree, inner_batches: Tree, outer_batch: Tree
    ) -> Estimate:
        check_batches(inner_batches, inner_steps)
        start = Carry(params, state, opt_state)
        end, inner_loss, inner_aux = run_inner_steps(problem, inner_steps, meta, start, inner_batches, mean)
        outer = outer_gradient(problem, meta, end, outer_batch, mean)
        point = Point(end.params, meta, end.state, take(inner_batches, -1))
        hypergradient = jax.tree.map(jnp.subtract, outer.meta, response(point, outer.params))
        return Estimate(
            hypergradient,
            end.params,
            end.state,
            end.opt_state,
            inner_loss,
            outer.loss,
            LossAux(inner_aux, outer.aux),
        )

    return estimate
