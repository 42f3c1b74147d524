"""How far the meta networks can move in a run: one that cannot move them should say so before hours of training.

An optimiser that divides a gradient by its own size (adam, adamw, rmsprop, lion) moves a parameter by at most the
learning rate at each update, so by Σ lr in all. For sgd the travel is Σ lr |h| / (1 − momentum); with gradients of a
mean Dice loss below one and the exact hypergradient, |h| is below the inner learning rate, which is a factor of it. The
correction's own loss does not pass through an inner step and has no such factor: its gradient is below its weight.
"""

from __future__ import annotations

from robpicker_jax.config import OptimizerConfig, TrainConfig
from robpicker_jax.training.optimizers import learning_rate_schedule

LEAST_TRAVEL = {"correction": 0.5, "reweighting": 0.05, "class_weights": 0.5, "voxel_weights": 0.2, "mixup": 0.2}
"""What moves less than this stays about as it was drawn.

Weights of the meta networks are of order 0.1 to 1. The reweighting network's score is a sum over hundreds of hidden units whose
weights start at zero and move together, so that a tenth of that turns it from one bound to the other.
"""

_OWN = ("correction", "reweighting")
_SAMPLES = 200


def meta_travel(train: TrainConfig) -> dict[str, float]:
    """An upper bound on how far each meta network's parameters can move in all, by name."""
    return {name: _travel(name, train) for name in train.meta_networks}


def travel_warnings(train: TrainConfig) -> list[str]:
    """One line for each meta network that cannot move, or not far enough to matter."""
    warmup = train.n_meta_warmup_steps
    if train.is_bilevel and warmup >= train.main_steps:
        of = f"of {train.main_steps} steps" + " before fine-tuning" * bool(train.n_fine_tune_steps)
        return [f"warning: the meta networks never start: meta_warmup_steps is {warmup} {of}"]
    untaught = {name: why for name in train.meta_networks if (why := _why_untaught(name, train))}
    return [f"warning: the {name} network learns nothing: {why}" for name, why in untaught.items()] + [
        f"warning: the {name} network can move by {travel:.2g} at most in this run, so it stays about as it was drawn; "
        f"raise train.{name if name in _OWN else 'module'}.learning_rate{_or_scale(name, train)}"
        for name, travel in meta_travel(train).items()
        if name not in untaught and travel < LEAST_TRAVEL[name]
    ]


def _why_untaught(name: str, train: TrainConfig) -> str:
    """Why no gradient reaches a meta network after the warm-up; empty where one does."""
    if train.hypergradient == "none" and not (name == "correction" and train.meta_lambda):
        own = ", and train.meta_lambda, the weight of its own loss, is 0" if name == "correction" else ""
        return f"train.hypergradient is none{own}"
    if name == "reweighting" and train.weights != "none" and train.batch_size == 1:
        return f"in a batch of one patch, a weight divided by the {train.weights} of all weights is always one"
    return ""


def _travel(name: str, train: TrainConfig) -> float:
    optimizer = train.optimizer_of(name)
    total = _sum(optimizer, train)
    if optimizer.name != "sgd":
        return total
    size = train.inner.learning_rate if train.hypergradient_scale == "exact" else 1.0
    if train.hypergradient == "none":
        size = 0.0
    own = train.meta_lambda if name == "correction" else 0.0
    return total * (size + own) / (1 - optimizer.momentum)


def _sum(optimizer: OptimizerConfig, train: TrainConfig) -> float:
    """Σ of the learning rate over the meta updates, from samples; the schedule is over all steps."""
    rate, count = learning_rate_schedule(optimizer, train.steps), max(0, train.main_steps - train.n_meta_warmup_steps)
    at = range(0, count, max(1, count // _SAMPLES))
    return count * sum(float(rate(index)) for index in at) / max(1, len(at))


def _or_scale(name: str, train: TrainConfig) -> str:
    """The other remedy, which only an optimiser feels whose steps are as long as its gradients."""
    scales = train.hypergradient_scale == "exact" and train.optimizer_of(name).name == "sgd"
    return ", or set train.hypergradient_scale: over_rate" if scales else ""
