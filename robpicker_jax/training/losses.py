"""Losses of segmentation: soft Dice per channel, averaged over channels, one value a patch (the paper's eq. 15)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

SMOOTHING_VOX = 1.0
"""Added to numerator and denominator of each channel's Dice ratio, in voxels.

It makes a channel that is empty in label and prediction cost nothing, and keeps the gradient of a channel that is
empty in the label finite: predicting one stray voxel there costs 1/2, none costs 0.
"""


def dice(
    predicted: Float[Array, "n z y x c"], label: Float[Array, "n z y x c"], smoothing: float = SMOOTHING_VOX
) -> Float[Array, " n"]:
    """Soft Dice loss of each patch: mean over channels j of 1 − (2 Σ A_j B_j + s) / (Σ A_j + Σ B_j + s).

    Args:
        predicted: class probabilities.
        label: one-hot or soft label map.
        smoothing: s, in voxels.

    Returns:
        One loss in [0, 1] for each patch, computed in float32 at least.
    """
    wide = jnp.promote_types(predicted.dtype, jnp.float32)
    a, b = predicted.astype(wide), label.astype(wide)
    space = (1, 2, 3)
    overlap = jnp.sum(a * b, axis=space)
    size = jnp.sum(a, axis=space) + jnp.sum(b, axis=space)
    return jnp.mean(1.0 - (2.0 * overlap + smoothing) / (size + smoothing), axis=-1)
