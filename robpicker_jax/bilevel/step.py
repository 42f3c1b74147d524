"""One training step as a pure function: state, inner batches, outer batch → state, metrics.

inner:  θ' = inner_optimizer(θ, ∇_θ L(θ, M))       (the paper's eq. 6; θ' is kept, there is no second pass)
outer:  M' = meta_optimizer(M, dF(θ'(M)) / dM)     (eq. 7–8), by a hypergradient method of choice
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from robpicker_jax.bilevel.hypergradients import hypergradient
from robpicker_jax.bilevel.problem import (
    BilevelProblem,
    Carry,
    Estimate,
    Estimator,
    LossAux,
    Mean,
    Tree,
    no_mean,
    run_inner_steps,
    take,
)
from robpicker_jax.system.errors import InputError


class TrainState(NamedTuple):
    """Everything that a step reads and writes; a checkpoint is exactly this.

    Attributes:
        step: number of steps done.
        params: parameters θ of the inner problem.
        network_state: the state s that the losses carry from step to step (running statistics, random keys).
        meta: meta parameters M by name; each name has an optimiser of its own.
        opt_state: state of the inner optimiser.
        meta_opt_state: state of each meta optimiser.
    """

    step: Int[Array, ""]
    params: Tree
    network_state: Tree
    meta: dict[str, Tree]
    opt_state: Tree
    meta_opt_state: dict[str, Tree]


class Metrics(NamedTuple):
    """What a step reports.

    Attributes:
        inner_loss: the inner loss of the last inner step, before its update.
        outer_loss: the outer loss at the updated parameters; NaN for a step without a meta level.
        hypergradient_norm: Euclidean norm of the hypergradient over all meta parameters; zero without a meta level.
        inner: what the inner loss returned beside its value, at the last inner step.
        outer: what the outer loss returned beside its value; None for a step without a meta level.
        direct: what the direct loss returned beside its value; None where there is none.
        finite: whether loss and new state are finite, where whoever made the step looks at that; None: nobody does.
    """

    inner_loss: Float[Array, ""]
    outer_loss: Float[Array, ""]
    hypergradient_norm: Float[Array, ""]
    inner: Tree
    outer: Tree
    direct: Tree = None
    finite: Bool[Array, ""] | None = None


Step = Callable[[TrainState, Tree, Tree], tuple[TrainState, Metrics]]
"""`(state, inner batches, outer batch) -> (state, metrics)`; inner batches have a leading axis of inner steps."""


DirectLoss = Callable[[Tree, Tree, Tree, Tree, jax.Array], tuple[jax.Array, Tree]]
"""`(params, meta, state, outer batch, steps done) -> (loss, aux)`, differentiated with respect to `meta` alone."""

Scale = Callable[[Tree, jax.Array], Tree]
"""`(hypergradient, step) -> hypergradient` of another size."""


def initial_state(
    params: Tree,
    network_state: Tree,
    meta: dict[str, Tree],
    inner_optimizer: optax.GradientTransformation,
    meta_optimizers: Mapping[str, optax.GradientTransformation],
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        network_state=network_state,
        meta=meta,
        opt_state=inner_optimizer.init(params),
        meta_opt_state={name: meta_optimizers[name].init(tree) for name, tree in meta.items()},
    )


def bilevel_step(
    problem: BilevelProblem,
    meta_optimizers: Mapping[str, optax.GradientTransformation],
    *,
    method: str = "unrolled",
    inner_steps: int = 1,
    direct_loss: DirectLoss | None = None,
    direct_weight: float = 1.0,
    scale: Scale | None = None,
    own_batches: bool = False,
    **options: Any,
) -> Step:
    """The bi-level step with a hypergradient method.

    Args:
        problem: inner and outer loss and the inner optimiser.
        meta_optimizers: an optimiser for each name in the state's `meta`.
        method: name of the hypergradient method.
        inner_steps: K; the leaves of the inner batches have a leading axis of this length.
        direct_loss: a further loss of the meta parameters at the updated parameters, which are data to it. It has a
            gradient of its own, added after `scale`, so that the two can be of one order of size.
        direct_weight: weight of the direct loss.
        scale: (hypergradient, step) → hypergradient, a change of size.
        own_batches: each name in `meta` has an outer batch of its own: of the rows of the outer batch the i-th name takes
            i, i + m, i + 2m, …, m the number of names. The inner steps are the same for all.
        options: further arguments of the method, and `check_update` of `hypergradient`.

    Raises:
        InputError: an unknown method or option, or a value that the method refuses.
    """
    estimate = hypergradient(method, problem, inner_steps=inner_steps, **options)
    mean: Mean = options.get("mean", no_mean)
    together = _with_own_batches(estimate) if own_batches else estimate

    def step(state: TrainState, inner_batches: Tree, outer_batch: Tree) -> tuple[TrainState, Metrics]:
        out = together(state.params, state.meta, state.network_state, state.opt_state, inner_batches, outer_batch)
        gradient = out.hypergradient if scale is None else scale(out.hypergradient, state.step)
        direct = None
        if direct_loss is not None:
            own, direct = _direct_gradient(direct_loss, out.params, state, out.state, outer_batch, mean)
            gradient = jax.tree.map(lambda h, g: h + direct_weight * g, gradient, own)
        meta, meta_opt_state = _update(meta_optimizers, gradient, state)
        new = TrainState(state.step + 1, out.params, out.state, meta, out.opt_state, meta_opt_state)
        return new, Metrics(out.inner_loss, out.outer_loss, optax.tree.norm(out.hypergradient), *out.aux, direct)

    return step


def _with_own_batches(estimate: Estimator) -> Estimator:
    """The estimator in which each name of `meta` has its own part of the outer batch."""

    def together(
        params: Tree, meta: dict[str, Tree], state: Tree, opt_state: Tree, inner_batches: Tree, outer_batch: Tree
    ) -> Estimate:
        names = list(meta)
        rows = jax.tree.leaves(outer_batch)[0].shape[0]
        if rows % len(names):
            raise InputError(
                f"an outer batch of {rows} rows for {len(names)} meta networks", fix="give each the same number"
            )

        parts = jax.tree.map(
            lambda leaf: jnp.stack([leaf[index :: len(names)] for index in range(len(names))]), outer_batch
        )
        # What does not depend on the outer batch, the inner steps, is computed once and stays without a leading axis.
        shared = Estimate(0, None, None, None, None, 0, LossAux(None, 0))  # type: ignore[arg-type]
        found = jax.vmap(lambda part: estimate(params, meta, state, opt_state, inner_batches, part), out_axes=shared)(
            parts
        )
        own = {name: take(found.hypergradient[name], index) for index, name in enumerate(names)}
        outer = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found.aux.outer)
        return found._replace(
            hypergradient=own, outer_loss=jnp.mean(found.outer_loss), aux=LossAux(found.aux.inner, outer)
        )

    return together


def direct_step(
    problem: BilevelProblem,
    meta_optimizers: Mapping[str, optax.GradientTransformation],
    direct_loss: DirectLoss,
    *,
    direct_weight: float = 1.0,
    inner_steps: int = 1,
    mean: Mean = no_mean,
) -> Step:
    """The step of `plain_step`, and then one of the meta parameters by the gradient of a direct loss alone."""
    plain = plain_step(problem, inner_steps=inner_steps, mean=mean)

    def step(state: TrainState, inner_batches: Tree, outer_batch: Tree) -> tuple[TrainState, Metrics]:
        after, metrics = plain(state, inner_batches, outer_batch)
        gradient, direct = _direct_gradient(direct_loss, after.params, state, after.network_state, outer_batch, mean)
        gradient = jax.tree.map(lambda g: direct_weight * g, gradient)
        meta, meta_opt_state = _update(meta_optimizers, gradient, state)
        return after._replace(meta=meta, meta_opt_state=meta_opt_state), metrics._replace(direct=direct)

    return step


def _direct_gradient(
    direct_loss: DirectLoss, params: Tree, before: TrainState, network_state: Tree, batch: Tree, mean: Mean
) -> tuple[Tree, Tree]:
    """∂/∂M of a loss at fixed parameters and the meta parameters before the step, and its aux."""
    params = jax.lax.stop_gradient(params)
    gradient, aux = jax.grad(lambda meta: direct_loss(params, meta, network_state, batch, before.step), has_aux=True)(
        before.meta
    )
    return mean(gradient), aux


def _update(
    optimizers: Mapping[str, optax.GradientTransformation], gradient: Tree, state: TrainState
) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """The meta parameters and their optimisers' states after one update."""
    meta, meta_opt_state = dict(state.meta), dict(state.meta_opt_state)
    for name in state.meta:
        updates, meta_opt_state[name] = optimizers[name].update(
            gradient[name], state.meta_opt_state[name], state.meta[name]
        )
        meta[name] = optax.apply_updates(state.meta[name], updates)
    return meta, meta_opt_state


def plain_step(problem: BilevelProblem, *, inner_steps: int = 1, mean: Mean = no_mean) -> Step:
    """The step without a meta level: K inner updates, the meta parameters as they are (supervised training, warm-up).

    The outer batch is ignored. `mean` averages over devices, for use inside `shard_map` or `pmap`.
    """

    def step(state: TrainState, inner_batches: Tree, outer_batch: Tree) -> tuple[TrainState, Metrics]:
        del outer_batch
        start = Carry(state.params, state.network_state, state.opt_state)
        end, loss, aux = run_inner_steps(problem, inner_steps, state.meta, start, inner_batches, mean)
        new = TrainState(state.step + 1, end.params, end.state, state.meta, end.opt_state, state.meta_opt_state)
        return new, Metrics(loss, jnp.full_like(loss, jnp.nan), jnp.zeros_like(loss), aux, None, None)

    return step
