"""Data reweighting (DR): the network R from a patch's loss to its weight in (0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config.schema import ModelConfig


class _DataReweightingModule(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, losses: jax.Array) -> jax.Array:
        wide = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(wide[..., None]))
        return nn.sigmoid(nn.Dense(1, name="weight")(hidden))[..., 0]


@dataclass(frozen=True)
class DataReweighting:
    """`w = sigmoid(W2·relu(W1·ℓ + b1) + b2)`: 1 → hidden → 1, 1,501 parameters at the paper's 500."""

    hidden: int = 500

    @property
    def _module(self) -> Any:
        return _DataReweightingModule(self.hidden)

    def init(self, key: jax.Array) -> Any:
        """Fresh float32 parameters; at first every weight is near 1/2."""
        return self._module.init(key, jnp.zeros((1,)))["params"]

    def apply(self, params: Any, losses: jax.Array) -> jax.Array:
        """Weights in (0, 1), float32, one for each loss; the shape of `losses` (any) is kept."""
        weights: jax.Array = self._module.apply({"params": params}, losses)
        return weights


def build_data_reweighting(model: ModelConfig) -> DataReweighting:
    """The data-reweighting network of a configuration."""
    return DataReweighting(model.reweighting_hidden)
