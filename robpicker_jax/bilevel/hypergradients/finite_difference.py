"""`finite_difference`: central differences of the inner loss's gradient over M, at the old θ (paper, eq. 12–13).

    h ≈ (∇_M L(θ + r u, M) − ∇_M L(θ − r u, M)) / 2r,     r = ε / ‖u‖

with u = the pull-back of v = ∇_θ F(θ') through the optimiser's update. For SGD u = −η v, and this is the paper's −η
(∇_M L(θ + r'v) − ∇_M L(θ − r'v)) / 2r' with r' = ε/‖v‖; through u it holds for every optimiser. ε is the length of
the shift of θ, whatever the size of u. For K steps the same quotient, over θ and M, takes the place of the
second-order products at each step, backwards (`bilevel/adjoint.py`).

Error: O(ε²) by truncation and O(rounding/ε): in float32 the best ε is a compromise that depends on the problem. It
shifts every use of `params`: paths cut by `stop_gradient` inside the inner loss are not cut here, and the quotient
converges to the derivative without the cut. Paths that go through `frozen` (see `BilevelProblem`) stay fixed, so the
quotient converges to the exact hypergradient; RobPicker's own inner loss is written that way.

Cost, in U-Net forwards, where M touches only the heads: for K = 1, 3 (inner) + 3 (outer) + 2 = 8. Each further step
adds 3 and, on the way back, 6.
Memory: that of a plain step, and two shifted copies of θ; for more steps also θ, o, s and ∇_θ L of each.
Reference: Liu, Simonyan & Yang 2019, DARTS (arXiv 1806.09055), eq. 8.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from robpicker_jax.bilevel.adjoint import Point, reverse_through_steps
from robpicker_jax.bilevel.hypergradients.forward_over_reverse import gradient_at
from robpicker_jax.bilevel.problem import BilevelProblem, Estimator, Mean, Tree, no_mean
from robpicker_jax.system.errors import InputError


def build(problem: BilevelProblem, inner_steps: int = 1, *, epsilon: float = 0.01, mean: Mean = no_mean) -> Estimator:
    """Estimator by central differences at the old parameters.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        epsilon: Euclidean length of the shift of θ to either side.
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """
    check_epsilon("finite_difference", epsilon)

    def product(problem: BilevelProblem, point: Point, u: Tree, wrt_params: bool) -> tuple[Tree, Tree]:
        return central_difference(problem, point, u, epsilon, wrt_params)

    return reverse_through_steps(problem, inner_steps, product, mean)


def central_difference(
    problem: BilevelProblem, point: Point, u: Tree, epsilon: float | jax.Array, wrt_params: bool
) -> tuple[Tree, Tree]:
    """Central difference of (∇_θ L, ∇_M L) along u, θ shifted by the length `epsilon`; zero where u is zero."""
    norm = optax.tree.norm(u)
    radius = epsilon / jnp.where(norm > 0, norm, 1)

    def shifted(sign: float) -> tuple[Tree, Tree]:
        params = jax.tree.map(lambda p, d: p + (sign * radius * d).astype(p.dtype), point.params, u)
        return gradient_at(problem, point, params, wrt_params)

    difference: tuple[Tree, Tree] = jax.tree.map(
        lambda plus, minus: ((plus - minus) / (2 * radius)).astype(plus.dtype), shifted(1.0), shifted(-1.0)
    )
    return difference


def check_epsilon(method: str, epsilon: float) -> None:
    """Raise InputError unless `epsilon` is a positive number."""
    if not epsilon > 0:
        raise InputError(f"epsilon is {epsilon}", where=f"hypergradient {method}", fix="give a positive length")
