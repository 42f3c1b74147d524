"""Losses of single voxels: weighted and focal cross-entropy, and the risk of learning from positive and unlabelled voxels.

With p_j the predicted probability of class j at a voxel and y_j its label, the cross-entropy of the voxel is
−Σ_j y_j ln p_j.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from robpicker_jax.training.losses.contract import LossValues

ClassWeights = Literal["none", "inverse_frequency"] | tuple[float, ...]
"""Weight of each class's voxels: all 1; the batch's voxels over classes times those of the class; or one number a class,
background first."""

_LEAST_PROBABILITY = 1e-6


def focal(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    gamma: float = 2.0,
    class_weights: ClassWeights = "none",
) -> LossValues:
    """Focal loss, the mean over voxels of −(1 − p)^γ ln p of the labelled class (Lin et al. 2017, arXiv 1708.02002).

    With γ = 0 it is cross-entropy.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        gamma: γ.
        class_weights: see `ClassWeights`.
    """
    per_class = cross_entropies(predicted, label, class_weights, gamma)
    return LossValues(jnp.sum(per_class, axis=-1), per_class)


def nnpu(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    found_share: float = 0.6,
    class_priors: tuple[float, ...] | None = None,
    class_weights: ClassWeights = "none",
) -> LossValues:
    """Non-negative risk of positive and unlabelled voxels, for several positive classes (Kiryo et al. 2017, arXiv 1703.00593).

    What is labelled as background is taken as unlabelled: some of it is particles that nobody annotated. With π_k the
    share of all voxels that class k truly has, and E_k the mean over voxels labelled k,

        R = Σ_k π_k E_k[−ln p_k] + max(0, E_all[−ln p_0] − Σ_k π_k E_k[−ln p_0]).

    The second term is the risk of the true background: that of all voxels as background, less the part of it that
    particles have. It is estimated over the whole batch, and cut off at zero, below which only overfitting leads. With
    π_k the labelled share itself (`found_share` 1) R is the cross-entropy.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        found_share: share of the particles that are annotated: π_k is the labelled share over this.
        class_priors: π_k of each species in patches, in place of that.
        class_weights: of the first term and of the second, see `ClassWeights`.
    """
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    y, logs = label.astype(wide), -_log(predicted.astype(wide))
    space = (1, 2, 3)
    volume = y[0, ..., 0].size
    shares = jnp.mean(y, axis=(0, *space))[1:]  # of the batch's voxels, by species
    if class_priors is None:
        factor = jnp.full_like(shares, 1.0 / found_share)
    else:
        factor = jnp.asarray(class_priors, wide) / jnp.maximum(shares, 1.0 / y[..., 0].size)
    weights = _weights(y, class_weights)
    positive = jnp.sum(y * logs, axis=space)[:, 1:] * (factor * weights[1:])[None] / volume
    background = (jnp.sum(logs[..., 0], axis=space) - jnp.sum(y[..., 1:] * logs[..., :1], axis=space) @ factor) / volume
    background = weights[0] * jnp.where(jnp.mean(background) > 0, background, 0.0)
    per_class = jnp.concatenate([background[:, None], positive], axis=1)
    return LossValues(jnp.sum(per_class, axis=-1), per_class)


def cross_entropies(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    class_weights: ClassWeights,
    gamma: float = 0.0,
) -> Float[Array, "n c"]:
    """Each class's part of the mean over voxels of −w (1 − p)^γ ln p."""
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    p, y = predicted.astype(wide), label.astype(wide)
    values = -y * _log(p)
    if gamma:
        values = values * jnp.power(1.0 - jnp.clip(p, _LEAST_PROBABILITY, 1.0) + _LEAST_PROBABILITY, gamma)
    return jnp.mean(values, axis=(1, 2, 3)) * _weights(y, class_weights)[None]


def _weights(label: Float[Array, "n z y x c"], class_weights: ClassWeights) -> Float[Array, " c"]:
    """Weights (c,). A class without a label in the batch counts as one voxel: its weight then multiplies nothing."""
    c = label.shape[-1]
    if class_weights == "none":
        return jnp.ones(c, label.dtype)
    if class_weights == "inverse_frequency":
        mass = jnp.sum(label, axis=(0, 1, 2, 3))
        return label[..., 0].size / (c * jnp.maximum(mass, 1.0))
    return jnp.asarray(class_weights, label.dtype)


def _log(p: Array) -> Array:
    return jnp.log(jnp.clip(p, _LEAST_PROBABILITY, 1.0))
