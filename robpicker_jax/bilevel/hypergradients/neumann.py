"""`neumann`: implicit differentiation, the inverse Hessian by a truncated Neumann series.

    h = ∂F/∂M − ∂/∂M ⟨∇_θ L(θ', M), x⟩,     x = α Σ_{j=0}^{J} (I − α(H + δI))^j v  →  (H + δI)⁻¹ v

with J = `terms`, α = `step`, δ = `damping`, v = ∇_θ F(θ'), H = ∂²L/∂θ², all at the end of the K inner steps with the
last inner batch. It converges, as J → ∞, if the eigenvalues of H + δI lie in (0, 2/α). At a stationary point it
equals, for δ = 0 and α = η, the unrolled hypergradient of J + 1 steps of gradient descent (Lorraine et al., theorem
1).

Cost, in U-Net forwards, where M touches only the heads: 3K (inner) + 3 (outer) + 9J (Hessian-vector products, forward
over reverse; 6J where the compiler moves the passes they share out of the loop, at the price of memory) + 3 (mixed
product).
Memory: the activations and tangents of one step, and three vectors of the size of θ, for any K and J.
Reference: Lorraine, Vicol & Duvenaud 2020, Optimizing Millions of Hyperparameters by Implicit Differentiation
(arXiv 1911.02590).
"""

from __future__ import annotations

import jax

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
    step: float = 0.1,
    damping: float = 0.0,
    mean: Mean = no_mean,
) -> Estimator:
    """Estimator by implicit differentiation with a Neumann series.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        terms: number J of Hessian-vector products, ≥ 0.
        step: α > 0, less than 2 over the largest eigenvalue of H + δI; the inner learning rate is the usual choice.
        damping: δ ≥ 0.
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """
    if terms < 0 or not step > 0 or not damping >= 0:
        raise InputError(
            f"terms is {terms}, step {step}, damping {damping}",
            where="hypergradient neumann",
            fix="give terms ≥ 0, step > 0 and damping ≥ 0",
        )

    def response(point: Point, v: Tree) -> Tree:
        def next_term(_: int, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            term, total = carry
            product, _ = mean(gradient_along(problem, point, term, True))
            term = jax.tree.map(lambda t, p: t - step * (p + damping * t), term, product)
            return term, jax.tree.map(lambda s, t: s + t, total, term)

        _, total = jax.lax.fori_loop(0, terms, next_term, (v, v))
        x = jax.tree.map(lambda leaf: step * leaf, total)
        return mean(gradient_along(problem, point, x, False)[1])

    return after_inner_steps(problem, inner_steps, response, mean)
