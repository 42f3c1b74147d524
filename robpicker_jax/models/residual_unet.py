"""A residual encoder U-Net with deep supervision, after Myronenko 2018 (arXiv 1810.11654; MONAI's SegResNet).

Blocks are twice group norm, ReLU and a 3×3×3 convolution beside an identity. The encoder is deeper than the decoder. Going
down, a convolution of stride 2; going up, a 1×1×1 convolution, trilinear interpolation, and the skip added.

Deep supervision (Lee et al. 2015, arXiv 1409.5185): in training the decoder's coarser levels are classified as well, so that
they get a gradient of their own. What is picked with is the finest level's scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from pydantic import PositiveInt

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.layers import Conv, GroupNorm, wide_scores
from robpicker_jax.models.network import BatchStats, FlaxNetwork, Params, check_unused
from robpicker_jax.models.scores import upsampled
from robpicker_jax.models.work import Convolution
from robpicker_jax.system.errors import InputError

_SIZES: dict[str, tuple[int, ...]] = {
    "small": (8, 16, 32, 64),
    "medium": (16, 32, 64, 128),
    "large": (32, 64, 128, 256),
}


class _ResidualBlock(nn.Module):
    """Twice group norm, ReLU and a 3×3×3 convolution beside the identity."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i in range(2):
            y = Conv(x.shape[-1], 3, self.dtype, bias=False, name=f"conv{i}")(nn.relu(GroupNorm(name=f"norm{i}")(y)))
        return x + y


class _Classes(nn.Module):
    """Group norm, ReLU and a linear classifier; the normalised map is what the network gives as features."""

    n_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu(GroupNorm(name="norm")(x))
        return x, wide_scores(Conv(self.n_classes, 1, self.dtype, name="classes")(x))


class _ResidualModule(nn.Module):
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    n_classes: int
    deep_supervision: bool
    dropout: float
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        block = nn.remat(_ResidualBlock) if self.remat else _ResidualBlock
        x, skips = image, []
        for level, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            stride = 1 if level == 0 else 2
            x = Conv(width, 3, self.dtype, bias=False, stride=stride, name=f"enter{level}")(x)
            for i in range(count):
                x = block(self.dtype, name=f"down{level}_{i}")(x)
            skips.append(x)
        if self.dropout > 0:
            x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        deep = []
        for level in reversed(range(len(self.widths) - 1)):
            x = Conv(self.widths[level], 1, self.dtype, bias=False, name=f"narrow{level}")(x)
            x = block(self.dtype, name=f"up{level}")(upsampled(x, 2) + skips[level])
            if self.deep_supervision and level > 0:
                deep.append(_Classes(self.n_classes, self.dtype, name=f"deep{level}")(x)[1])
        features, scores = _Classes(self.n_classes, self.dtype, name="last")(x)
        return features, scores, tuple(reversed(deep))


@dataclass(frozen=True)
class ResidualUNet(FlaxNetwork):
    """A residual U-Net as two pure functions; hashable.

    Attributes:
        widths: channels at each resolution, the image's first.
        blocks: residual blocks of the encoder at each resolution; the decoder has one.
        n_classes: c, background included.
        deep_supervision: whether the decoder's coarser levels are classified in training.
        dropout: rate at the bottom.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    n_classes: int
    deep_supervision: bool = True
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
        """Every patch edge must be divisible by this."""
        return 1 << (len(self.widths) - 1)

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel depends on, but for the statistics of group norm."""
        span = 1
        for _ in self.widths[1:]:
            span = (span + 4) // 2 + 2  # a block; each voxel is interpolated between two
        for level in reversed(range(len(self.widths))):
            span += 4 * self.blocks[level]
            span = 2 * (span - 1) + 3 if level else span + 2
        return span

    def _convolutions(self) -> Iterator[Convolution]:
        channels = self.channels
        for level, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            yield Convolution(27, channels, width, level)
            for _ in range(2 * count):
                yield Convolution(27, width, width, level)
            channels = width
        for level in reversed(range(len(self.widths) - 1)):
            width = self.widths[level]
            yield Convolution(1, channels, width, level + 1)
            for _ in range(2):
                yield Convolution(27, width, width, level)
            if level == 0 or self.deep_supervision:
                yield Convolution(1, width, self.n_classes, level)
            channels = width

    def deep_scores(
        self, params: Params, batch_stats: BatchStats, image: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Class scores of the decoder's coarser levels, finest first, interpolated to the image's resolution.

        Args:
            params: parameters.
            batch_stats: running statistics (there are none).
            image: `(n, z, y, x, 1)`.
            dropout_key: that of the pass whose coarser levels they are.

        Returns:
            Scores `(n, z, y, x, c)` of each level; none without deep supervision.
        """
        outputs, _ = self._outputs(params, batch_stats, image, True, dropout_key)
        deep: tuple[jax.Array, ...] = outputs[2]
        return tuple(upsampled(scores, 2 << level) for level, scores in enumerate(deep))

    def _module(self, *, dropout: bool) -> Any:
        return _ResidualModule(
            self.widths,
            self.blocks,
            self.n_classes,
            self.deep_supervision,
            self.dropout if dropout else 0.0,
            jnp.dtype(self.compute_dtype),
            self.remat,
        )


def build_residual_unet(
    model: ModelConfig,
    n_classes: int,
    *,
    device_axis: str | None = None,
    blocks: tuple[PositiveInt, ...] | None = None,
    deep_supervision: bool = True,
) -> ResidualUNet:
    """A residual U-Net of `model.size`, or of `model.widths`; `model.dropout` is the rate at the bottom.

    Args:
        model: the section `model`.
        n_classes: classes, background included.
        device_axis: see `BackboneBuilder`.
        blocks: residual blocks of the encoder at each resolution; none: 1, then 2 each, and 4 at the bottom.
        deep_supervision: classify the decoder's coarser levels in training.

    Raises:
        InputError: fewer than two widths, blocks that are not as many, or a field that this network does not have.
    """
    check_unused(model, ("widths", "dropout"))
    widths = _SIZES[model.size] if model.widths is None else tuple(model.widths)
    if len(widths) < 2:
        raise InputError("a U-Net has at least two levels", where="model.widths", fix="give two or more widths")
    counts = (1, *[2] * (len(widths) - 2), 4) if blocks is None else blocks
    if len(counts) != len(widths):
        what = f"{len(counts)} numbers of blocks for {len(widths)} resolutions"
        raise InputError(what, where="model.backbone_options.blocks", fix=f"give {len(widths)}")
    return ResidualUNet(
        widths,
        tuple(counts),
        n_classes,
        deep_supervision,
        model.dropout or 0.0,
        model.compute_dtype,
        model.remat,
        device_axis,
    )
