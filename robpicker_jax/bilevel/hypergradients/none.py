"""`none`: the meta networks stay as they are.

    h = 0

K plain inner steps; the outer loss is evaluated for the record.

Cost, in U-Net forwards: 3K (inner) + 1 (outer loss; nothing, under `jax.jit`, where its value is not used).
Memory: that of a plain step.
Reference: none; the baseline against which the others earn their cost.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

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
    run_inner_steps,
)


def build(problem: BilevelProblem, inner_steps: int = 1, *, mean: Mean = no_mean) -> Estimator:
    """Estimator that is zero.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """

    def estimate(
        params: Tree, meta: Tree, state: Tree, opt_state: Tree, inner_batches: Tree, outer_batch: Tree
    ) -> Estimate:
        check_batches(inner_batches, inner_steps)
        start = Carry(params, state, opt_state)
        end, inner_loss, inner_aux = run_inner_steps(problem, inner_steps, meta, start, inner_batches, mean)
        outer_loss, outer_aux = problem.outer(end.params, meta, end.state, outer_batch)
        return Estimate(
            jax.tree.map(jnp.zeros_like, meta),
            end.params,
            end.state,
            end.opt_state,
            inner_loss,
            mean(outer_loss),
            LossAux(inner_aux, outer_aux),
        )

    return estimate
