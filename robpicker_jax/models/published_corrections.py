"""The published RobPicker's two label corrections: one that sees labels alone, and one with a backbone of its own.

Both have the interface of `LabelCorrection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.models.backbone import Backbone
from robpicker_jax.models.conv import conv3d
from robpicker_jax.models.label_correction import Corrected, at_grid_of
from robpicker_jax.models.norm import normalise

_EPSILON = 1e-5


@dataclass(frozen=True)
class LabelsOnlyCorrection:
    """`C(L) = α S + (1 − α) L`, `S = softmax(conv3(relu(conv3(L))))`, `α = sigmoid(a)` with one number a.

    It sees no density: it can learn how labels are wrong as a rule, not where. 2,612 parameters with three classes.

    Attributes:
        n_classes: c, background included.
        hidden: width between the two convolutions 3³.
        alpha_bias: a at the start; −2 is the published one (α = 0.119).
    """

    n_classes: int
    hidden: int = 16
    alpha_bias: float = -2.0
    stride: int = 1
    sees_labels_alone: bool = True

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters, by PyTorch's rule for convolutions (uniform within 1/√inputs)."""
        params: dict[str, Any] = {"alpha": jnp.float32(self.alpha_bias)}
        for layer, (inputs, outputs) in enumerate(((self.n_classes, self.hidden), (self.hidden, self.n_classes))):
            bound = (27 * inputs) ** -0.5
            of_kernel, of_bias = jax.random.split(jax.random.fold_in(key, layer))
            kernel = jax.random.uniform(of_kernel, (3, 3, 3, inputs, outputs), minval=-bound, maxval=bound)
            bias = jax.random.uniform(of_bias, (outputs,), minval=-bound, maxval=bound)
            params[f"conv_{layer}"] = {"kernel": kernel, "bias": bias}
        return params

    def apply(
        self, params: Any, features: jax.Array, prediction: jax.Array, labels: jax.Array, density: jax.Array
    ) -> Corrected:
        """As `LabelCorrection.apply`; features, prediction and density are not looked at."""
        labels = labels.astype(jnp.promote_types(labels.dtype, jnp.float32))
        hidden = nn.relu(_conv(params["conv_0"], labels))
        proposal = nn.softmax(_conv(params["conv_1"], hidden), axis=-1)
        alpha = nn.sigmoid(params["alpha"])
        corrected = alpha * proposal + (1.0 - alpha) * labels
        return Corrected(corrected, jnp.broadcast_to(alpha, (*labels.shape[:-1], 1)), proposal)


@dataclass(frozen=True)
class SeparateCorrection:
    """What a backbone of its own and the label say of each voxel; the given label has no part of the result by itself.

    Features of the backbone through a convolution 3³, beside the label through ones of 1³ and 3³, each with batch norm and
    relu, and one of 1³ to the classes; softmax. α is 1.

    Attributes:
        n_classes: c, background included.
        backbone: a network of the segmentation network's kind.
        hidden: width.
        device_axis: mapped axis of the devices that share a batch, inside `shard_map` or `pmap`.
    """

    n_classes: int
    backbone: Backbone
    hidden: int = 16
    device_axis: str | None = None
    sees_labels_alone: bool = False

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return self.backbone.stride

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters; those of the backbone are under "backbone"."""
        draw = nn.initializers.he_normal(in_axis=(0, 1, 2, 3), out_axis=4)
        layers = [
            (3, self.backbone.features, self.hidden),
            (1, self.hidden + self.n_classes, self.hidden),
            (3, self.hidden, self.hidden),
            (1, self.hidden, self.n_classes),
        ]
        params: dict[str, Any] = {"backbone": self.backbone.init(jax.random.fold_in(key, len(layers)))[0]}
        for layer, (edge, inputs, outputs) in enumerate(layers):
            kernel = draw(jax.random.fold_in(key, layer), (edge, edge, edge, inputs, outputs), jnp.float32)
            params[f"conv_{layer}"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
            if layer < len(layers) - 1:
                params[f"norm_{layer}"] = {"scale": jnp.ones(outputs), "bias": jnp.zeros(outputs)}
        return params

    def apply(
        self, params: Any, features: jax.Array, prediction: jax.Array, labels: jax.Array, density: jax.Array
    ) -> Corrected:
        """As `LabelCorrection.apply`; the segmentation network's features and prediction are not looked at."""
        # In training mode networks use the batch's own statistics; running ones are made and thrown away.
        statistics = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(self.backbone.init, jax.random.key(0))[1]
        )
        own: jax.Array = self.backbone.apply(params["backbone"], statistics, density, True)[0]
        labels = labels.astype(jnp.promote_types(labels.dtype, jnp.float32))
        x = self._layer(params, 0, at_grid_of(labels, own.astype(labels.dtype)))
        x = self._layer(params, 1, jnp.concatenate([x, labels], axis=-1))
        x = self._layer(params, 2, x)
        proposal = jnp.asarray(nn.softmax(_conv(params["conv_3"], x), axis=-1))
        return Corrected(proposal, jnp.ones((*labels.shape[:-1], 1), proposal.dtype), proposal)

    def _layer(self, params: Any, layer: int, x: jax.Array) -> jax.Array:
        norm, x = params[f"norm_{layer}"], _conv(params[f"conv_{layer}"], x)
        epsilon = jnp.asarray(_EPSILON, x.dtype)
        standard: jax.Array = normalise(x, norm["scale"], norm["bias"], epsilon, self.device_axis)[0]
        activated: jax.Array = jax.nn.relu(standard)
        return activated


def _conv(params: Any, x: jax.Array) -> jax.Array:
    kernel, bias = params["kernel"].astype(x.dtype), params["bias"].astype(x.dtype)
    return jnp.asarray(conv3d(x, kernel) + bias.reshape(1, 1, 1, 1, -1))
