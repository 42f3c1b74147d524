"""Whether a hypergradient can pass through an optimiser's update.

The hypergradient pulls v back through the derivative of the update by the gradient, ∂U/∂g. Single gradients of
exactly zero are ordinary (a dead unit, a bias before batch norm), and some optimisers have no finite derivative
there: Adam without `eps_root` takes the square root of the second moment, whose derivative at zero is infinite, and
0 · ∞ = NaN spreads to all meta parameters. Others (sign-based ones, such as Lion) have a derivative that is zero
everywhere: the hypergradient is zero, and no error says so. Both show when the derivative is evaluated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robpicker_jax.bilevel.problem import Tree
from robpicker_jax.system.errors import InputError

_UPDATES = 8
"""Updates tried before an update is said not to depend on the gradient: a warm-up starts with a learning rate of 0."""


def refuse_without_derivative(transformation: optax.GradientTransformation, params: Tree) -> None:
    """Refuse an optimiser whose update has no finite, non-zero derivative where gradients vanish.

    The derivative is evaluated: reverse mode through the first updates, at gradients whose every other entry is 0. An
    optimiser that changes nothing in these updates (it accumulates gradients over more of them) is accepted.

    Args:
        transformation: the optimiser.
        params: parameters of the inner problem; nothing is changed.

    Raises:
        InputError: with the reason.
    """
    ones = jax.tree.map(jnp.ones_like, params)
    for offset in (0, 1):
        if not _depends_on_gradient(transformation, params, _alternating(params, offset), ones):
            raise InputError(
                "its update does not change with the gradient (a sign-based rule?): the hypergradient would be zero",
                where="inner optimiser",
                fix="choose an optimiser with a smooth update, such as sgd or adam with eps_root > 0",
            )


def _depends_on_gradient(
    transformation: optax.GradientTransformation, params: Tree, gradient: Tree, cotangent: Tree
) -> bool:
    """Whether some update has a derivative that is not zero, or none of them changes anything yet."""
    opt_state = transformation.init(params)
    changes = False
    for _ in range(_UPDATES):

        def new_params(gradient: Tree, opt_state: Tree = opt_state) -> tuple[Tree, Tree]:
            updates, new_state = transformation.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), new_state

        after, transpose, opt_state = jax.vjp(new_params, gradient, has_aux=True)
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(transpose(cotangent))]
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            raise InputError(
                "its update has no finite derivative at a zero gradient (Adam without eps_root takes the square root "
                "of zero): the hypergradient would be NaN",
                where="inner optimiser",
                fix="set eps_root to a small positive number such as 1e-12, or choose another optimiser",
            )
        if any(leaf.any() for leaf in leaves):
            return True
        moved = jax.tree.map(lambda new, old: bool((np.asarray(new) != np.asarray(old)).any()), after, params)
        changes = changes or any(jax.tree.leaves(moved))
    return not changes


def _alternating(params: Tree, offset: int) -> Tree:
    """Gradients of 0, 1, 0, 1, … through all leaves, starting at `offset`."""
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])
    return jax.tree.unflatten(
        structure,
        [
            ((jnp.arange(leaf.size) + (end - leaf.size) + offset) % 2).reshape(leaf.shape).astype(leaf.dtype)
            for leaf, end in zip(leaves, ends, strict=True)
        ],
    )
