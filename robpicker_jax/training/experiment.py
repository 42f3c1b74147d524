"""From a configuration to the networks, the initial state and the compiled step functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from robpicker_jax import parallel
from robpicker_jax.bilevel import (
    BilevelProblem,
    Metrics,
    Scale,
    Step,
    TrainState,
    accumulated,
    bilevel_step,
    check_optimizer,
    configured_options,
    direct_step,
    initial_state,
    plain_step,
)
from robpicker_jax.config import (
    Config,
    EvaluationConfig,
    InferenceConfig,
    ModelConfig,
    ParallelConfig,
    PatchConfig,
    TrainConfig,
)
from robpicker_jax.evaluation.validation import VALIDATION_METRICS
from robpicker_jax.models import (
    Backbone,
    build_backbone,
    build_label_correction,
    check_edge,
)
from robpicker_jax.parallel.steps import check_method, jit_step, mean_over_devices, pmap_step
from robpicker_jax.system.compilation import jit
from robpicker_jax.system.registry import look_up
from robpicker_jax.training import objective
from robpicker_jax.training.corruption import CorruptionRates, corruption_rates
from robpicker_jax.training.freezing import check_frozen, with_frozen
from robpicker_jax.training.losses import LossValues, build_loss
from robpicker_jax.training.mixing import Mixup
from robpicker_jax.training.networks import build_networks, check_modules, of_labels
from robpicker_jax.training.not_finite import watched
from robpicker_jax.training.objective import Batch, InnerAux, Networks, NetworkState, robpicker_problem
from robpicker_jax.training.optimizers import build_optimizer, class_entropy_schedule, schedule_of
from robpicker_jax.training.own_loss import own_loss

# Optimisers whose update is known to have a derivative (the check of the configuration demands eps_root > 0); others
# are tried by `check_optimizer`.
_SMOOTH = ("sgd", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class Experiment:
    """All that training needs of a configuration.

    Attributes:
        config: the configuration.
        n_classes: species and background.
        networks: the networks as pure functions, at the image's resolution.
        compared: the same as losses see them, which may be at the network's own resolution.
        problem: inner and outer loss and inner optimiser.
        mesh: the devices.
        state: the initial state, on the devices.
        step: the compiled training step; its state argument is donated.
        warmup: the compiled step of the warm-up: labels and weights are left alone, the meta networks as they are.
        teach: the same, except that the label correction learns from corrupted meta labels; None: it has no such loss.
        fine_tune: the compiled step of the last stage, on meta patches alone; None: there is none.
    """

    config: Config
    n_classes: int
    networks: Networks
    compared: Networks
    problem: BilevelProblem
    mesh: Mesh
    state: TrainState
    step: Step
    warmup: Step
    teach: Step | None
    fine_tune: Step | None

    @cached_property
    def _correct(self) -> Callable[..., jax.Array]:
        """Compiled (state, image, label) → corrected label map."""

        def apply(state: TrainState, image: jax.Array, label: jax.Array) -> jax.Array:
            one_hot = jax.nn.one_hot(label, self.n_classes)
            batch_stats, average = state.network_state.batch_stats, state.network_state.average
            features, logits, _ = self.networks.segment(state.params, batch_stats, image, train=True)
            if self.config.model.correction == "ema":
                logits = self.networks.segment(average, batch_stats, image, train=True)[1]
            prediction = self.networks.probabilities(logits)
            return self.networks.correct(state.meta["correction"], features, prediction, one_hot, image).label

        return jit(apply)

    @cached_property
    def _clean_loss(self) -> Callable[..., LossValues]:
        """Compiled (parameters, network state, batch) → loss on clean labels."""
        return jit(objective.clean_loss(self.compared, build_loss(self.config.train)))

    def clean_loss(self, state: TrainState, batch: Batch) -> LossValues:
        """The loss of the segmentation network on clean labels, by patch and class, as NumPy arrays."""
        own = parallel.local(state)
        fetched: LossValues = jax.device_get(self._clean_loss(own.params, own.network_state, batch))
        return fetched

    @cached_property
    def _inner_aux(self) -> Callable[..., InnerAux]:
        """Compiled (state, batch) → what the inner loss tells beside its value."""
        train = self.config.train
        averaged = self.config.model.correction == "ema"
        loss = objective.inner_loss(self.compared, build_loss(train), weights=train.weights, average_proposes=averaged)

        def aux(state: TrainState, batch: Batch) -> InnerAux:
            return loss(state.params, state.meta, state.network_state, batch, state.params)[1][1]

        return jit(aux)

    def inner_aux(self, state: TrainState, batch: Batch) -> InnerAux:
        """Losses, weights and corrections of training patches (no leading axis of inner steps), for reports."""
        fetched: InnerAux = jax.device_get(self._inner_aux(parallel.local(state), batch))
        return fetched

    def corrected(self, state: TrainState, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Corrected label maps (n, z, y, x, c) of patches; the given ones where no correction was trained."""
        if "correction" not in state.meta:
            return np.asarray(jax.nn.one_hot(label, self.n_classes))
        return np.asarray(self._correct(parallel.local(state), image, label))


def build_experiment(config: Config, *, state: TrainState | None = None) -> Experiment:
    """Networks, optimisers, initial state and compiled steps of a configuration.

    Args:
        config: the configuration.
        state: an initial state in place of a fresh one, on the devices.

    Raises:
        InputError: an unknown name or option, patch or tile sizes that the backbone's stride does not divide, batches
            that the devices cannot share, an inner optimiser through which no hypergradient can pass.
    """
    train, devices, n_classes = config.train, config.parallel, len(config.data.species) + 1
    check_names(config.model, train, config.evaluation, n_classes)
    backbone = build_backbone(config.model, n_classes)
    _check_sizes(config.patches, config.inference, backbone)
    if "correction" in train.meta_networks:
        correction = build_label_correction(config.model, n_classes, backbone.features)
        check_edge(config.patches.size, correction.stride, where="patches.size")
    mesh = _mesh(train, devices)
    networks = build_networks(config.model, n_classes)[0]
    pmap = devices.form == "pmap"
    # The pmap form's networks average over devices, so they are of no use outside of its step.
    axis = parallel.DATA_AXIS if pmap else None
    trained, init = build_networks(config.model, n_classes, device_axis=axis, **of_labels(train))
    if not pmap:
        compared = trained
    else:
        compared, init = build_networks(config.model, n_classes, **of_labels(train))
    problem = _problem(trained, train, config.model, axis)
    meta_optimizers = {name: build_optimizer(train.optimizer_of(name), train.steps) for name in train.meta_networks}
    if state is None:
        # As one program: array by array it would be a hundred small ones to compile, at every start.
        averaged = _average_decay(train, config.model) > 0
        start = jax.jit(lambda: _fresh_state(init, problem, meta_optimizers, train, averaged=averaged))
        state = parallel.replicate(start(), mesh)
    check_frozen(state.params, train.frozen)
    problem = accumulated(problem, devices.micro_batches)
    rates = corruption_rates(train.corruption, config.data.species)
    step, warmup, teach = _steps(problem, trained, meta_optimizers, train, config.model, rates, pmap=pmap)
    fine_tune = _fine_tuning_step(problem, train, pmap=pmap) if train.n_fine_tune_steps else None
    if train.on_nan != "stop":
        look = partial(watched, keep_former=train.on_nan == "skip")
        step, warmup = look(step), look(warmup)
        teach, fine_tune = (None if one is None else look(one) for one in (teach, fine_tune))
    compiled = pmap_step if pmap else jit_step
    return Experiment(
        config=config,
        n_classes=n_classes,
        networks=networks,
        compared=compared,
        problem=problem,
        mesh=mesh,
        state=state,
        step=compiled(step, mesh),
        warmup=compiled(warmup, mesh),
        teach=None if teach is None else compiled(teach, mesh),
        fine_tune=None if fine_tune is None else compiled(fine_tune, mesh),
    )


def check_names(model: ModelConfig, train: TrainConfig, evaluation: EvaluationConfig, n_classes: int) -> None:
    """Refuse names and options that no registry knows: loss, backbone, hypergradient method, validation score.

    Registries can be extended from outside of the package, so this cannot happen when a configuration is read; it costs
    nothing, and may be done before the data are read.

    Raises:
        InputError: the first unknown name or option, with those that are known.
    """
    build_loss(train)
    check_modules(train, n_classes)
    build_backbone(model, n_classes)
    configured_options(train.hypergradient, train.hypergradient_options, key="train.hypergradient_options")
    look_up(VALIDATION_METRICS, evaluation.choose_by, key="evaluation.choose_by")


def _check_sizes(patches: PatchConfig, inference: InferenceConfig, backbone: Backbone) -> None:
    check_edge(patches.size, backbone.stride, where="patches.size")
    if inference.tile is not None:
        check_edge(inference.tile, backbone.stride, where="inference.tile")


def _mesh(train: TrainConfig, devices: ParallelConfig) -> Mesh:
    """The devices, which must be able to share the batches."""
    if devices.form == "pmap" and train.is_bilevel:
        check_method(train.hypergradient)
    mesh = parallel.data_mesh(devices.devices)
    parallel.check_batch("train.batch_size", train.batch_size, mesh, devices.micro_batches)
    if train.uses_meta_batches:
        parallel.check_batch("train.meta_batch_size", train.meta_rows, mesh, devices.micro_batches)
    return mesh


def _problem(networks: Networks, train: TrainConfig, model: ModelConfig, device_axis: str | None) -> BilevelProblem:
    """RobPicker's problem with the loss, the stops and the inner optimiser of a configuration."""
    optimizer = build_optimizer(
        train.inner,
        train.main_steps * train.inner_steps,
        train.n_fine_tune_steps * train.inner_steps,
        updates_per_step=train.inner_steps,
    )
    problem = robpicker_problem(
        networks,
        with_frozen(optimizer, train.frozen),
        build_loss(train, device_axis=device_axis),
        stop_gradient_label=train.stop_gradient_label,
        stop_gradient_weight=train.stop_gradient_weight,
        weights=train.weights,
        average_decay=_average_decay(train, model),
        average_proposes=model.correction == "ema",
        mixup=Mixup(0.0 if "mixup" in train.meta_networks else train.mixup, train.mixup_strength, train.mixup_meta),
        device_axis=device_axis,
    )
    if train.is_bilevel and train.inner.name not in _SMOOTH:
        check_optimizer(problem, {"w": jnp.ones(4)}, method=train.hypergradient)
    return problem


def _average_decay(train: TrainConfig, model: ModelConfig) -> float:
    """Decay of the averaged parameters; 0 where neither picking nor the correction uses them."""
    proposes = "correction" in train.meta_networks and model.correction == "ema"
    return train.average_decay or (model.ema_decay if proposes else 0.0)


def _fresh_state(
    init: Callable[[jax.Array], dict[str, Any]],
    problem: BilevelProblem,
    meta_optimizers: Mapping[str, optax.GradientTransformation],
    train: TrainConfig,
    *,
    averaged: bool,
) -> TrainState:
    """The state before the first step, drawn from the seed."""
    # XLA's own generator: the default one, unrolled for every parameter, costs more compile time than the step.
    fresh = init(jax.random.key(train.seed, impl="rbg"))
    return initial_state(
        fresh["backbone"],
        NetworkState(fresh["batch_stats"], jax.random.PRNGKey(train.seed), fresh["backbone"] if averaged else None),
        {name: fresh[name] for name in train.meta_networks},
        problem.inner_optimizer,
        meta_optimizers,
    )


def _steps(
    problem: BilevelProblem,
    networks: Networks,
    meta_optimizers: Mapping[str, optax.GradientTransformation],
    train: TrainConfig,
    model: ModelConfig,
    rates: CorruptionRates,
    *,
    pmap: bool,
) -> tuple[Step, Step, Step | None]:
    """The training step, and those of the two halves of the warm-up (see `Experiment`); not compiled."""
    averages: dict[str, Any] = {"mean": mean_over_devices} if pmap else {}
    axis = parallel.DATA_AXIS if pmap else None
    plain = plain_step(_untouched(problem), inner_steps=train.inner_steps, **averages)
    if not train.is_bilevel:
        return plain, plain, None
    teach = own = None
    if "correction" in train.meta_networks and (train.meta_lambda or train.meta_alpha):
        own = own_loss(
            networks,
            rates,
            build_loss(train, device_axis=axis),
            average_proposes=model.correction == "ema",
            own_head=model.correction in ("head", "network", "labels", "separate"),
            class_entropy=class_entropy_schedule(train),
            device_axis=axis,
        )
        if train.meta_alpha:
            teach = direct_step(
                _untouched(problem),
                meta_optimizers,
                own,
                direct_weight=train.meta_alpha,
                inner_steps=train.inner_steps,
                **averages,
            )
    options = configured_options(train.hypergradient, train.hypergradient_options, key="train.hypergradient_options")
    step = bilevel_step(
        problem,
        meta_optimizers,
        method=train.hypergradient,
        inner_steps=train.inner_steps,
        direct_loss=own if train.meta_lambda else None,
        direct_weight=train.meta_lambda,
        scale=_scale(train),
        own_batches=train.meta_batches == "own",
        check_update=False,  # the configuration and `_problem` have checked the optimiser
        **options,
        **averages,
    )
    return step, plain, teach


def _fine_tuning_step(problem: BilevelProblem, train: TrainConfig, *, pmap: bool) -> Step:
    """The plain step on the meta batch, which each of its inner steps takes; not compiled."""
    averages: dict[str, Any] = {"mean": mean_over_devices} if pmap else {}
    plain = plain_step(_untouched(problem), inner_steps=train.inner_steps, **averages)

    def step(state: TrainState, inner_batches: Any, outer_batch: Batch) -> tuple[TrainState, Metrics]:
        del inner_batches
        repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (train.inner_steps, *leaf.shape)), outer_batch)
        return plain(state, repeated, outer_batch)

    return step


def _untouched(problem: BilevelProblem) -> BilevelProblem:
    """The problem without meta networks: labels and weights as they are."""

    def inner_loss(params: Any, meta: Any, *rest: Any) -> Any:
        return problem.inner_loss(params, {}, *rest)

    return replace(problem, inner_loss=inner_loss)


def _scale(train: TrainConfig) -> Scale | None:
    """What `train.hypergradient_scale` makes of a hypergradient.

    The exact hypergradient carries the inner learning rate as a factor: with a schedule that falls to zero, meta
    learning fades while its optimiser remembers larger gradients. Its direction is the same without that factor.
    """
    if train.hypergradient_scale == "exact":
        return None
    if train.hypergradient_scale == "normalised":

        def normalised(hypergradient: Any, step: jax.Array) -> Any:
            return {name: _unit(tree) for name, tree in hypergradient.items()}

        return normalised
    rate = schedule_of(train, "inner")
    # A schedule that starts or ends at zero must not make the quotient infinite.
    least = 1e-3 * train.inner.learning_rate

    def over_rate(hypergradient: Any, step: jax.Array) -> Any:
        factor = 1.0 / jnp.maximum(rate(step), least)
        return jax.tree.map(lambda leaf: factor * leaf, hypergradient)

    return over_rate


def _unit(tree: Any) -> Any:
    norm = jnp.maximum(optax.tree.norm(tree), 1e-20)
    return jax.tree.map(lambda leaf: leaf / norm, tree)
