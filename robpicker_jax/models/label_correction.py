"""Label correction (LC): the network C that repairs a noisy label map with what the segmentation network predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config import ModelConfig

_HIDDEN = 16  # with as few units as classes, all of them may be born dead


class _LabelCorrectionModule(nn.Module):
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float
    alpha_reach: float
    own_head: bool

    @nn.compact
    def __call__(self, features: jax.Array, prediction: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        wide = jnp.promote_types(features.dtype, jnp.float32)  # float32 at least, whatever the backbone computes in
        labels, proposal = labels.astype(wide), prediction.astype(wide)
        if self.own_head:
            proposal = nn.softmax(nn.Dense(self.n_classes, name="scores")(features.astype(wide)), axis=-1)
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(jnp.concatenate([proposal, labels], axis=-1)))
        change = nn.Dense(self.alpha_channels, kernel_init=nn.initializers.zeros, name="alpha")(hidden)
        alpha = nn.sigmoid(self.alpha_bias + self.alpha_reach * jnp.tanh(change / self.alpha_reach))
        corrected = alpha * proposal + (1.0 - alpha) * labels
        if self.alpha_channels > 1:
            # With one α a class the mixture need not sum to one; a label map has to.
            corrected = corrected / jnp.maximum(jnp.sum(corrected, axis=-1, keepdims=True), 1e-6)
        return corrected, alpha


@dataclass(frozen=True)
class LabelCorrection:
    """Label correction as two pure functions; a 1×1×1 convolution is a matrix product, so any leading axes do.

    `α = sigmoid(a₀ + r tanh(conv1(relu(conv1([S, L]))) / r))`, `C(L) = α·S + (1−α)·L` (the paper's eq. 14, where a₀ is
    the last convolution's bias and r is infinite). S is what the correction proposes:

    - `own_head` false: the segmentation network's own prediction, which the caller gives (and stops);
    - `own_head` true: `S = softmax(conv1(M))` of its last feature map M, as in the paper. With 64 features, c = 13, a
      hidden width of c and α of width c it has (64·13+13) + (26·13+13) + (13·13+13) = 1,378 parameters, the paper's
      count.

    The last convolution starts at zero, so that every voxel's α starts at sigmoid(a₀): a small α does no harm before S
    is any good. Its logit moves by r at most, so α cannot sink to where it has no gradient to come back.

    Attributes:
        features: channels of the segmentation network's last feature map M.
        n_classes: c, background included.
        hidden: width between the two convolutions that give α.
        alpha_channels: width of α, c or 1. With c, the corrected label is divided by its sum over classes.
        alpha_bias: a₀; 0 starts at α = 1/2, -3 at α ≈ 0.05 (the label is trusted first).
        alpha_reach: r.
        own_head: whether S is a head of its own.
    """

    features: int
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float = 0.0
    alpha_reach: float = 8.0
    own_head: bool = False

    @property
    def _module(self) -> Any:
        return _LabelCorrectionModule(
            self.n_classes, self.hidden, self.alpha_channels, self.alpha_bias, self.alpha_reach, self.own_head
        )

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters."""
        classes = jnp.zeros((1, self.n_classes))
        return self._module.init(key, jnp.zeros((1, self.features)), classes, classes)["params"]

    def apply(
        self, params: Any, features: jax.Array, prediction: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Corrected label map and α.

        Args:
            params: parameters.
            features: `(..., F)`, the segmentation network's last feature map M; used by a head of its own.
            prediction: `(..., c)`, class probabilities that are the proposal S otherwise.
            labels: `(..., c)`, the noisy one-hot label map L.

        Returns:
            Corrected labels `(..., c)`, which sum to one over classes, and α `(..., c)` or `(..., 1)`, float32.
        """
        corrected, alpha = self._module.apply({"params": params}, features, prediction, labels)
        return corrected, alpha


def build_label_correction(model: ModelConfig, n_classes: int, features: int) -> LabelCorrection:
    """The label-correction network of a configuration, for a backbone with `features` channels in its last map."""
    return LabelCorrection(
        features=features,
        n_classes=n_classes,
        hidden=model.correction_hidden or (n_classes if model.correction == "head" else _HIDDEN),
        alpha_channels=n_classes if model.alpha_channels == "classes" else 1,
        alpha_bias=model.alpha_bias,
        alpha_reach=model.alpha_reach,
        own_head=model.correction == "head",
    )
