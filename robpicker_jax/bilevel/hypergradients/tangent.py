"""`tangent`: the derivative over M of the inner loss's slope along u. Exact, and lean in memory.

    h = ∂/∂M ⟨∇_θ L(θ, M), u⟩ = ∇_M [ d/dτ L(θ + τu, M) ]_{τ=0}

with u = the pull-back of v = ∇_θ F(θ') through the optimiser's update (for SGD u = −η v): reverse mode over forward
mode. For K steps the same product is taken at each step, backwards (`bilevel/adjoint.py`).

Cost, in U-Net forwards, where M touches only the heads: for K = 1, 3 (inner) + 3 (outer) + 3 (the forward pass
again, with its tangent) = 9, or 8 with `recompute=False`, where the compiler may share the forward pass with the
inner step's. Each further step adds 3 and, on the way back, 9.
Memory: for K = 1 no more than a plain step: activations are kept for one backward pass at a time, and the slope's pass
keeps none, because only the heads are differentiated by M. `apart` makes sure of that: without it the compiler would
merge the slope's forward pass with the inner step's, and keep its activations until the slope is computed.
For more steps: θ, o, s and ∇_θ L of each, and the activations of one step four times over: those of the forward and
backward pass, and their tangents, wait for reverse mode.
Reference: Pearlmutter 1994, Fast exact multiplication by the Hessian; Griewank & Walther 2008, Evaluating
Derivatives, §5.
"""

from __future__ import annotations

import jax

from robpicker_jax.bilevel.adjoint import Point, apart, reverse_through_steps
from robpicker_jax.bilevel.problem import BilevelProblem, Estimator, Mean, Tree, no_mean


def build(problem: BilevelProblem, inner_steps: int = 1, *, recompute: bool = True, mean: Mean = no_mean) -> Estimator:
    """Estimator by the gradient of the directional derivative.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps, all differentiated.
        recompute: run the forward pass again (less memory) instead of sharing the inner step's (less time).
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """

    def product(problem: BilevelProblem, point: Point, u: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
        if recompute:
            point, u = apart(point, u)

        def slope(params: Tree, meta: Tree) -> jax.Array:
            def along(moving: Tree) -> jax.Array:
                return problem.inner(moving, meta, point.state, point.batch, params)[0]

            derivative: jax.Array = jax.jvp(along, (params,), (u,))[1]
            return derivative

        if wrt_params:
            of_params, of_meta = jax.grad(slope, argnums=(0, 1))(point.params, point.meta)
            return of_params, of_meta
        return None, jax.grad(slope, argnums=1)(point.params, point.meta)

    return reverse_through_steps(problem, inner_steps, product, mean)
