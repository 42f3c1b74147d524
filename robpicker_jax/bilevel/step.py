"""One training step as a pure function: state, training batches, meta batch → state, metrics.

inner:  I' = inner_optimizer(I, ∇_I L_tr(I, M))            (eq. 6; I' is the new I, there is no second pass)
outer:  M' = meta_optimizer(M, dL_val(I'(M)) / dM)          (eq. 7–8), by a hypergradient method of choice
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from robpicker_jax.bilevel.hypergradients import hypergradient
from robpicker_jax.bilevel.problem import BilevelProblem, Carry, Mean, no_mean, run_inner_steps
from robpicker_jax.training.objective import Batch, InnerAux

Tree = Any


class TrainState(NamedTuple):
    """Everything that a step reads and writes; a checkpoint is exactly this.

    Attributes:
        step: steps done.
        params: the U-Net's parameters, I.
        network_state: batch-norm statistics and dropout key.
        meta: parameters of the meta networks in use, M: a subset of {"correction", "reweighting"}.
        opt_state: state of the inner optimiser.
        meta_opt_state: state of each meta network's optimiser.
    """

    step: Int[Array, ""]
    params: Tree
    network_state: Tree
    meta: dict[str, Tree]
    opt_state: Tree
    meta_opt_state: dict[str, Tree]


class Metrics(NamedTuple):
    """What a step reports; `inner` and `center_class` have one entry for each patch of the last inner step."""

    inner_loss: Float[Array, ""]
    outer_loss: Float[Array, ""]
    hypergradient_norm: Float[Array, ""]
    inner: InnerAux
    center_class: Int[Array, " n"]


Step = Callable[[TrainState, Batch, Batch], tuple[TrainState, Metrics]]


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
        meta_optimizers: an optimiser for each meta network.
        method: name of the hypergradient method.
        inner_steps: K; the leaves of the training batches have a leading axis of this length.
        options: further arguments of the method.
    """
    estimate = hypergradient(method, problem, inner_steps=inner_steps, **options)

    def step(state: TrainState, train: Batch, meta_batch: Batch) -> tuple[TrainState, Metrics]:
        out = estimate(state.params, state.meta, state.network_state, state.opt_state, train, meta_batch)
        meta, meta_opt_state = dict(state.meta), dict(state.meta_opt_state)
        for name in state.meta:
            updates, meta_opt_state[name] = meta_optimizers[name].update(
                out.hypergradient[name], state.meta_opt_state[name], state.meta[name]
            )
            meta[name] = optax.apply_updates(state.meta[name], updates)
        new = TrainState(state.step + 1, out.params, out.state, meta, out.opt_state, meta_opt_state)
        inner, _ = out.aux
        norm = optax.global_norm(out.hypergradient)
        return new, Metrics(out.inner_loss, out.outer_loss, norm, inner, train.center_class[-1])

    return step


def plain_step(problem: BilevelProblem, *, inner_steps: int = 1, mean: Mean = no_mean) -> Step:
    """The step without a meta level: K inner updates, meta networks as they are (supervised training, warm-up).

    The meta batch is ignored; the outer loss is reported as NaN. `mean` averages over devices, for use inside
    `shard_map` or `pmap`.
    """

    def step(state: TrainState, train: Batch, meta_batch: Batch) -> tuple[TrainState, Metrics]:
        del meta_batch
        start = Carry(state.params, state.network_state, state.opt_state)
        end, loss, aux = run_inner_steps(problem, inner_steps, state.meta, start, train, mean)
        new = TrainState(state.step + 1, end.params, end.state, state.meta, end.opt_state, state.meta_opt_state)
        nothing = jnp.zeros_like(loss)
        return new, Metrics(loss, jnp.full_like(loss, jnp.nan), nothing, aux, train.center_class[-1])

    return step
