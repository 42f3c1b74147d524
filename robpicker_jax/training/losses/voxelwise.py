"""Losses of single voxels: weighted and focal cross-entropy, and the risk of learning from positive and unlabelled voxels.

With p_j the predicted probability of class j at a voxel and y_j its label, the cross-entropy of the voxel is
−Σ_j y_j ln p_j.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from robpicker_jax.models.maxima import between
from robpicker_jax.training.losses.contract import LossValues

ClassWeights = Literal["none", "inverse_frequency"] | tuple[float, ...]
"""Weight of each class's voxels: all 1; the batch's voxels over classes times those of the class; or one number a class,
background first."""

_LEAST_PROBABILITY = 1e-6
_LEAST_FOR_ENTROPY = 1e-18


def focal(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    gamma: float = 2.0,
    class_weights: ClassWeights = "none",
    device_axis: str | None = None,
) -> LossValues:
    """Focal loss, the mean over voxels of −(1 − p)^γ ln p of the labelled class (Lin et al. 2017, arXiv 1708.02002).

    With γ = 0 it is cross-entropy.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        gamma: γ.
        class_weights: see `ClassWeights`.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`; no option of a
            configuration.
    """
    per_class = cross_entropies(predicted, label, class_weights, gamma, device_axis=device_axis)
    return LossValues(jnp.sum(per_class, axis=-1), per_class)


def cross_entropy(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    class_weights: ClassWeights = "none",
    device_axis: str | None = None,
) -> LossValues:
    """Cross-entropy, Σ_c w_c times the mean over voxels of −y_c ln p_c, to far smaller probabilities than `focal` goes.

    A voxel that the network is sure of and wrong keeps its gradient down to a probability of 1e-18.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map; it need not sum to one.
        class_weights: see `ClassWeights`.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`; no option of a
            configuration.
    """
    weights = _weights(label, class_weights, device_axis)
    per_class = jnp.mean(voxel_entropies(predicted, label), axis=(1, 2, 3)) * weights[None]
    return LossValues(jnp.sum(per_class, axis=-1), per_class)


def weighted_cross_entropy(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    class_weights: Float[Array, " c"],
    voxel_weight: Callable[[Float[Array, "n z y x"]], Float[Array, "n z y x"]] | None = None,
    seen: Float[Array, "n z y x c"] | None = None,
) -> LossValues:
    """Cross-entropy with weights of classes, and of voxels by their own loss, all of which may be learned.

    Args:
        predicted: class probabilities.
        label: label map.
        class_weights: weight of each class, background first.
        voxel_weight: from a voxel's cross-entropy without weights to its weight; None: 1.
        seen: the prediction whose cross-entropies these are, of the same values, where gradients must not follow it; None:
            `predicted`.
    """
    values = voxel_entropies(predicted, label)
    if voxel_weight is not None:
        looked_at = values if seen is None else voxel_entropies(seen, label)
        values = values * voxel_weight(jnp.sum(looked_at, axis=-1))[..., None]
    per_class = jnp.mean(values, axis=(1, 2, 3))
    return LossValues(per_class @ class_weights.astype(per_class.dtype), per_class)


def voxel_entropies(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"]
) -> Float[Array, "n z y x c"]:
    """−y ln p of each class at each voxel, float32 at least."""
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    # Its second derivative, 1/p², has to be finite.
    return -label.astype(wide) * jnp.log(between(predicted.astype(wide), _LEAST_FOR_ENTROPY, 1.0))


def nnpu(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    found_share: float = 0.6,
    class_priors: tuple[float, ...] | None = None,
    class_weights: ClassWeights = "none",
    device_axis: str | None = None,
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
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`; no option of a
            configuration.
    """
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    y, logs = label.astype(wide), -_log(predicted.astype(wide))
    space = (1, 2, 3)
    volume = y[0, ..., 0].size
    shares = _over_devices(jnp.mean(y, axis=(0, *space))[1:], device_axis)  # of the batch's voxels, by species
    count = y[..., 0].size if device_axis is None else lax.psum(y[..., 0].size, device_axis)
    if class_priors is None:
        factor = jnp.full_like(shares, 1.0 / found_share)
    else:
        factor = jnp.asarray(class_priors, wide) / jnp.maximum(shares, 1.0 / count)
    weights = _weights(y, class_weights, device_axis)
    positive = jnp.sum(y * logs, axis=space)[:, 1:] * (factor * weights[1:])[None] / volume
    background = (jnp.sum(logs[..., 0], axis=space) - jnp.sum(y[..., 1:] * logs[..., :1], axis=space) @ factor) / volume
    background = weights[0] * jnp.where(_over_devices(jnp.mean(background), device_axis) > 0, background, 0.0)
    per_class = jnp.concatenate([background[:, None], positive], axis=1)
    return LossValues(jnp.sum(per_class, axis=-1), per_class)


def cross_entropies(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    class_weights: ClassWeights,
    gamma: float = 0.0,
    device_axis: str | None = None,
) -> Float[Array, "n c"]:
    """Each class's part of the mean over voxels of −w (1 − p)^γ ln p."""
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    p, y = predicted.astype(wide), label.astype(wide)
    values = -y * _log(p)
    if gamma:
        values = values * jnp.power(1.0 - between(p, _LEAST_PROBABILITY, 1.0) + _LEAST_PROBABILITY, gamma)
    return jnp.mean(values, axis=(1, 2, 3)) * _weights(y, class_weights, device_axis)[None]


def _weights(
    label: Float[Array, "n z y x c"], class_weights: ClassWeights, device_axis: str | None = None
) -> Float[Array, " c"]:
    """Weights (c,). A class without a label in the batch counts as one voxel: its weight then multiplies nothing."""
    c = label.shape[-1]
    if class_weights == "none":
        return jnp.ones(c, label.dtype)
    if class_weights == "inverse_frequency":
        mass, count = jnp.sum(label, axis=(0, 1, 2, 3)), label[..., 0].size
        if device_axis is not None:
            mass, count = lax.psum((mass, count), device_axis)
        return count / (c * jnp.maximum(mass, 1.0))
    return jnp.asarray(class_weights, label.dtype)


def _over_devices(mean: Array, device_axis: str | None) -> Array:
    """The mean over the whole batch of a mean over a device's share."""
    return mean if device_axis is None else lax.pmean(mean, device_axis)


def _log(p: Array) -> Array:
    return jnp.log(between(p, _LEAST_PROBABILITY, 1.0))
