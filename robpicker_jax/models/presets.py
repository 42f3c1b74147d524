"""Shapes of the U-Net: the presets, and what a `ModelConfig` changes in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.work import Convolution
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class UNetShape:
    """A 3D U-Net's shape, every number given.

    Attributes:
        widths: channels at each resolution, full resolution first, bottleneck last.
        convs_before_pool: 3×3×3 convolutions of an encoder block before its pooling, at the block's resolution.
        convs_after_pool: those after it, at the next resolution and with its width.
        bottleneck_convs: 3×3×3 convolutions at the bottom, those of the last encoder block not counted.
        decoder_convs: 3×3×3 convolutions of a decoder block, after the upsampling.
        batch_norm: batch normalisation between each 3×3×3 convolution and its ReLU.
        dropout: dropout rate after the bottleneck.
        upsampling: "transposed" (2×2×2, stride 2, to the finer width), or "nearest" (repeat each voxel, then a 2×2×2
            convolution and ReLU at the coarser width).
    """

    widths: tuple[int, ...]
    convs_before_pool: int
    convs_after_pool: int
    bottleneck_convs: int
    decoder_convs: int
    batch_norm: bool
    dropout: float
    upsampling: Literal["transposed", "nearest"]

    @property
    def levels(self) -> int:
        """Number of poolings."""
        return len(self.widths) - 1

    @property
    def features(self) -> int:
        """Channels of the last feature map."""
        return self.widths[0]


# paper: four encoder blocks of conv conv pool conv conv. The paper does not state the widths; these agree with what it
# does state: 64 channels in the last feature map (the label correction's parameter count) and 41 M parameters.
# deepfinder: Moebel et al. 2021, Nature Methods 18:1386. deepict: de Teresa-Trueba et al. 2023, Nature Methods 20:284.
PRESETS: dict[str, UNetShape] = {
    "paper": UNetShape((64, 64, 128, 256, 512), 2, 2, 2, 2, True, 0.0, "transposed"),
    "deepfinder": UNetShape((32, 48, 64), 2, 0, 4, 2, False, 0.0, "nearest"),
    "deepict": UNetShape((16, 32, 64, 128, 256, 512), 2, 0, 2, 2, True, 0.0, "transposed"),
    "custom": UNetShape((16, 24, 32), 2, 0, 2, 2, True, 0.0, "transposed"),
}


def unet_shape(model: ModelConfig) -> UNetShape:
    """The shape of the U-Net that `model` asks for: the preset's, with the fields the config sets.

    `convs_per_block` is divided as the preset's blocks are: the paper pools half-way (the larger half first), the
    others after the last convolution.

    Raises:
        InputError: fewer than two widths.
    """
    base = PRESETS[model.preset]
    widths = base.widths if model.widths is None else tuple(model.widths)
    if len(widths) < 2:
        raise InputError("a U-Net has at least two levels", where="model.widths", fix="give two or more widths")
    before, after = base.convs_before_pool, base.convs_after_pool
    if model.convs_per_block is not None:
        after = model.convs_per_block // 2 if after else 0
        before = model.convs_per_block - after
    return UNetShape(
        widths=widths,
        convs_before_pool=before,
        convs_after_pool=after,
        bottleneck_convs=base.bottleneck_convs if model.bottleneck_convs is None else model.bottleneck_convs,
        decoder_convs=base.decoder_convs if model.decoder_convs is None else model.decoder_convs,
        batch_norm=base.batch_norm if model.batch_norm is None else model.batch_norm,
        dropout=base.dropout if model.dropout is None else model.dropout,
        upsampling=base.upsampling,
    )


def receptive_field(shape: UNetShape) -> int:
    """Edge of the cube of input voxels that one output voxel can depend on (the largest over output voxels).

    Followed from the output down the deepest path and up again: a convolution of size k widens the span by k - 1,
    an upsampling maps a span of s voxels on at most s//2 + 1 coarser ones, a pooling doubles it.
    """
    span = 1
    for _ in range(shape.levels):
        span += 2 * shape.decoder_convs
        if shape.upsampling == "nearest":
            span += 1
        span = span // 2 + 1 if span > 1 else 1
    span += 2 * shape.bottleneck_convs
    for _ in range(shape.levels):
        span = 2 * (span + 2 * shape.convs_after_pool) + 2 * shape.convs_before_pool
    return span


def convolutions(shape: UNetShape, n_classes: int) -> Iterator[Convolution]:
    """Every convolution of a U-Net, in the order in which it computes them."""
    channels = 1
    for level in range(shape.levels):
        for _ in range(shape.convs_before_pool):
            yield Convolution(27, channels, shape.widths[level], level)
            channels = shape.widths[level]
        for _ in range(shape.convs_after_pool):
            yield Convolution(27, channels, shape.widths[level + 1], level + 1)
            channels = shape.widths[level + 1]
    for _ in range(shape.bottleneck_convs):
        yield Convolution(27, channels, shape.widths[-1], shape.levels)
        channels = shape.widths[-1]
    for level in reversed(range(shape.levels)):
        width = shape.widths[level]
        if shape.upsampling == "nearest":
            yield Convolution(8, channels, channels, level)
            up = channels
        else:
            yield Convolution(1, channels, width, level)  # stride 2: each output voxel has one tap
            up = width
        channels = up + width
        for _ in range(shape.decoder_convs):
            yield Convolution(27, channels, width, level)
            channels = width
    yield Convolution(1, channels, n_classes, 0)
