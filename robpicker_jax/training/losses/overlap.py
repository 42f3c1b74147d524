"""Losses of overlap that treat classes which a patch does not hold in other ways than `dice` does, and with a surface term.

With A the predicted probabilities of a class, B its label, sums over the voxels of a patch:
Dice ratio 2 Σ A B / (Σ A + Σ B), Tversky index Σ A B / (Σ A B + a Σ A (1 − B) + b Σ (1 − A) B).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from robpicker_jax.training.losses.contract import LossValues
from robpicker_jax.training.losses.dice import class_sums, dice
from robpicker_jax.training.losses.voxelwise import ClassWeights, cross_entropies, voxel_entropies

_TINY = 1e-3  # voxels: keeps ratios of empty sums finite without weighing on those of particles


def present_dice(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"], /, *, least_vox: float = 0.5
) -> LossValues:
    """Dice averaged over the classes that a patch's label holds; what it does not hold costs only through background.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        least_vox: mass of a class's label, in voxels, from which on it counts as present.
    """
    overlap, size_a, size_b = class_sums(predicted, label)
    per_class = 1.0 - (2.0 * overlap + _TINY) / (size_a + size_b + _TINY)
    present = size_b >= least_vox
    count = jnp.maximum(jnp.sum(present, axis=-1), 1)
    return LossValues(jnp.sum(jnp.where(present, per_class, 0.0), axis=-1) / count, per_class)


def batch_dice(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    smoothing_vox: float = _TINY,
    cross_entropy: float = 0.0,
    device_axis: str | None = None,
) -> LossValues:
    """Dice with sums over the whole batch, as DeepFinder has it, so that hardly a class is ever absent.

    1 − R_j of class j is shared out over the patches: patch i bears (size_ij / 2 − overlap_ij) / Σ_i (size_ij / 2) of
    it. The shares add up to the loss of the batch; their mean over patches is taken, so they are multiplied by n.

    Dice hardly moves a class whose probability is near zero wherever its label is: through softmax, its gradient there
    falls with that probability. A network that took one species for another then never learns to tell them apart. The
    cross-entropy of each class, −Σ y ln p over the mass Σ y of its label in the batch, keeps its gradient down to a
    probability of 1e-18, and counts a rare class as much as a common one, as Dice does. Traces that a soft label leaves
    of a class count as that class too, with all its weight where the batch holds nothing more of it.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: added to the sums of each class.
        cross_entropy: weight of that cross-entropy beside Dice; 0 leaves it out.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`; no option of a
            configuration.
    """
    overlap, size_a, size_b = class_sums(predicted, label)
    half, count = (size_a + size_b) / 2, predicted.shape[0]
    # A patch whose prediction is not finite has no finite loss; the others keep theirs, so that one sees which it was.
    total = jnp.sum(jnp.where(jnp.isfinite(half), half, 0.0), axis=0, keepdims=True)
    if device_axis is not None:
        total, count = lax.psum((total, count), device_axis)
    per_class = count * (half - overlap) / (total + smoothing_vox)
    if cross_entropy:
        per_class += cross_entropy * class_entropies(
            predicted, label, smoothing_vox=smoothing_vox, device_axis=device_axis
        )
    return LossValues(jnp.mean(per_class, axis=-1), per_class)


def class_entropies(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    smoothing_vox: float = _TINY,
    device_axis: str | None = None,
) -> Float[Array, "n c"]:
    """Each patch's share of the cross-entropy of each class, −Σ y ln p over the mass Σ y of its label in the batch, times n.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: added to the mass of each class.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`.
    """
    _, _, sizes = class_sums(predicted, label)
    mass, count = jnp.sum(sizes, axis=0, keepdims=True), predicted.shape[0]
    if device_axis is not None:
        mass, count = lax.psum((mass, count), device_axis)
    return count * jnp.sum(voxel_entropies(predicted, label), axis=(1, 2, 3)) / (mass + smoothing_vox)


def generalised_dice(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"], /, *, smoothing_vox: float = 1.0
) -> LossValues:
    """Generalised Dice: overlaps and sizes summed over classes, each weighted by 1 / (its label's mass)².

    Sudre et al. 2017 (arXiv 1707.03237). A class that a patch does not hold gets the weight of a class of one voxel
    times `smoothing_vox`, since its own would be infinite.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: added to each label's mass before it is squared.
    """
    overlap, size_a, size_b = class_sums(predicted, label)
    weight = 1.0 / jnp.square(size_b + smoothing_vox)
    ratio = 2.0 * jnp.sum(weight * overlap, axis=-1) / jnp.sum(weight * (size_a + size_b), axis=-1)
    per_class = 1.0 - (2.0 * overlap + _TINY) / (size_a + size_b + _TINY)
    return LossValues(1.0 - ratio, per_class)


def tversky(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    false_positive: float = 0.3,
    false_negative: float = 0.7,
    focus: float = 1.0,
    smoothing_vox: float = _TINY,
) -> LossValues:
    """Tversky loss per class, averaged over classes: (1 − index)^(1 / focus).

    Salehi et al. 2017 (arXiv 1706.05721); with `focus` above 1 the focal form of Abraham & Khan 2018
    (arXiv 1810.07842). Both weights at 0.5 give Dice.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        false_positive, false_negative: a and b, weights of voxels predicted in excess and of voxels missed.
        focus: exponent's inverse; above 1, classes that are nearly right count less.
        smoothing_vox: added to numerator and denominator.
    """
    overlap, size_a, size_b = class_sums(predicted, label)
    missed = false_positive * (size_a - overlap) + false_negative * (size_b - overlap)
    per_class = 1.0 - (overlap + smoothing_vox) / (overlap + missed + smoothing_vox)
    if focus != 1.0:
        # The root has no derivative at 0, which a class reaches that is absent and not predicted.
        per_class = jnp.power(per_class + 1e-6, 1.0 / focus)
    return LossValues(jnp.mean(per_class, axis=-1), per_class)


def dice_cross_entropy(
    predicted: Float[Array, "n z y x c"],
    label: Float[Array, "n z y x c"],
    /,
    *,
    smoothing_vox: float = _TINY,
    cross_entropy: float = 1.0,
    class_weights: ClassWeights = "none",
    device_axis: str | None = None,
) -> LossValues:
    """Dice plus a multiple of the mean cross-entropy of the voxels.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: as for `dice`.
        cross_entropy: weight of the cross-entropy.
        class_weights: of the cross-entropy, see `voxelwise.ClassWeights`.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`; no option of a
            configuration.
    """
    overlap = dice(predicted, label, smoothing_vox=smoothing_vox)
    entropy = cross_entropies(predicted, label, class_weights, device_axis=device_axis)
    per_class = overlap.per_class + cross_entropy * entropy * entropy.shape[-1]
    return LossValues(jnp.mean(per_class, axis=-1), per_class)
