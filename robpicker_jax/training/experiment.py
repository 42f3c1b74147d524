"""From a configuration to the networks, the initial state and the compiled step functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robpicker_jax import parallel
from robpicker_jax.bilevel.accumulation import accumulated
from robpicker_jax.bilevel.optimizer_check import check_optimizer
from robpicker_jax.bilevel.problem import BilevelProblem
from robpicker_jax.bilevel.step import Step, TrainState, bilevel_step, initial_state, plain_step
from robpicker_jax.config import Config, ModelConfig
from robpicker_jax.models import build_data_reweighting, build_label_correction, build_unet, stride
from robpicker_jax.system.compilation import jit
from robpicker_jax.system.errors import InputError
from robpicker_jax.training import objective
from robpicker_jax.training.objective import Batch, InnerAux, Networks, NetworkState
from robpicker_jax.training.optimizers import build_optimizer

META_NETWORKS = {
    "robpicker": ("correction", "reweighting"),
    "lc_only": ("correction",),
    "dr_only": ("reweighting",),
    "supervised": (),
}


# Optimisers whose update is known to have a derivative (the configuration sees to eps_root); others are probed.
_SMOOTH = ("sgd", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class Experiment:
    """All that training and inference need of a configuration.

    Attributes:
        config: the configuration.
        n_classes: species and background.
        networks: the three networks as pure functions.
        problem: inner and outer loss and inner optimiser.
        mesh: the devices.
        state: the initial state, on the devices.
        step: the compiled training step; its state argument is donated.
        warmup: the compiled step that leaves the meta networks as they are.
        predict: compiled (params, batch_stats, tiles (n, z, y, x, 1)) → probabilities (n, z, y, x, c).
    """

    config: Config
    n_classes: int
    networks: Networks
    problem: BilevelProblem
    mesh: Mesh
    state: TrainState
    step: Step
    warmup: Step
    predict: Callable[..., jax.Array]

    def inner_aux(self, state: TrainState, batch: Batch) -> InnerAux:
        """Losses, weights and corrections of training patches (no leading axis of inner steps), for reports."""
        loss = objective.inner_loss(self.networks)
        compiled = jit(lambda state, batch: loss(state.params, state.meta, state.network_state, batch)[1][1])
        return jax.device_get(compiled(parallel.local(state), batch))

    def corrected(self, state: TrainState, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Corrected label maps (n, z, y, x, c) of patches; the given ones where no correction was trained."""
        one_hot = jax.nn.one_hot(label, self.n_classes)
        if "correction" not in state.meta:
            return np.asarray(one_hot)

        def apply(state: TrainState, image: Any, one_hot: Any) -> Any:
            features, _, _ = self.networks.segment(state.params, state.network_state.batch_stats, image, train=True)
            return self.networks.correct(state.meta["correction"], features, one_hot)[0]

        return np.asarray(jit(apply)(parallel.local(state), image, one_hot))


def build_networks(
    model: ModelConfig, n_classes: int, *, device_axis: str | None = None
) -> tuple[Networks, Callable[[jax.Array], dict[str, Any]]]:
    """The three networks as pure functions, and a function key → their fresh parameters.

    The parameters are {"unet", "batch_stats", "correction", "reweighting"}. With `device_axis` the networks run inside
    `shard_map` on each device's share of a batch, with batch norm over all of it.
    """
    unet = replace(build_unet(model, n_classes), device_axis=device_axis)
    correction = build_label_correction(model, n_classes, unet.features, alpha_bias=model.alpha_bias)
    reweighting = build_data_reweighting(model)

    def init(key: jax.Array) -> dict[str, Any]:
        params, batch_stats = unet.init(jax.random.fold_in(key, 0))
        return {
            "unet": params,
            "batch_stats": batch_stats,
            "correction": correction.init(jax.random.fold_in(key, 1)),
            "reweighting": reweighting.init(jax.random.fold_in(key, 2)),
        }

    return Networks(unet.apply, correction.apply, reweighting.apply, dropout=unet.shape.dropout > 0), init


def build_experiment(config: Config, *, state: TrainState | None = None) -> Experiment:
    """Networks, optimisers, initial state and compiled steps of a configuration.

    Args:
        config: the configuration.
        state: an initial state in place of a fresh one, on the devices.

    Raises:
        InputError: patch or tile sizes that the U-Net cannot halve, batches the devices cannot share.
    """
    _check_sizes(config)
    train = config.train
    devices = config.parallel
    bilevel, pmap = train.variant != "supervised", devices.form == "pmap"
    if pmap and bilevel:
        parallel.check_method(train.hypergradient)
    mesh = parallel.data_mesh(devices.devices)
    parallel.check_batch("train.batch_size", train.batch_size, mesh, devices.micro_batches)
    if bilevel:
        meta_size = train.meta_batch_size or train.batch_size
        parallel.check_batch("train.meta_batch_size", meta_size, mesh, devices.micro_batches)

    n_classes = len(config.data.species) + 1
    networks, init = build_networks(config.model, n_classes)
    # The pmap form's networks average over devices; they are of no use outside of its step.
    trained = build_networks(config.model, n_classes, device_axis=parallel.DATA_AXIS)[0] if pmap else networks
    problem = BilevelProblem(
        inner_loss=objective.inner_loss(
            trained, stop_gradient_label=train.stop_gradient_label, stop_gradient_weight=train.stop_gradient_weight
        ),
        outer_loss=objective.outer_loss(trained),
        inner_optimizer=build_optimizer(train.inner, train.steps * train.inner_steps),
    )
    if train.variant != "supervised" and train.inner.name not in _SMOOTH:
        check_optimizer(problem, {"w": jnp.ones(4)}, method=train.hypergradient)
    meta_optimizers = {
        "correction": build_optimizer(train.correction, train.steps),
        "reweighting": build_optimizer(train.reweighting, train.steps),
    }

    def start() -> TrainState:
        # XLA's own generator: the default one, unrolled for every parameter, costs more compile time than the step.
        fresh = init(jax.random.key(train.seed, impl="rbg"))
        return initial_state(
            fresh["unet"],
            NetworkState(fresh["batch_stats"], jax.random.PRNGKey(train.seed)),
            {name: fresh[name] for name in META_NETWORKS[train.variant]},
            problem.inner_optimizer,
            meta_optimizers,
        )

    if state is None:
        # As one program: array by array it would be a hundred small ones to compile, at every start.
        state = parallel.replicate(jax.jit(start)(), mesh)
    problem = accumulated(problem, devices.micro_batches)
    compiled = parallel.pmap_step if pmap else parallel.jit_step
    averages = {"mean": parallel.mean_over_devices} if pmap else {}
    plain = plain_step(problem, inner_steps=train.inner_steps, **averages)
    step = plain
    if train.variant != "supervised":
        step = bilevel_step(
            problem, meta_optimizers, method=train.hypergradient, inner_steps=train.inner_steps, **averages
        )
    return Experiment(
        config=config,
        n_classes=n_classes,
        networks=networks,
        problem=problem,
        mesh=mesh,
        state=state,
        step=compiled(step, mesh),
        warmup=compiled(plain, mesh),
        predict=jit(_predict(networks)),
    )


def _check_sizes(config: Config) -> None:
    factor = stride(config.model)
    sizes = {"patches.size": config.patches.size}
    if config.inference.tile is not None:
        sizes["inference.tile"] = config.inference.tile
    for key, size in sizes.items():
        if size % factor:
            lower = size - size % factor
            fits = f"{lower} or {lower + factor}" if lower else str(factor)
            raise InputError(f"{key}: {size} is not divisible by the U-Net's stride {factor}", fix=f"use {fits}")


def _predict(networks: Networks) -> Callable[..., jax.Array]:
    def predict(params: Any, batch_stats: Any, tiles: Any) -> jax.Array:
        _, logits, _ = networks.segment(params, batch_stats, tiles, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)

    return predict
