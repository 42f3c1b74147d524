"""Refuse inner optimisers through whose update no hypergradient can pass; see `update_derivative` for the reasons."""

from __future__ import annotations

import optax

from robpicker_jax.bilevel.hypergradients import find_method
from robpicker_jax.bilevel.problem import BilevelProblem, Tree
from robpicker_jax.bilevel.update_derivative import refuse_without_derivative


def check_optimizer(
    optimizer: optax.GradientTransformation | BilevelProblem, params: Tree, *, method: str | None = None
) -> None:
    """Refuse an inner optimiser whose update has no finite, non-zero derivative where gradients vanish.

    The derivative is evaluated: reverse mode through the first updates, at gradients whose every other entry is 0.

    `hypergradient` does this by itself, at the first call of the estimator that it returns.

    Args:
        optimizer: the inner optimiser, or a problem with one.
        params: parameters of the inner problem; only shapes and values matter, nothing is changed.
        method: name of the hypergradient method; one that does not pass through the update accepts every optimiser.

    Raises:
        InputError: with the reason.
    """
    if method is not None and not find_method(method).differentiates_update:
        return
    transformation = optimizer.inner_optimizer if isinstance(optimizer, BilevelProblem) else optimizer
    refuse_without_derivative(transformation, params)
