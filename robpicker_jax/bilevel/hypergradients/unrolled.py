"""`unrolled`: reverse mode through the K inner steps. The definition, and the oracle of every other method.

    h = d/dM F(θ_K(M), M),   θ_{t+1} = U(∇_θ L(θ_t, M), o_t, θ_t)                           (paper, eq. 6–11 for K = 1)

Exact for any K and any optax optimiser, whose state is differentiated through as well.

Cost, in U-Net forwards (a backward counts 2), where M touches only the heads: for K = 1, 3 (inner) + 3 (outer) + 2
(transpose of the inner backward) = 8; for more steps 12K − 1, because a step in between costs 3 forwards in time and
3 + 6 on the way back (recomputation, full second-order pass).
Memory: the activations of the forward and backward pass of one inner step; for K > 1 also θ and o of each step, all
else being recomputed on the way back (`remat`).
Reference: Maclaurin, Duvenaud & Adams 2015 (arXiv 1502.03492); Franceschi et al. 2017 (arXiv 1703.01785).
"""

from __future__ import annotations

import jax

from robpicker_jax.bilevel.problem import (
    BilevelProblem,
    Carry,
    Estimate,
    Estimator,
    LossAux,
    Tree,
    check_batches,
    inner_step,
    take,
)


def build(problem: BilevelProblem, inner_steps: int = 1, *, remat: bool = True) -> Estimator:
    """Estimator by `jax.grad` through `inner_steps` inner steps.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps, all differentiated.
        remat: recompute each step on the way back instead of keeping its activations (K > 1 only).
    """

    def objective(
        meta: Tree, carry: Carry, inner_batches: Tree, outer_batch: Tree
    ) -> tuple[jax.Array, tuple[Carry, jax.Array, LossAux]]:
        def step(carry: Carry, batch: Tree) -> tuple[Carry, tuple[jax.Array, Tree]]:
            carry, record = inner_step(problem, meta, carry, batch)
            return carry, (record.loss, record.aux)

        if inner_steps == 1:
            carry, (inner_loss, inner_aux) = step(carry, take(inner_batches, 0))
        else:
            body = jax.checkpoint(step, prevent_cse=False) if remat else step
            carry, records = jax.lax.scan(body, carry, inner_batches)
            inner_loss, inner_aux = take(records, -1)
        outer_loss, outer_aux = problem.outer(carry.params, meta, carry.state, outer_batch)
        return outer_loss, (carry, inner_loss, LossAux(inner_aux, outer_aux))

    def estimate(
        params: Tree, meta: Tree, state: Tree, opt_state: Tree, inner_batches: Tree, outer_batch: Tree
    ) -> Estimate:
        check_batches(inner_batches, inner_steps)
        start = Carry(params, jax.lax.stop_gradient(state), opt_state)
        (outer_loss, (end, inner_loss, aux)), hypergradient = jax.value_and_grad(objective, has_aux=True)(
            meta, start, inner_batches, outer_batch
        )
        return Estimate(hypergradient, end.params, end.state, end.opt_state, inner_loss, outer_loss, aux)

    return estimate
