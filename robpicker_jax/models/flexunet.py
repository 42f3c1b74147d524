"""The network of the published RobPicker: a ResNet34 encoder and a decoder that ends at half resolution.

The published code takes MONAI's FlexibleUNet. Its encoder halves the image five times (He et al. 2016, arXiv 1512.03385,
in 3D), its decoder comes back to half resolution, where 32 channels are classified. The published network also has a
full-resolution block and three heads on coarser maps; nothing that is trained or picked with depends on them, and they are
left out here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.conv import every_second, overlapping_max_pool3d, upsample_nearest3d
from robpicker_jax.models.layers import Conv, wide_scores
from robpicker_jax.models.network import FlaxNetwork, check_levels, check_unused
from robpicker_jax.models.norm import BatchNorm
from robpicker_jax.models.work import Convolution

_GRID = 32  # the encoder halves five times
_OUTPUT_STRIDE = 2
_DECODER_EPSILON = 1e-3
# ResNet34's
_WIDTHS = (64, 64, 128, 256, 512)
_BLOCKS = (3, 4, 6, 3)


class _ConvNorm(nn.Module):
    """Convolution without bias and batch norm."""

    features: int
    size: int
    stride: int
    epsilon: float
    dtype: Any
    device_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(self.features, self.size, self.dtype, bias=False, stride=self.stride, name="conv")(x)
        return BatchNorm(epsilon=self.epsilon, device_axis=self.device_axis, name="norm")(x, train)


class _BasicBlock(nn.Module):
    """Two 3×3×3 convolutions beside a shortcut: ResNet's basic block with a shortcut of type A.

    Where the resolution or the width changes, the shortcut takes every second voxel and fills up with channels of zeros.
    """

    features: int
    stride: int
    shortcut_gradient: bool
    dtype: Any
    device_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def layer(x: jax.Array, stride: int, name: str) -> jax.Array:
            return _ConvNorm(self.features, 3, stride, 1e-5, self.dtype, self.device_axis, name=name)(x, train)

        y = layer(nn.relu(layer(x, self.stride, "first")), 1, "second")
        if self.stride == 2 or x.shape[-1] != self.features:
            x = every_second(x) if self.stride == 2 else x
            x = jnp.pad(x, ((0, 0),) * 4 + ((0, self.features - x.shape[-1]),))
            if not self.shortcut_gradient:
                x = jax.lax.stop_gradient(x)
        return nn.relu(y + x)


class _UpBlock(nn.Module):
    """A 1×1×1 convolution that halves the channels, each voxel repeated, the skip beside it, two 3×3×3 convolutions."""

    features: int
    dtype: Any
    device_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        x = upsample_nearest3d(Conv(x.shape[-1] // 2, 1, self.dtype, name="halve")(x))
        x = jnp.concatenate([skip, x], axis=-1)
        for name in ("first", "second"):
            layer = _ConvNorm(self.features, 3, 1, _DECODER_EPSILON, self.dtype, self.device_axis, name=name)
            x = nn.relu(layer(x, train))
        return x


class _FlexUNetModule(nn.Module):
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    n_classes: int
    shortcut_gradient: bool
    dtype: Any
    remat: bool
    device_axis: str | None

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        basic = nn.remat(_BasicBlock, static_argnums=(2,)) if self.remat else _BasicBlock
        up = nn.remat(_UpBlock, static_argnums=(3,)) if self.remat else _UpBlock
        edges = image.shape[1:4]
        x = jnp.pad(image, ((0, 0), *((0, -edge % _GRID) for edge in edges), (0, 0)), mode="edge").astype(self.dtype)
        x = nn.relu(_ConvNorm(self.widths[0], 7, 2, 1e-5, self.dtype, self.device_axis, name="stem")(x, train))
        maps = [x]
        x = overlapping_max_pool3d(x)
        for level, count in enumerate(self.blocks, 1):
            for i in range(count):
                stride = 2 if level > 1 and i == 0 else 1
                block = basic(
                    self.widths[level],
                    stride,
                    self.shortcut_gradient,
                    self.dtype,
                    self.device_axis,
                    name=f"down{level}_{i}",
                )
                x = block(x, train)
            maps.append(x)
        for level, width in zip((3, 2, 1, 0), _decoder(self.widths), strict=True):
            x = up(width, self.dtype, self.device_axis, name=f"up{level}")(x, maps[level], train)
        scores = Conv(self.n_classes, 3, self.dtype, name="classes")(x)
        z, y, x_edge = (edge // _OUTPUT_STRIDE for edge in edges)
        return x[:, :z, :y, :x_edge], wide_scores(scores[:, :z, :y, :x_edge])


def _decoder(widths: Sequence[int]) -> tuple[int, ...]:
    """Channels of the decoder's blocks, coarsest first: those of the encoder at 1/16, 1/8 and 1/4, and half at 1/2."""
    return (*widths[3:0:-1], widths[1] // 2)


@dataclass(frozen=True)
class FlexUNet(FlaxNetwork):
    """The published network as two pure functions; hashable. Features and scores are at half the image's resolution.

    An image whose edges are not multiples of 32 is continued to the next ones by its last voxels, and the output is cut.

    Attributes:
        widths: channels of the encoder at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution.
        blocks: basic blocks at the last four of them.
        n_classes: c, background included.
        shortcut_gradient: whether a gradient passes through the shortcuts where the resolution changes. The published
            network has none there.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    n_classes: int
    shortcut_gradient: bool = False
    compute_dtype: str = "float32"
    remat: bool = False
    device_axis: str | None = None
    channels: int = 1

    @property
    def features(self) -> int:
        """Channels F of the half-resolution map."""
        return _decoder(self.widths)[-1]

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return _OUTPUT_STRIDE

    @property
    def output_stride(self) -> int:
        """Features and scores have half the image's resolution."""
        return _OUTPUT_STRIDE

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel can depend on, voxels."""
        span = 3  # the classes
        for _ in range(4):
            span = (span + 4) // 2 + 1  # two convolutions, each voxel repeated
        for level in (4, 3, 2, 1):
            count = self.blocks[level - 1]
            span += 4 * count - (2 if level > 1 else 0)  # all but a first convolution of stride 2
            span = 2 * (span - 1) + 3  # that one, or the max-pool
        return 2 * (span - 1) + 7

    def _convolutions(self) -> Iterator[Convolution]:
        channels = self.widths[0]
        yield Convolution(343, self.channels, channels, 1)
        for level, count in enumerate(self.blocks, 1):
            for _ in range(count):
                yield Convolution(27, channels, self.widths[level], level + 1)
                channels = self.widths[level]
                yield Convolution(27, channels, channels, level + 1)
        for level, width in zip((3, 2, 1, 0), _decoder(self.widths), strict=True):
            yield Convolution(1, channels, channels // 2, level + 2)
            yield Convolution(27, channels // 2 + self.widths[level], width, level + 1)
            yield Convolution(27, width, width, level + 1)
            channels = width
        yield Convolution(27, channels, self.n_classes, 1)

    def _module(self, *, dropout: bool) -> Any:
        return _FlexUNetModule(
            self.widths,
            self.blocks,
            self.n_classes,
            self.shortcut_gradient,
            jnp.dtype(self.compute_dtype),
            self.remat,
            self.device_axis,
        )

    def _spread(self, names: Sequence[str], shape: tuple[int, ...]) -> float:
        """The encoder's kernels have variance 2 / fan-out, as in the published network."""
        if names[0].startswith(("down", "stem")):
            return math.sqrt(2 / (math.prod(shape[:3]) * shape[-1]))
        return super()._spread(names, shape)


def build_flexunet(
    model: ModelConfig,
    n_classes: int,
    *,
    device_axis: str | None = None,
    blocks: tuple[int, int, int, int] = _BLOCKS,
    shortcut_gradient: bool = False,
) -> FlexUNet:
    """The published RobPicker's network, unless `model.widths` gives other widths.

    Args:
        model: the section `model`.
        n_classes: classes, background included.
        device_axis: see `BackboneBuilder`.
        blocks: basic blocks at 1/4, 1/8, 1/16 and 1/32 of the resolution.
        shortcut_gradient: let a gradient through the shortcuts where the resolution changes.

    Raises:
        InputError: not five widths, or a field that this network does not have.
    """
    check_unused(model, ("widths",))
    widths = _WIDTHS if model.widths is None else tuple(model.widths)
    check_levels(widths, 5, backbone="flexunet")
    return FlexUNet(
        widths,
        blocks,
        n_classes,
        shortcut_gradient,
        model.compute_dtype,
        model.remat,
        device_axis,
    )
