"""A bi-level problem as pure functions, and the inner step that every hypergradient method shares.

Inner problem (what is trained):       θ_{t+1} = U(∇_θ L(θ_t, M, s_t, b_t), o_t, θ_t),  t = 0 … K−1
Outer problem (what the meta learns):  min_M F(θ_K(M), s_K, B)

θ are the parameters, M the meta parameters, s the state (running statistics), o the optimiser's state, U one update of
any optax optimiser; L and F are the inner and outer loss, b_t and B their batches.

The state s is carried from step to step but not differentiated: every method treats it as data. For batch norm this
loses nothing, because the losses use batch statistics. A loss that reads a state which depends on θ (an averaged copy
of the parameters, say) has that path left out by all methods alike.

Paths that the inner gradient must not follow can be cut in two ways. `jax.lax.stop_gradient`
inside the inner loss cuts them for the hypergradient as well: for K = 1 that is right as long as what is stopped
depends on θ alone, but for more steps the effect of earlier steps on a stopped value is lost, and finite
differences, which know of no stops, converge to something else. With `inner_loss_uses_frozen` the loss takes θ
twice, as `params` and as `frozen`; the inner gradient is taken over `params` alone, the hypergradient follows both,
and every exact method is the true derivative for every K. XLA merges what the two forward passes have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax

from robpicker_jax.system.errors import InputError

Tree = Any
"""A pytree of arrays."""

InnerLoss = Callable[..., tuple[jax.Array, tuple[Tree, Tree]]]
OuterLoss = Callable[..., tuple[jax.Array, Tree]]
Mean = Callable[[Tree], Tree]
"""Turns what one device computed from its share of a batch into the mean over the devices."""


@dataclass(frozen=True)
class BilevelProblem:
    """Inner loss, outer loss and inner optimiser of a bi-level problem.

    Attributes:
        inner_loss: `(params, meta, state, batch) -> (loss, (new state, aux))`, loss a scalar; with
            `inner_loss_uses_frozen` `(params, meta, state, batch, frozen) -> (loss, (new state, aux))`.
        outer_loss: `(params, state, batch) -> (loss, aux)`; with `outer_loss_uses_meta`
            `(params, meta, state, batch) -> (loss, aux)`.
        inner_optimizer: any optax optimiser; see `check_optimizer` for those a hypergradient cannot pass through.
        outer_loss_uses_meta: whether the outer loss depends on the meta parameters by itself too.
        inner_loss_uses_frozen: whether the inner loss takes the parameters a second time, for the paths that the inner
            gradient must not follow.
    """

    inner_loss: InnerLoss
    outer_loss: OuterLoss
    inner_optimizer: optax.GradientTransformation
    outer_loss_uses_meta: bool = False
    inner_loss_uses_frozen: bool = False

    def inner(
        self, params: Tree, meta: Tree, state: Tree, batch: Tree, frozen: Tree
    ) -> tuple[jax.Array, tuple[Tree, Tree]]:
        """Inner loss, new state and aux; `frozen` has the value of `params` but is not what ∇_θ L is taken over."""
        if self.inner_loss_uses_frozen:
            return self.inner_loss(params, meta, state, batch, frozen)
        return self.inner_loss(params, meta, state, batch)

    def outer(self, params: Tree, meta: Tree, state: Tree, batch: Tree) -> tuple[jax.Array, Tree]:
        """Outer loss and its aux, whether or not the outer loss takes `meta`."""
        if self.outer_loss_uses_meta:
            return self.outer_loss(params, meta, state, batch)
        return self.outer_loss(params, state, batch)


class LossAux(NamedTuple):
    """What the two losses returned beside their values: `inner` of the last inner step, `outer` of the outer loss."""

    inner: Tree
    outer: Tree


class Estimate(NamedTuple):
    """Result of K inner steps and one hypergradient.

    `hypergradient` has the structure of `meta`; `params`, `state`, `opt_state` are those after the K inner steps (there
    is no second pass); `inner_loss` is that of the last inner step, before its update; `outer_loss` is that at
    `params`.
    """

    hypergradient: Tree
    params: Tree
    state: Tree
    opt_state: Tree
    inner_loss: jax.Array
    outer_loss: jax.Array
    aux: LossAux


Estimator = Callable[[Tree, Tree, Tree, Tree, Tree, Tree], Estimate]
"""`(params, meta, state, opt_state, inner_batches, outer_batch) -> Estimate`."""


class Carry(NamedTuple):
    """What one inner step hands to the next."""

    params: Tree
    state: Tree
    opt_state: Tree


class StepRecord(NamedTuple):
    """What one inner step saw, beside its carry: the loss, the aux and the gradient ∇_θ L."""

    loss: jax.Array
    aux: Tree
    gradient: Tree


def no_mean(tree: Tree) -> Tree:
    """The mean over one device: the identity."""
    return tree


def update(problem: BilevelProblem, gradient: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
    """The optimiser's update U: `(∇_θ L, o, θ) -> (new θ, new o)`."""
    updates, opt_state = problem.inner_optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def inner_step(
    problem: BilevelProblem, meta: Tree, carry: Carry, batch: Tree, mean: Mean = no_mean
) -> tuple[Carry, StepRecord]:
    """One inner step; `mean` averages the loss and its gradient over devices, outside of any differentiation."""
    params, state, opt_state = carry
    (loss, (new_state, aux)), gradient = jax.value_and_grad(problem.inner, has_aux=True)(
        params, meta, state, batch, params
    )
    loss, gradient = mean((loss, gradient))
    new_params, new_opt_state = update(problem, gradient, opt_state, params)
    return Carry(new_params, jax.lax.stop_gradient(new_state), new_opt_state), StepRecord(loss, aux, gradient)


class OuterGradient(NamedTuple):
    """Outer loss at the updated parameters, its aux, v = ∇_θ F, and ∂F/∂M (zeros where F does not take M)."""

    loss: jax.Array
    aux: Tree
    params: Tree
    meta: Tree


def outer_gradient(
    problem: BilevelProblem, meta: Tree, carry: Carry, batch: Tree, mean: Mean = no_mean
) -> OuterGradient:
    """Value and first derivatives of the outer loss."""
    if problem.outer_loss_uses_meta:
        (loss, aux), gradients = jax.value_and_grad(problem.outer, argnums=(0, 1), has_aux=True)(
            carry.params, meta, carry.state, batch
        )
        loss, (params, direct) = mean((loss, gradients))
        return OuterGradient(loss, aux, params, direct)
    (loss, aux), gradient = jax.value_and_grad(problem.outer, has_aux=True)(carry.params, meta, carry.state, batch)
    loss, params = mean((loss, gradient))
    return OuterGradient(loss, aux, params, jax.tree.map(jax.numpy.zeros_like, meta))


def run_inner_steps(
    problem: BilevelProblem, inner_steps: int, meta: Tree, carry: Carry, batches: Tree, mean: Mean = no_mean
) -> tuple[Carry, jax.Array, Tree]:
    """The carry after `inner_steps` inner steps, and the loss and aux of the last one."""
    if inner_steps == 1:
        carry, record = inner_step(problem, meta, carry, take(batches, 0), mean)
        return carry, record.loss, record.aux

    def body(carry: Carry, batch: Tree) -> tuple[Carry, tuple[jax.Array, Tree]]:
        carry, record = inner_step(problem, meta, carry, batch, mean)
        return carry, (record.loss, record.aux)

    carry, records = jax.lax.scan(body, carry, batches)
    loss, aux = take(records, -1)
    return carry, loss, aux


def take(batches: Tree, index: int) -> Tree:
    """Batch number `index` of batches stacked along a leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], batches)


def check_batches(batches: Tree, inner_steps: int) -> None:
    """Raise InputError unless every leaf of `batches` has a leading axis of length `inner_steps`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batches):
        shape = jax.numpy.shape(leaf)
        if not shape or shape[0] != inner_steps:
            raise InputError(
                f"leaf {jax.tree_util.keystr(path) or '(the batch)'} has shape {shape}, not a leading axis of "
                f"{inner_steps} inner steps",
                where="inner_batches",
                fix="stack one batch for each inner step along a new first axis",
            )
