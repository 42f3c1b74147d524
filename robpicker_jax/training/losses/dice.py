"""Soft Dice loss per class, averaged over classes, for each patch (the paper's eq. 15)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from robpicker_jax.training.losses.contract import LossValues

SMOOTHING_VOX = 1e-3
"""Default of `dice`'s smoothing."""


def dice(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"], /, *, smoothing_vox: float = SMOOTHING_VOX
) -> LossValues:
    """Soft Dice loss of each patch: the mean over classes j of 1 − (2 Σ A_j B_j + s) / (Σ A_j + Σ B_j + s).

    The smoothing s decides what a class costs that a patch does not hold: s / (Σ A_j + s) is lost for each trace of it,
    with a gradient of s / (Σ A_j + s)² at every voxel. With s of a voxel or more, rare species, which most patches do
    not hold, are pushed to zero and stay there; with s far below a voxel, an absent class costs a constant. With s = 0
    it is the paper's literal formula, whose constant is 1.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: s, added to numerator and denominator of each class's ratio, in voxels.

    Returns:
        Losses in [0, 1], computed in float32 at least.
    """
    overlap, size_a, size_b = class_sums(predicted, label)
    per_class = 1.0 - (2.0 * overlap + smoothing_vox) / (size_a + size_b + smoothing_vox)
    return LossValues(jnp.mean(per_class, axis=-1), per_class)


def class_sums(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"]
) -> tuple[Float[Array, "n c"], Float[Array, "n c"], Float[Array, "n c"]]:
    """Σ A B, Σ A and Σ B over the voxels of each patch, in float32 at least."""
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    a, b = predicted.astype(wide), label.astype(wide)
    space = (1, 2, 3)
    return jnp.sum(a * b, axis=space), jnp.sum(a, axis=space), jnp.sum(b, axis=space)
