"""From a backbone's class scores to class probabilities at every voxel of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from robpicker_jax.models.maxima import maximum_along

if TYPE_CHECKING:
    from robpicker_jax.models.backbone import Backbone

Head = Literal["softmax", "sigmoid"]
"""How class scores become probabilities: classes that exclude each other, or each class for itself."""


def class_probabilities(scores: jax.Array, head: Head = "softmax") -> jax.Array:
    """Class probabilities of scores `(..., c)`, float32 at least.

    "sigmoid": p_k = σ(s_k) for each class. A network with such a head gives the background the score −max_k s_k, so
    that p_0 = 1 − max_k p_k, and the most probable class of a voxel is a species where its probability is above 1/2.
    """
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    return jax.nn.sigmoid(wide) if head == "sigmoid" else jax.nn.softmax(wide, axis=-1)


def with_background(scores: jax.Array) -> jax.Array:
    """Scores `(..., c)` of background and species, for a "sigmoid" head, from those of the species `(..., c − 1)`."""
    return jnp.concatenate([-maximum_along(scores, -1)[..., None], scores], axis=-1)


def upsampled(values: jax.Array, factor: int) -> jax.Array:
    """Trilinear interpolation of `(n, z, y, x, C)` to a grid that is `factor` times finer, in the same type.

    Voxels are cubes: the centre of a coarse voxel lies in the middle of the `factor`³ fine ones that it covers. Beyond the
    outermost centres the value of the outermost voxel holds.
    """
    if factor == 1:
        return values
    n, *edges, channels = values.shape
    fine: jax.Array = jax.image.resize(values, (n, *[factor * edge for edge in edges], channels), "trilinear")
    return fine


class FullResolution:
    """A backbone's `apply` with features and class scores at every voxel of the image, whatever its `output_stride`."""

    def __init__(self, backbone: Backbone) -> None:
        """Wrap `backbone`."""
        self.backbone = backbone

    def __call__(self, *args: Any, **options: Any) -> tuple[jax.Array, jax.Array, Any]:
        """As `Backbone.apply`; features and scores are interpolated where the network gives them on a coarser grid."""
        features, scores, batch_stats = self.backbone.apply(*args, **options)
        factor = self.backbone.output_stride
        return upsampled(features, factor), upsampled(scores, factor), batch_stats
