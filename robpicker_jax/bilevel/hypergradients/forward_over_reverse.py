"""`forward_over_reverse`: the derivative along u of the inner loss's gradient over M. Exact; K steps by mixed mode.

    h = D_u [∇_M L](θ, M) = d/dτ [∇_M L(θ + τu, M)]_{τ=0}

with u = the pull-back of v = ∇_θ F(θ') through the optimiser's update (for SGD u = −η v): forward mode over reverse
mode. For K steps (`bilevel/adjoint.py`) one such pass gives both ∂/∂M and the Hessian-vector product ∂/∂θ of each
step: forward mode inside the step, reverse mode over the steps.

Cost, in U-Net forwards, where M touches only the heads: for K = 1, 3 (inner) + 3 (outer) + 3 (the forward pass
again, with its tangent) = 9, or 8 with `recompute=False`, where the compiler may share the forward pass with the
inner step's. Each further step adds 3 and, on the way back, 9 (3 and their tangents, 6).
Memory: for K = 1 no more than a plain step. For more steps: θ, o, s and ∇_θ L of each, and the activations
of one step with their tangents, half of what `tangent` and `unrolled` keep; that is what mixed mode is for.
Reference: Kemaev, Calian, Zintgraf, Farquhar & van Hasselt, ICML 2025, Scalable Meta-Learning via Mixed-Mode
Differentiation (MixFlow-MG, arXiv 2505.00793).
"""

from __future__ import annotations

import jax

from robpicker_jax.bilevel.adjoint import Point, apart, reverse_through_steps
from robpicker_jax.bilevel.problem import BilevelProblem, Estimator, Mean, Tree, no_mean


def build(problem: BilevelProblem, inner_steps: int = 1, *, recompute: bool = True, mean: Mean = no_mean) -> Estimator:
    """Estimator by the directional derivative of the gradient.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps, all differentiated.
        recompute: run the forward pass again (less memory) instead of sharing the inner step's (less time).
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """

    def product(problem: BilevelProblem, point: Point, u: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
        if recompute:
            point, u = apart(point, u)
        return gradient_along(problem, point, u, wrt_params)

    return reverse_through_steps(problem, inner_steps, product, mean)


def gradient_at(problem: BilevelProblem, point: Point, params: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
    """(∇_θ L, ∇_M L) at `params`, the frozen copy staying at the point's; the first is None unless `wrt_params`.

    Where the inner loss takes a frozen copy, its gradient is part of ∇_θ L: the hypergradient follows both.
    """

    def loss(params: Tree, frozen: Tree, meta: Tree) -> jax.Array:
        return problem.inner(params, meta, point.state, point.batch, frozen)[0]

    if not wrt_params:
        return None, jax.grad(loss, argnums=2)(params, point.params, point.meta)
    if not problem.inner_loss_uses_frozen:
        live, meta = jax.grad(loss, argnums=(0, 2))(params, point.params, point.meta)
        return live, meta
    live, frozen, meta = jax.grad(loss, argnums=(0, 1, 2))(params, point.params, point.meta)
    return jax.tree.map(jax.numpy.add, live, frozen), meta


def gradient_along(problem: BilevelProblem, point: Point, u: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
    """Derivative of (∇_θ L, ∇_M L) along u: the Hessian-vector product and the mixed one."""
    _, (of_params, of_meta) = jax.jvp(
        lambda params: gradient_at(problem, point, params, wrt_params), (point.params,), (u,)
    )
    return of_params, of_meta
