"""Soft Dice loss per class, averaged over classes, for each patch (the paper's eq. 15)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from robpicker_jax.training.losses.contract import LossValues

SMOOTHING_VOX = 1.0
"""Default of `dice`'s smoothing."""


def dice(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"], /, *, smoothing_vox: float = SMOOTHING_VOX
) -> LossValues:
    """Soft Dice loss of each patch: the mean over classes j of 1 − (2 Σ A_j B_j + s) / (Σ A_j + Σ B_j + s).

    The smoothing s makes a class that is empty in label and prediction cost nothing, and keeps the gradient of a class
    that is empty in the label finite: with s = 1, predicting one stray voxel there costs 1/2, none costs 0.

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing_vox: s, added to numerator and denominator of each class's ratio, in voxels.

    Returns:
        Losses in [0, 1], computed in float32 at least.
    """
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    a, b = predicted.astype(wide), label.astype(wide)
    space = (1, 2, 3)
    overlap = jnp.sum(a * b, axis=space)
    size = jnp.sum(a, axis=space) + jnp.sum(b, axis=space)
    per_class = 1.0 - (2.0 * overlap + smoothing_vox) / (size + smoothing_vox)
    return LossValues(jnp.mean(per_class, axis=-1), per_class)
