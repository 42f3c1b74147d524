"""DeePiCt's 3D U-Net (de Teresa-Trueba et al. 2023, Nature Methods 20:284): classes that need not exclude each other.

`depth` poolings; features double from level to level. A block is twice convolution, ReLU, batch norm, dropout; that at the
bottom has no batch norm. On the way up a transposed convolution, and the skip before its result. Each species has a sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge, Lt
from flax import linen as nn
from pydantic import PositiveInt

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.conv import max_pool3d
from robpicker_jax.models.layers import Conv, TransposedConv, wide_scores
from robpicker_jax.models.network import FlaxNetwork, check_unused
from robpicker_jax.models.norm import BatchNorm
from robpicker_jax.models.presets import UNetShape, convolutions, receptive_field
from robpicker_jax.models.scores import Head, with_background
from robpicker_jax.models.work import Convolution

Rate = Annotated[float, Ge(0), Lt(1)]
Preset = Literal["example", "default", "paper"]
"""Depth and initial features: those of the repository's example configuration, of its network's own defaults, and a network
of the 41 M parameters that the RobPicker paper states (no power of two gives them)."""
_PRESETS: dict[Preset, tuple[int, int]] = {"example": (2, 4), "default": (4, 16), "paper": (4, 43)}


class _Block(nn.Module):
    """Twice convolution, ReLU, batch norm (optional; or before the ReLU), dropout."""

    features: int
    batch_norm: bool
    norm_first: bool
    dropout: float
    dtype: Any
    device_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(2):
            x = Conv(self.features, 3, self.dtype, name=f"conv{i}")(x)
            x = x if self.norm_first else nn.relu(x)
            if self.batch_norm:
                x = BatchNorm(device_axis=self.device_axis, name=f"norm{i}")(x, train)
            x = nn.relu(x) if self.norm_first else x
            if self.dropout > 0:
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
        return x


class _DeePiCtModule(nn.Module):
    widths: tuple[int, ...]
    n_species: int
    batch_norm: bool
    norm_first: bool
    dropouts: tuple[float, float]
    dtype: Any
    remat: bool
    device_axis: str | None

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        kind = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block

        def block(x: jax.Array, level: int, name: str, dropout: float) -> jax.Array:
            norm = self.batch_norm and name != "bottom"
            made = kind(self.widths[level], norm, self.norm_first, dropout, self.dtype, self.device_axis, name=name)
            out: jax.Array = made(x, train)
            return out

        encoder, decoder = self.dropouts
        depth = len(self.widths) - 1
        x, skips = image.astype(self.dtype), []
        for level in range(depth):
            x = block(x, level, f"down{level}", encoder)
            skips.append(x)
            x = max_pool3d(x)
        x = block(x, depth, "bottom", encoder)
        for level in reversed(range(depth)):
            x = TransposedConv(self.widths[level], self.dtype, name=f"up{level}_upsample")(x)
            x = block(jnp.concatenate([skips[level], x], axis=-1), level, f"up{level}", decoder)
        scores = Conv(self.n_species, 1, self.dtype, name="classes")(x)
        return x, with_background(wide_scores(scores))


@dataclass(frozen=True)
class DeePiCt(FlaxNetwork):
    """DeePiCt's network as two pure functions; hashable. Its head is "sigmoid".

    Attributes:
        depth: poolings.
        initial_features: channels at full resolution.
        n_classes: c, background included; the network itself scores the c − 1 species.
        batch_norm: batch norm in all blocks but the one at the bottom.
        norm_first: batch norm before the ReLU, as in later states of the repository.
        dropouts: rates on the way down and on the way up.
    """

    depth: int
    initial_features: int
    n_classes: int
    batch_norm: bool = True
    norm_first: bool = False
    dropouts: tuple[float, float] = (0.0, 0.0)
    compute_dtype: str = "float32"
    remat: bool = False
    device_axis: str | None = None
    channels: int = 1

    @property
    def _shape(self) -> UNetShape:
        """What convolutions it has: those of a U-Net."""
        return UNetShape(self._widths, 2, 0, 2, 2, self.batch_norm, 0.0, "transposed")

    @property
    def _widths(self) -> tuple[int, ...]:
        return tuple(self.initial_features << level for level in range(self.depth + 1))

    @property
    def features(self) -> int:
        """Channels F of the last feature map."""
        return self.initial_features

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return 1 << self.depth

    @property
    def head(self) -> Head:
        """Each species for itself."""
        return "sigmoid"

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel can depend on, voxels."""
        return receptive_field(self._shape)

    @property
    def dropout(self) -> float:
        """The higher of both rates."""
        return max(self.dropouts)

    def _convolutions(self) -> Iterator[Convolution]:
        return convolutions(self._shape, self.n_classes - 1)

    def _module(self, *, dropout: bool) -> Any:
        return _DeePiCtModule(
            self._widths,
            self.n_classes - 1,
            self.batch_norm,
            self.norm_first,
            self.dropouts if dropout else (0.0, 0.0),
            jnp.dtype(self.compute_dtype),
            self.remat,
            self.device_axis,
        )


def build_deepict(
    model: ModelConfig,
    n_classes: int,
    *,
    device_axis: str | None = None,
    preset: Preset = "default",
    depth: PositiveInt | None = None,
    initial_features: PositiveInt | None = None,
    norm_first: bool = False,
    encoder_dropout: Rate = 0.0,
    decoder_dropout: Rate = 0.2,
) -> DeePiCt:
    """DeePiCt's network; `model.batch_norm: false` leaves batch norm out, `model.dropout` sets both rates of dropout.

    Args:
        model: the section `model`.
        n_classes: classes, background included.
        device_axis: see `BackboneBuilder`.
        preset: depth and initial features by name.
        depth: poolings, in place of the preset's.
        initial_features: channels at full resolution, in place of the preset's.
        norm_first: batch norm before the ReLU.
        encoder_dropout: rate of dropout after each convolution on the way down and at the bottom.
        decoder_dropout: rate on the way up.

    Raises:
        InputError: a field that this network does not have.
    """
    check_unused(model, ("batch_norm", "dropout"))
    levels, width = _PRESETS[preset]
    return DeePiCt(
        depth=levels if depth is None else depth,
        initial_features=width if initial_features is None else initial_features,
        n_classes=n_classes,
        batch_norm=model.batch_norm is not False,
        norm_first=norm_first,
        dropouts=(encoder_dropout, decoder_dropout) if model.dropout is None else (model.dropout, model.dropout),
        compute_dtype=model.compute_dtype,
        remat=model.remat,
        device_axis=device_axis,
    )
