"""One training step as a pure function: state, inner batches, outer batch → state, metrics.

inner:  θ' = inner_optimizer(θ, ∇_θ L(θ, M))       (the paper's eq. 6; θ' is kept, there is no second pass)
outer:  M' = meta_optimizer(M, dF(θ'(M)) / dM)     (eq. 7–8), by a hypergradient method of choice
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from robpicker_jax.bilevel.hypergradients import hypergradient
from robpicker_jax.bilevel.problem import BilevelProblem, Carry, Mean, Tree, no_mean, run_inner_steps


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
    """

    inner_loss: Float[Array, ""]
    outer_loss: Float[Array, ""]
    hypergradient_norm: Float[Array, ""]
    inner: Tree
    outer: Tree


Step = Callable[[TrainState, Tree, Tree], tuple[TrainState, Metrics]]
"""`(state, inner batches, outer batch) -> (state, metrics)`; inner batches have a leading axis of inner steps."""


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
    **options: Any,
) -> Step:
    """The bi-level step with a hypergradient method.

    Args:
        problem: inner and outer loss and the inner optimiser.
        meta_optimizers: an optimiser for each name in the state's `meta`.
        method: name of the hypergradient method.
        inner_steps: K; the leaves of the inner batches have a leading axis of this length.
        options: further arguments of the method.

    Raises:
        InputError: an unknown method or option, or a value that the method refuses.
    """
    estimate = hypergradient(method, problem, inner_steps=inner_steps, **options)

    def step(state: TrainState, inner_batches: Tree, outer_batch: Tree) -> tuple[TrainState, Metrics]:
        out = estimate(state.params, state.meta, state.network_state, state.opt_state, inner_batches, outer_batch)
        meta, meta_opt_state = dict(state.meta), dict(state.meta_opt_state)
        for name in state.meta:
            updates, meta_opt_state[name] = meta_optimizers[name].update(
                out.hypergradient[name], state.meta_opt_state[name], state.meta[name]
            )
            meta[name] = optax.apply_updates(state.meta[name], updates)
        new = TrainState(state.step + 1, out.params, out.state, meta, out.opt_state, meta_opt_state)
        return new, Metrics(out.inner_loss, out.outer_loss, optax.tree.norm(out.hypergradient), *out.aux)

    return step


def plain_step(problem: BilevelProblem, *, inner_steps: int = 1, mean: Mean = no_mean) -> Step:
    """The step without a meta level: K inner updates, the meta parameters as they are (supervised training, warm-up).

    The outer batch is ignored. `mean` averages over devices, for use inside `shard_map` or `pmap`.
    """

    def step(state: TrainState, inner_batches: Tree, outer_batch: Tree) -> tuple[TrainState, Metrics]:
        del outer_batch
        start = Carry(state.params, state.network_state, state.opt_state)
        end, loss, aux = run_inner_steps(problem, inner_steps, state.meta, start, inner_batches, mean)
        new = TrainState(state.step + 1, end.params, end.state, state.meta, end.opt_state, state.meta_opt_state)
        return new, Metrics(loss, jnp.full_like(loss, jnp.nan), jnp.zeros_like(loss), aux, None)

    return step
