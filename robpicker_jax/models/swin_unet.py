"""A U-Net whose encoder is made of windowed attention, after Swin UNETR (Hatamizadeh et al. 2022, arXiv 2201.01266).

Blocks of 2³ voxels are the first tokens; 2³ tokens merge into one from stage to stage. Each stage has blocks of attention
within windows that are shifted in every second one. The decoder is convolutional: a transposed convolution, the stage's
tokens as the skip, and two 3×3×3 convolutions with group norm and ReLU; at full resolution the skip is convolutional as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from pydantic import PositiveInt

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.conv import blocks_as_channels
from robpicker_jax.models.layers import Conv, GroupNorm, TransposedConv, wide_scores
from robpicker_jax.models.network import FlaxNetwork, check_unused
from robpicker_jax.models.window_attention import LayerNorm, Linear, WindowBlock
from robpicker_jax.models.work import Convolution
from robpicker_jax.system.errors import InputError

_SIZES: dict[str, tuple[int, ...]] = {"small": (24, 48, 96), "medium": (48, 96, 192), "large": (96, 192, 384)}
_HEAD = 12  # channels of an attention head


class _ConvBlock(nn.Module):
    """`count` times a 3×3×3 convolution, group norm and ReLU."""

    features: int
    count: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.count):
            x = Conv(self.features, 3, self.dtype, bias=False, name=f"conv{i}")(x)
            x = nn.relu(GroupNorm(name=f"norm{i}")(x))
        return x


class _SwinModule(nn.Module):
    widths: tuple[int, ...]
    blocks: int
    window: int
    n_classes: int
    dropout: float
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        attention = nn.remat(WindowBlock) if self.remat else WindowBlock
        convolutions = nn.remat(_ConvBlock) if self.remat else _ConvBlock
        stem = convolutions(self.widths[0], 1, self.dtype, name="stem")(image)
        x, skips = image, []
        for stage, width in enumerate(self.widths):
            x = blocks_as_channels(x)
            if stage > 0:
                x = LayerNorm(name=f"merge{stage}_norm")(x)
            x = Linear(width, self.dtype, bias=stage == 0, name=f"merge{stage}")(x)
            for i in range(self.blocks):
                heads = max(width // _HEAD, 1)
                x = attention(heads, self.window, i % 2 == 1, self.dtype, name=f"stage{stage}_{i}")(x)
            skips.append(LayerNorm(name=f"stage{stage}_norm")(x))
        x = skips.pop()
        if self.dropout > 0:
            x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        pairs = list(zip([stem, *skips], (self.widths[0], *self.widths[:-1]), strict=True))
        for level, (skip, width) in reversed(list(enumerate(pairs))):
            x = TransposedConv(width, self.dtype, name=f"up{level}_upsample")(x)
            x = convolutions(width, 2, self.dtype, name=f"up{level}")(jnp.concatenate([skip, x], axis=-1))
        return x, wide_scores(Conv(self.n_classes, 1, self.dtype, name="classes")(x))


@dataclass(frozen=True)
class SwinUNet(FlaxNetwork):
    """A U-Net with an encoder of windowed attention as two pure functions; hashable.

    Attributes:
        widths: channels of the stages, at 1/2, 1/4, … of the resolution; a head has 12 of them.
        blocks: blocks of attention in each stage; every second one has shifted windows.
        window: edge of a window, tokens.
        n_classes: c, background included.
        dropout: rate at the bottom.
    """

    widths: tuple[int, ...]
    blocks: int
    window: int
    n_classes: int
    dropout: float = 0.0
    compute_dtype: str = "float32"
    remat: bool = False
    device_axis: str | None = None
    channels: int = 1

    @property
    def features(self) -> int:
        """Channels F of the last feature map."""
        return self.widths[0]

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this: the coarsest tokens then fill whole windows."""
        return self.window << len(self.widths)

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel depends on, but for the statistics of group norm."""
        span = 1
        for _ in self.widths:
            span = (span + 4) // 2 + 1
        for _ in self.widths:
            for _ in range(self.blocks):  # the windows that a span of tokens can touch
                span = self.window * ((span + self.window - 2) // self.window + 1)
            span *= 2
        return span

    def _convolutions(self) -> Iterator[Convolution]:
        """Its layers as convolutions; attention reads all tokens of a window twice."""
        channels = self.channels
        yield Convolution(27, channels, self.widths[0], 0)
        for stage, width in enumerate(self.widths, 1):
            yield Convolution(8, channels, width, stage)
            for _ in range(self.blocks):
                yield Convolution(1, width, 3 * width, stage)
                yield Convolution(self.window**3, width, 2, stage)
                yield Convolution(1, width, width, stage)
                yield Convolution(1, width, 4 * width, stage)
                yield Convolution(1, 4 * width, width, stage)
            channels = width
        for level, width in reversed(list(enumerate((self.widths[0], *self.widths[:-1])))):
            yield Convolution(1, channels, width, level)
            yield Convolution(27, 2 * width, width, level)
            yield Convolution(27, width, width, level)
            channels = width
        yield Convolution(1, channels, self.n_classes, 0)

    def _module(self, *, dropout: bool) -> Any:
        return _SwinModule(
            self.widths,
            self.blocks,
            self.window,
            self.n_classes,
            self.dropout if dropout else 0.0,
            jnp.dtype(self.compute_dtype),
            self.remat,
        )

    def _spread(self, names: Sequence[str], shape: tuple[int, ...]) -> float:
        """Linear maps and tables of relative positions start small, as in the original."""
        return 0.02 if len(shape) == 2 and names[0] != "merge0" else super()._spread(names, shape)


def build_swin_unet(
    model: ModelConfig,
    n_classes: int,
    *,
    device_axis: str | None = None,
    window: PositiveInt = 4,
    blocks: PositiveInt = 2,
) -> SwinUNet:
    """A U-Net with windowed attention of `model.size`, or of `model.widths`; `model.dropout` is the rate at the bottom.

    Args:
        model: the section `model`.
        n_classes: classes, background included.
        device_axis: see `BackboneBuilder`.
        window: edge of a window, tokens. Patches must be multiples of it times 2^(number of widths).
        blocks: blocks of attention in each stage.

    Raises:
        InputError: a width that heads of 12 channels do not divide, or a field that this network does not have.
    """
    check_unused(model, ("widths", "dropout"))
    widths = _SIZES[model.size] if model.widths is None else tuple(model.widths)
    for width in widths:
        if width % max(width // _HEAD, 1):
            fix = f"take multiples of {_HEAD}"
            raise InputError(f"{width} channels are not divided by heads of {_HEAD}", where="model.widths", fix=fix)
    return SwinUNet(
        widths, blocks, window, n_classes, model.dropout or 0.0, model.compute_dtype, model.remat, device_axis
    )
