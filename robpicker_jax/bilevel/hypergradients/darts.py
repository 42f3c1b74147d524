"""`darts`: central differences at the updated θ, without η: what RobPicker's published code computes.

    h ≈ −(∇_M L(θ' + r v, M) − ∇_M L(θ' − r v, M)) / 2r,     v = ∇_θ F(θ'),   r = ε / ‖v‖,   ε = 0.01

Two departures from the paper's eq. 12–13: the differences are taken at θ', not at the θ that the step started from,
and the inner learning rate is left out, so the result is of the order of h/η and does not tend to the hypergradient
as ε → 0. Under a meta optimiser that ignores scale, such as Adam, the second departure is nearly harmless. It can be
read as implicit differentiation with the inverse Hessian replaced by the identity (Neumann series with no term and
step 1). After K inner steps it is taken at the last θ, with the last inner batch. Here ε is the length of the shift
of θ.

Cost, in U-Net forwards, where M touches only the heads: 3K (inner) + 3 (outer) + 2.
Memory: that of a plain step, and two shifted copies of θ, for any K.
Reference: Liu, Simonyan & Yang 2019, DARTS (arXiv 1806.09055); Choe et al. 2023, Betty (arXiv 2207.02849), which
reads it as implicit differentiation.
"""

from __future__ import annotations

from robpicker_jax.bilevel.adjoint import Point
from robpicker_jax.bilevel.hypergradients.finite_difference import central_difference, check_epsilon
from robpicker_jax.bilevel.implicit import after_inner_steps
from robpicker_jax.bilevel.problem import BilevelProblem, Estimator, Mean, Tree, no_mean


def build(problem: BilevelProblem, inner_steps: int = 1, *, epsilon: float = 0.01, mean: Mean = no_mean) -> Estimator:
    """Estimator by central differences at the updated parameters, without the inner learning rate.

    Args:
        problem: the bi-level problem.
        inner_steps: number K of inner steps.
        epsilon: Euclidean length of the shift of θ to either side.
        mean: average over devices, for use inside `shard_map` or `pmap`.
    """
    check_epsilon("darts", epsilon)

    def mixed_product(point: Point, v: Tree) -> Tree:
        return mean(central_difference(problem, point, v, epsilon, False)[1])

    return after_inner_steps(problem, inner_steps, mixed_product, mean)
