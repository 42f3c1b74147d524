"""Optax optimisers from their configuration."""

from __future__ import annotations

from dataclasses import replace

import optax

from robpicker_jax.config import OptimizerConfig

_FINE_TUNING = 0.1  # of the learning rate


def learning_rate_schedule(config: OptimizerConfig, steps: int, fine_tune_steps: int = 0) -> optax.Schedule:
    """Learning rate as a function of the update count: linear warm-up, then constant or cosine to zero at `steps`.

    With `fine_tune_steps` that many updates follow at a tenth of the rate, constant or once more by a cosine to zero.
    """
    if fine_tune_steps:
        after = replace(config, learning_rate=_FINE_TUNING * config.learning_rate, warmup_steps=0)
        parts = [learning_rate_schedule(config, steps), learning_rate_schedule(after, fine_tune_steps)]
        return optax.join_schedules(parts, [steps])
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if config.warmup_steps else config.learning_rate,
            peak_value=config.learning_rate,
            warmup_steps=config.warmup_steps,
            decay_steps=max(steps, config.warmup_steps + 1),
        )
    if config.warmup_steps:
        return optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.constant_schedule(config.learning_rate)


def build_optimizer(config: OptimizerConfig, steps: int, fine_tune_steps: int = 0) -> optax.GradientTransformation:
    """The optimiser that a configuration names; `steps` and `fine_tune_steps` are the updates its schedule spans.

    For sgd (with momentum) and rmsprop and adam, weight decay is L2: `weight_decay · parameter` joins the gradient
    before everything else. For adamw and lion it is decoupled.
    """
    rate = learning_rate_schedule(config, steps, fine_tune_steps)
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
