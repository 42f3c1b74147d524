"""Label correction (LC): the network C that repairs a noisy label map with what the segmentation network predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.models.correction_network import CorrectionNetwork
from robpicker_jax.models.scores import upsampled

_LEAK = 0.1  # slope of the leaky relu below zero


class Corrected(NamedTuple):
    """What label correction makes of label maps.

    Attributes:
        label: the corrected label map (..., c), which sums to one over classes.
        alpha: how much of the proposal it holds, (..., c) or (..., 1).
        proposal: S (..., c).
    """

    label: jax.Array
    alpha: jax.Array
    proposal: jax.Array


class _LabelCorrectionModule(nn.Module):
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float
    alpha_reach: float
    own_head: bool

    @nn.compact
    def __call__(self, features: jax.Array, prediction: jax.Array, labels: jax.Array) -> Corrected:
        wide = jnp.promote_types(features.dtype, jnp.float32)  # float32 at least, whatever the backbone computes in
        labels, proposal = labels.astype(wide), prediction.astype(wide)
        if self.own_head:
            proposal = nn.softmax(nn.Dense(self.n_classes, name="scores")(features.astype(wide)), axis=-1)
        hidden = nn.leaky_relu(
            nn.Dense(self.hidden, name="hidden")(jnp.concatenate([proposal, labels], axis=-1)), _LEAK
        )
        change = nn.Dense(self.alpha_channels, kernel_init=nn.initializers.zeros, name="alpha")(hidden)
        alpha = nn.sigmoid(self.alpha_bias + self.alpha_reach * jnp.tanh(change / self.alpha_reach))
        corrected = alpha * proposal + (1.0 - alpha) * labels
        if self.alpha_channels > 1:
            # With one α a class the mixture need not sum to one; a label map has to.
            corrected = corrected / jnp.maximum(jnp.sum(corrected, axis=-1, keepdims=True), 1e-6)
        return Corrected(corrected, alpha, proposal)


@dataclass(frozen=True)
class LabelCorrection:
    """Label correction as two pure functions; a 1×1×1 convolution is a matrix product.

    `α = sigmoid(a₀ + r tanh(conv1(ϕ(conv1([S, L]))) / r))`, `C(L) = α·S + (1−α)·L`: the paper's eq. 14, where a₀ is the
    last convolution's bias, r is infinite and ϕ is relu. ϕ is a leaky relu here, since a dead unit never comes back.
    S is what the correction proposes:

    - the segmentation network's own prediction, which the caller gives (and stops), or that of its averaged parameters;
    - `own_head`: `S = softmax(conv1(M))` of its last feature map M, as in the paper. With 64 features, c = 13, a hidden
      width of c and α of width c it has (64·13+13) + (26·13+13) + (13·13+13) = 1,378 parameters, the paper's count;
    - `network`: what a network of its own makes of the density, the given label and the prediction.

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
        network: the network that gives S; None: none.
        sees_labels_alone: whether nothing but the labels enters.
    """

    features: int
    n_classes: int
    hidden: int
    alpha_channels: int
    alpha_bias: float = 0.0
    alpha_reach: float = 8.0
    own_head: bool = False
    network: CorrectionNetwork | None = None
    sees_labels_alone: bool = False

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return 1 if self.network is None else self.network.stride

    @property
    def _module(self) -> Any:
        return _LabelCorrectionModule(
            self.n_classes, self.hidden, self.alpha_channels, self.alpha_bias, self.alpha_reach, self.own_head
        )

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters; those of a network of its own are under "network"."""
        here = (1, 1, 1, 1)
        classes = jnp.zeros((*here, self.n_classes))
        params = self._module.init(key, jnp.zeros((*here, self.features)), classes, classes)["params"]
        if self.network is None:
            return params
        return params | {"network": self.network.init(jax.random.fold_in(key, 1))}

    def apply(
        self, params: Any, features: jax.Array, prediction: jax.Array, labels: jax.Array, density: jax.Array
    ) -> Corrected:
        """Corrected label map, α and the proposal.

        Args:
            params: parameters.
            features: `(n, z, y, x, F)`, the segmentation network's last feature map M; used by a head of its own.
            prediction: `(n, z, y, x, c)`, class probabilities that are the proposal S otherwise.
            labels: the noisy one-hot label map L, of the same shape.
            density: `(n, z, y, x, 1)`, normalised, of this or a finer grid; used by a network of its own.

        Returns:
            Corrected labels, α and S, float32.
        """
        if self.network is not None:
            params = dict(params)
            density = at_grid_of(labels, density)
            prediction = self.network.apply(params.pop("network"), density, labels, prediction)
        corrected: Corrected = self._module.apply({"params": params}, features, prediction, labels)
        return corrected


def at_grid_of(labels: jax.Array, values: jax.Array) -> jax.Array:
    """Values (n, z, y, x, k) at the grid of labels: means over voxels that one of the labels covers, or interpolated."""
    edge, wanted = values.shape[1], labels.shape[1]
    if edge < wanted:
        return upsampled(values, wanted // edge)
    if edge == wanted:
        return values
    n, z, y, x, channels = values.shape
    factor = edge // wanted
    blocks = values.reshape(n, z // factor, factor, y // factor, factor, x // factor, factor, channels)
    return jnp.mean(blocks, axis=(2, 4, 6))
