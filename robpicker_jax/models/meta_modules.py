"""The published RobPicker's meta modules beside label correction: class weights, voxel weights, learned mixup.

Each is a pair of pure functions, `init` and `apply`, and is trained by the meta level as label correction and reweighting are
(`train.modules`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.models.conv import conv3d
from robpicker_jax.models.norm import normalise

MODULES = ("class_weights", "voxel_weights", "mixup")
"""The meta modules by name, as `train.modules` has them."""

_EPSILON = 1e-5


@dataclass(frozen=True)
class ClassWeights:
    """The weight of each class in the loss, as a parameter.

    "log": the parameters are the weights' logarithms, so that an optimiser that moves parameters by its learning rate moves a
    weight of 512 as far, in proportion, as one of 1. "raw": the weights themselves, as published; Adam with a learning rate of
    2e-4 then moves none of them by more than 0.15 in 1,500 updates.

    Attributes:
        initial: weights at the start, background first.
        form: see above.
    """

    initial: tuple[float, ...]
    form: Literal["log", "raw"] = "log"

    def init(self, key: jax.Array) -> Any:
        """The initial weights; nothing is drawn."""
        weights = jnp.asarray(self.initial, jnp.float32)
        return {"weights": weights if self.form == "raw" else jnp.log(weights)}

    def apply(self, params: Any) -> jax.Array:
        """Weights (c,)."""
        weights: jax.Array = params["weights"]
        return weights if self.form == "raw" else jnp.exp(weights)


class _VoxelWeightsModule(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, losses: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.hidden, name="first")(losses[..., None]))
        x = nn.relu(nn.Dense(self.hidden, name="second")(x))
        last = nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(2.0), name="weight")
        return nn.sigmoid(last(x)[..., 0])


@dataclass(frozen=True)
class VoxelWeights:
    """The weight of a voxel from its cross-entropy: 1 → hidden → hidden → 1, sigmoid; 321 parameters at a width of 16.

    The last layer starts at zero with a bias of 2, so that every voxel weighs 0.88 at first.
    """

    hidden: int = 16

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters."""
        return _VoxelWeightsModule(self.hidden).init(key, jnp.zeros(1))["params"]

    def apply(self, params: Any, losses: jax.Array) -> jax.Array:
        """Weights of voxels, of the shape of their losses."""
        return jnp.asarray(_VoxelWeightsModule(self.hidden).apply({"params": params}, losses))


@dataclass(frozen=True)
class MixupNetwork:
    """The coefficients of a mixture, voxel by voxel, from two patches and their labels.

    Two convolutions 3³ with batch norm and relu, one to a single channel, and a sigmoid; 10,897 parameters with three
    classes and a width of 16. Batch norm takes the statistics of the batch at hand.

    Attributes:
        n_classes: c, background included.
        hidden: width.
        device_axis: mapped axis of the devices that share a batch, inside `shard_map` or `pmap`.
    """

    n_classes: int
    hidden: int = 16
    device_axis: str | None = None

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters."""
        widths = (2 + 2 * self.n_classes, self.hidden, self.hidden, 1)
        draw = nn.initializers.he_normal(in_axis=(0, 1, 2, 3), out_axis=4)
        params: dict[str, Any] = {}
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            kernel = draw(jax.random.fold_in(key, layer), (3, 3, 3, inputs, outputs), jnp.float32)
            params[f"conv_{layer}"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
            if layer < 2:
                params[f"norm_{layer}"] = {"scale": jnp.ones(outputs), "bias": jnp.zeros(outputs)}
        return params

    def apply(self, params: Any, image: jax.Array, other: jax.Array, label: jax.Array, other_label: jax.Array) -> Any:
        """Coefficients (n, z, y, x, 1) of images (n, z, y, x, 1) and one-hot labels (n, z, y, x, c)."""
        x = jnp.concatenate([image, other, label, other_label], axis=-1)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        for layer in range(3):
            conv = params[f"conv_{layer}"]
            x = conv3d(x, conv["kernel"]) + conv["bias"].reshape(1, 1, 1, 1, -1)
            if layer < 2:
                norm = params[f"norm_{layer}"]
                epsilon = jnp.asarray(_EPSILON, x.dtype)
                x = nn.relu(normalise(x, norm["scale"], norm["bias"], epsilon, self.device_axis)[0])
        return nn.sigmoid(x)
