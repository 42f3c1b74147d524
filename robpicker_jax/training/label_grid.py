"""Labels at a network's own resolution, where that is coarser than the image's: a pyramid by maxima.

A particle that is labelled by one voxel must not vanish between the voxels of a coarser map, so the particles' channels
take the maximum over the voxels that a coarse one covers. What becomes of the background is a choice:

- "distribution": the background is what the particles leave, 1 − min(1, Σ_k y_k), and the voxel's entries are divided by
  their sum: a label that sums to one, which is then corrected.
- "channels": a corrected label is pooled channel by channel, the background as well, as the published RobPicker does. A
  coarse voxel that holds a particle's voxel then has a background near one too. Labels that nothing corrects are pooled
  as under "distribution".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from robpicker_jax.models.maxima import between, maximum_along
from robpicker_jax.models.scores import upsampled

Pooling = Literal["none", "distribution", "channels"]


class LabelGrid(NamedTuple):
    """Where labels are corrected and compared with predictions.

    Attributes:
        pooling: see above; "none": at the image's resolution.
        factor: edge, in voxels of the image, of a voxel of the network's output.
    """

    pooling: Pooling = "none"
    factor: int = 1

    def given(self, label: Array) -> Array:
        """A label map (n, z, y, x, c) of the image's resolution as the correction gets it."""
        return pooled_distribution(label, self.factor) if self.pooling == "distribution" else label

    def seen(self, values: Array) -> Array:
        """Features or probabilities of the network at the resolution of what the correction gets."""
        return upsampled(values, self.factor) if self.pooling == "channels" else values

    def density(self, image: Array) -> Array:
        """The image (n, z, y, x, 1) at that resolution: means over the voxels that a coarse one covers."""
        if self.pooling != "distribution":
            return image
        return jnp.mean(_blocks(image, self.factor), axis=(2, 4, 6))

    def target(self, label: Array, *, corrected: bool) -> Array:
        """What predictions are compared with, of a label map as the correction gets it or gives it."""
        if self.pooling != "channels":
            return label
        return pooled_channels(label, self.factor) if corrected else pooled_distribution(label, self.factor)


def pooled_distribution(label: Float[Array, "n z y x c"], factor: int) -> Float[Array, "n Z Y X c"]:
    """Label maps pooled so that they still sum to one; see the module."""
    if factor == 1:
        return label
    species = pooled_channels(label[..., 1:], factor)
    background = 1.0 - between(jnp.sum(species, axis=-1, keepdims=True), 0.0, 1.0)
    whole = jnp.concatenate([background, species], axis=-1)
    return whole / jnp.sum(whole, axis=-1, keepdims=True)


def pooled_channels(label: Float[Array, "n z y x c"], factor: int) -> Float[Array, "n Z Y X c"]:
    """The maximum of each channel over the voxels that a coarse one covers."""
    if factor == 1:
        return label
    blocks = _blocks(label, factor)
    for axis in (6, 4, 2):
        blocks = maximum_along(blocks, axis)
    return blocks


def _blocks(values: Array, factor: int) -> Array:
    n, z, y, x, channels = values.shape
    return values.reshape(n, z // factor, factor, y // factor, factor, x // factor, factor, channels)
