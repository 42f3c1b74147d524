"""The label correction's own network: a small U-Net that reads a label map beside the density it was given for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from robpicker_jax.models.presets import UNetShape
from robpicker_jax.models.unet import UNet

_SQUASHED_FROM = (1.0, 4.0)  # densities beyond so many standard deviations are told apart no longer
_SCORE_REACH = 6.0  # scores are bounded, so that no voxel is too sure to learn from
_FIRST_SCORES = 0.1  # the last layer starts so small that the given label decides at first


@dataclass(frozen=True)
class CorrectionNetwork:
    """A U-Net from density, given label and the segmentation network's prediction to the right label's probabilities.

    `S = softmax(6·tanh((g(t, L, p) + a·L + b·p) / 6))`, g the U-Net, t the density as tanh(t) and tanh(t/4), L the given
    label, p the prediction. It starts by repeating L where a > b. The nearer b is to a, the less has to be learned before
    a sure prediction overrules the label.

    Features of the segmentation network are not enough: where noisy labels give two things one class, that network's last
    features come to hold the class alone, and what would tell the two apart is gone. A network of its own, taught by clean
    labels that were corrupted, still sees it in the density, and what sees L can learn that one class of it is often given
    in error.

    Batch norm takes the statistics of the batch at hand, always: there are no running ones to keep beside the parameters.
    Those of each patch alone would hide how dense a patch is as a whole, which may tell one class from another.

    Attributes:
        n_classes: c, background included.
        widths: channels at each resolution, as of the U-Net.
        label_score: a, the score that the given label starts with over all other classes.
        prediction_score: b, that of a class that is predicted for certain.
        device_axis: mapped axis of the devices that share a batch, inside `shard_map` or `pmap`.
    """

    n_classes: int
    widths: tuple[int, ...]
    label_score: float
    prediction_score: float
    device_axis: str | None = None

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return self._unet.stride

    @property
    def _unet(self) -> UNet:
        shape = UNetShape(self.widths, 1, 0, 1, 1, True, 0.0, "transposed")
        channels = len(_SQUASHED_FROM) + 2 * self.n_classes
        return UNet(shape, self.n_classes, device_axis=self.device_axis, channels=channels)

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters."""
        params, _ = self._unet.init(key)
        return params | {"classes": jax.tree.map(lambda leaf: _FIRST_SCORES * leaf, params["classes"])}

    def apply(self, params: Any, density: jax.Array, labels: jax.Array, prediction: jax.Array) -> jax.Array:
        """Class probabilities (n, z, y, x, c) of a density (n, z, y, x, 1) with label and prediction (n, z, y, x, c)."""
        squashed = [jnp.tanh(density / width) for width in _SQUASHED_FROM]
        seen = jnp.concatenate([*squashed, labels, prediction], axis=-1)
        unet = self._unet
        _, scores, _ = unet.apply(params, unet.fresh_statistics(), seen, True)
        trusting = scores + self.label_score * labels + self.prediction_score * prediction
        return jax.nn.softmax(_SCORE_REACH * jnp.tanh(trusting / _SCORE_REACH), axis=-1)
