"""Data reweighting (DR): the network R from a patch's losses to its weight in (0, 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config import ModelConfig

Inputs = Literal["loss", "classes", "composition", "presence"]


class _DataReweightingModule(nn.Module):
    hidden: int
    reach: float | None
    device_axis: str | None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        wide = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(wide))
        score = nn.Dense(1, kernel_init=nn.initializers.zeros, name="weight")(hidden)[..., 0]
        if self.reach is None:
            return nn.sigmoid(score)
        # What all patches of a batch have in common has no effect on normalised weights, and must not saturate the bound.
        mean = jnp.mean(score)
        if self.device_axis is not None:
            mean = jax.lax.pmean(mean, self.device_axis)
        return jnp.exp(math.log(self.reach) * jnp.tanh(score - mean))


@dataclass(frozen=True)
class DataReweighting:
    """`u = W2·relu(W1·x + b1) + b2`, 1 → hidden → 1, 1,501 parameters at the paper's 500 with one input.

    `w = r^tanh(u − ū)`, ū the mean over the batch, lies between 1/r and r; without r it is `sigmoid(u)`, the paper's. A
    sigmoid can put nearly all weight on the patches that the network fits already, and then a label that was corrected is
    never learnt, since its patch has a high loss. The last layer starts at zero: all weights are alike at first, whatever
    the seed, so that chance does not decide whether patches of large or of small loss are preferred.

    Attributes:
        hidden: width.
        inputs: what x is: "loss", the mean loss of the classes that the patch's label holds (the paper: its loss);
            "classes", the losses of these classes one by one, 0 for the others; "composition", those and which classes
            they are; "presence", only which classes these are.
        n_classes: c, background included.
        reach: r; None: the paper's sigmoid.
        device_axis: mapped axis of the devices that share a batch, inside `shard_map` or `pmap`; the mean is over all.
    """

    hidden: int = 500
    inputs: Inputs = "loss"
    n_classes: int = 1
    reach: float | None = None
    device_axis: str | None = None

    @property
    def _module(self) -> Any:
        return _DataReweightingModule(self.hidden, self.reach, self.device_axis)

    @property
    def _width(self) -> int:
        return {"loss": 1, "composition": 2 * self.n_classes}.get(self.inputs, self.n_classes)

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters; at first every weight is 1, with a sigmoid 1/2."""
        alone = _DataReweightingModule(self.hidden, self.reach, None)  # parameters are drawn outside of any mapped axis
        return alone.init(key, jnp.zeros((1, self._width)))["params"]

    def apply(self, params: Any, class_losses: jax.Array, present: jax.Array) -> jax.Array:
        """Weights (n,), float32.

        Args:
            params: parameters.
            class_losses: (n, c), the loss of each class of each patch.
            present: (n, c) bool, whether the patch's label holds the class. Losses of absent classes say how many
                species a patch lacks and nothing of its own quality, so they are left out.
        """
        losses = jnp.where(present, class_losses, 0.0)
        if self.inputs == "loss":
            inputs = jnp.sum(losses, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(present, -1, keepdims=True), 1)
        elif self.inputs == "classes":
            inputs = losses
        elif self.inputs == "presence":
            inputs = present.astype(losses.dtype)
        else:
            inputs = jnp.concatenate([losses, present.astype(losses.dtype)], axis=-1)
        weights: jax.Array = self._module.apply({"params": params}, inputs)
        return weights


def build_data_reweighting(
    model: ModelConfig, n_classes: int = 1, *, device_axis: str | None = None
) -> DataReweighting:
    """The data-reweighting network of a configuration with `n_classes` classes, background included."""
    return DataReweighting(
        model.reweighting_hidden, model.reweighting_inputs, n_classes, model.weight_reach, device_axis
    )
