"""Optax optimisers and schedules from their configuration."""

from __future__ import annotations

from dataclasses import replace

import optax

from robpicker_jax.config import OptimizerConfig, TrainConfig

_FINE_TUNING = 0.1  # of the learning rate
_JUMP = 0.01  # of the peak rate: less is no jump


def learning_rate_schedule(
    config: OptimizerConfig, steps: int, fine_tune_steps: int = 0, *, updates_per_step: int = 1
) -> optax.Schedule:
    """Learning rate as a function of the update count: linear warm-up, then constant or by a cosine.

    The cosine ends, at `final_share` of the rate, at `steps`, or at `schedule_steps` where that is set; from there on
    the rate stays, or (`cosine_restarts`) the cosine begins anew. With `fine_tune_steps` that many updates follow at a
    tenth of the rate, constant or once more by a cosine.

    Args:
        config: the optimiser.
        steps: updates of the training.
        fine_tune_steps: updates of the fine-tuning.
        updates_per_step: updates in a training step, in which `schedule_steps` counts.
    """
    if fine_tune_steps:
        after = replace(config, learning_rate=_FINE_TUNING * config.learning_rate, warmup_steps=0, schedule_steps=None)
        main = learning_rate_schedule(config, steps, updates_per_step=updates_per_step)
        return optax.join_schedules([main, learning_rate_schedule(after, fine_tune_steps)], [steps])
    if config.schedule == "constant":
        if config.warmup_steps:
            return optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
        return optax.constant_schedule(config.learning_rate)
    span = steps if config.schedule_steps is None else config.schedule_steps * updates_per_step
    first = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(span, config.warmup_steps + 1),
        end_value=config.final_share * config.learning_rate,
    )
    if config.schedule == "cosine" or span >= steps:
        return first
    again = optax.cosine_decay_schedule(config.learning_rate, span, alpha=config.final_share)
    starts = list(range(span, steps, span))
    return optax.join_schedules([first, *[again] * len(starts)], starts)


def rate_jumps(former: TrainConfig, train: TrainConfig, step: int) -> list[str]:
    """One line for each learning rate, or weight with a schedule, that jumps at a step because its schedule is another now.

    Args:
        former: the section `train` by which the run came to this step.
        train: the one by which it goes on.
        step: the step.
    """
    lines = []
    for name in ("inner", *train.meta_networks):
        before, after = (float(schedule(step)) for schedule in (schedule_of(former, name), schedule_of(train, name)))
        optimizer = train.optimizer_of(name)
        if abs(after - before) > _JUMP * optimizer.learning_rate:
            key = f"train.{name}"
            lines.append(
                f"{key}: the learning rate jumps from {before:.3g} to {after:.3g} at step {step}, since its schedule has "
                f"changed (train.steps was {former.steps}, is {train.steps}); {key}.schedule_steps {former.steps} keeps "
                f"the former one and its last rate, with {key}.schedule cosine_restarts it begins anew"
            )
    weights = [class_entropy_schedule(former), class_entropy_schedule(train)]
    before, after = (0.0 if schedule is None else float(schedule(step)) for schedule in weights)
    if abs(after - before) > _JUMP * max(former.meta_class_entropy, train.meta_class_entropy):
        lines.append(
            f"train.meta_class_entropy: the weight jumps from {before:.3g} to {after:.3g} at step {step}, since it falls to "
            f"zero until the end of training (train.steps was {former.steps}, is {train.steps})"
        )
    return lines


def class_entropy_schedule(train: TrainConfig) -> optax.Schedule | None:
    """The weight of the cross-entropy by class in the correction's own loss as a function of the training step; None: none.

    It falls to zero until the last step by half a cosine.
    """
    weight = train.meta_class_entropy
    return optax.cosine_decay_schedule(weight, train.steps) if weight else None


def schedule_of(train: TrainConfig, name: str) -> optax.Schedule:
    """The learning rate of an optimiser ("inner" or a meta network's) as a function of the training step."""
    if name != "inner":
        return learning_rate_schedule(train.optimizer_of(name), train.steps)
    k = train.inner_steps
    rate = learning_rate_schedule(train.inner, train.main_steps * k, train.n_fine_tune_steps * k, updates_per_step=k)
    return lambda step: rate(step * k)


def build_optimizer(
    config: OptimizerConfig, steps: int, fine_tune_steps: int = 0, *, updates_per_step: int = 1
) -> optax.GradientTransformation:
    """The optimiser that a configuration names; `steps` and `fine_tune_steps` are the updates its schedule spans.

    For sgd (with momentum) and rmsprop and adam, weight decay is L2: `weight_decay · parameter` joins the gradient
    before everything else. For adamw and lion it is decoupled. `updates_per_step` is as for `learning_rate_schedule`.
    """
    rate = learning_rate_schedule(config, steps, fine_tune_steps, updates_per_step=updates_per_step)
    parts: list[optax.GradientTransformation] = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay and config.name in ("sgd", "adam", "rmsprop"):
        parts.append(optax.add_decayed_weights(config.weight_decay))
    match config.name:
        case "sgd":
            parts.append(optax.sgd(rate, momentum=config.momentum or None))
        case "adam":
            parts.append(optax.adam(rate, b1=config.momentum, b2=config.b2, eps_root=config.eps_root))
        case "adamw":
            parts.append(
                optax.adamw(
                    rate, b1=config.momentum, b2=config.b2, eps_root=config.eps_root, weight_decay=config.weight_decay
                )
            )
        case "rmsprop":
            parts.append(optax.rmsprop(rate, momentum=config.momentum or None, eps=1e-8, eps_in_sqrt=True))
        case "lion":
            parts.append(optax.lion(rate, b1=config.momentum, b2=0.99, weight_decay=config.weight_decay))
    return optax.chain(*parts)
