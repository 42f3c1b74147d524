"""Label correction (LC): the network C that repairs a noisy label map, guided by the U-Net's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config.schema import ModelConfig


class _LabelCorrectionModule(nn.Module):
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        wide = jnp.promote_types(features.dtype, jnp.float32)  # float32 at least, whatever the U-Net computes in
        labels = labels.astype(wide)
        scores = nn.Dense(self.n_classes, name="scores")(features.astype(wide))
        proposal = nn.softmax(scores, axis=-1)
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(jnp.concatenate([proposal, labels], axis=-1)))
        bias = nn.initializers.constant(self.alpha_bias)
        alpha = nn.sigmoid(nn.Dense(self.alpha_channels, bias_init=bias, name="alpha")(hidden))
        return alpha * proposal + (1.0 - alpha) * labels, alpha


@dataclass(frozen=True)
class LabelCorrection:
    """Label correction as two pure functions; a 1×1×1 convolution is a matrix product, so any leading axes do.

    `S = softmax(conv1(M))`, `α = sigmoid(conv1(relu(conv1([S, L]))))`, `C(L) = α·S + (1−α)·L` (eq. 14). With 64
    features, c = 13, a hidden width of c and α of width c it has (64·13+13) + (26·13+13) + (13·13+13) = 1,378
    parameters, the paper's count.

    Attributes:
        features: channels of the U-Net's last feature map M.
        n_classes: c, background included.
        hidden: width between the two convolutions that give α.
        alpha_channels: width of α, c or 1. With c, the corrected label need not sum to one.
        alpha_bias: initial bias of α's logits; 0 starts at α ≈ 1/2, -2 at α ≈ 0.12 (the label is trusted first).
    """

    features: int
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float = 0.0

    @property
    def _module(self) -> Any:
        return _LabelCorrectionModule(self.n_classes, self.hidden, self.alpha_channels, self.alpha_bias)

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters."""
        return self._module.init(key, jnp.zeros((1, self.features)), jnp.zeros((1, self.n_classes)))["params"]

    def apply(self, params: Any, features: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Corrected label map and α.

        Args:
            params: parameters.
            features: `(..., F)`, the U-Net's last feature map M.
            labels: `(..., c)`, the noisy one-hot label map L.

        Returns:
            Corrected labels `(..., c)` and α `(..., c)` or `(..., 1)`, float32.
        """
        corrected, alpha = self._module.apply({"params": params}, features, labels)
        return corrected, alpha


def build_label_correction(
    model: ModelConfig, n_classes: int, features: int, *, alpha_bias: float = 0.0
) -> LabelCorrection:
    """The label-correction network of a configuration, for a U-Net with `features` channels in its last map."""
    return LabelCorrection(
        features=features,
        n_classes=n_classes,
        hidden=model.correction_hidden or n_classes,
        alpha_channels=n_classes if model.alpha_channels == "classes" else 1,
        alpha_bias=alpha_bias,
    )
