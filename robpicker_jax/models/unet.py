"""The segmentation U-Net: image patch → last feature map and class scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.conv import max_pool3d, upsample_nearest3d
from robpicker_jax.models.layers import Conv, TransposedConv, wide_scores
from robpicker_jax.models.network import FlaxNetwork
from robpicker_jax.models.norm import BatchNorm
from robpicker_jax.models.presets import UNetShape, convolutions, receptive_field, unet_shape
from robpicker_jax.models.work import Convolution


class _Conv(Conv):
    """The same convolution, under the name that the arrays of stored models have."""


class _ConvStack(nn.Module):
    """`count` times 3×3×3 convolution, batch norm (optional), ReLU."""

    features: int
    count: int
    batch_norm: bool
    dtype: Any
    device_axis: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for _ in range(self.count):
            x = _Conv(self.features, 3, self.dtype, bias=not self.batch_norm)(x)
            if self.batch_norm:
                x = BatchNorm(device_axis=self.device_axis)(x, train)
            x = nn.relu(x)
        return x


class _NearestUpsample(nn.Module):
    """2× upsampling: each voxel repeated, and a 2×2×2 convolution with ReLU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(_Conv(x.shape[-1], 2, self.dtype)(upsample_nearest3d(x)))


class _UNetModule(nn.Module):
    shape: UNetShape
    n_classes: int
    dtype: Any
    remat: bool
    device_axis: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        shape = self.shape
        stack = nn.remat(_ConvStack, static_argnums=(2,)) if self.remat else _ConvStack

        def convs(x: jax.Array, level: int, count: int, name: str) -> jax.Array:
            if count == 0:
                return x
            width = shape.widths[level]
            return stack(width, count, shape.batch_norm, self.dtype, self.device_axis, name=name)(x, train)

        x = image.astype(self.dtype)
        skips = []
        for level in range(shape.levels):
            x = convs(x, level, shape.convs_before_pool, f"down{level}_fine")
            skips.append(x)
            x = convs(max_pool3d(x), level + 1, shape.convs_after_pool, f"down{level}_coarse")
        x = convs(x, shape.levels, shape.bottleneck_convs, "bottleneck")
        if shape.dropout > 0:
            x = nn.Dropout(shape.dropout, deterministic=not train)(x)
        for level in reversed(range(shape.levels)):
            name = f"up{level}_upsample"
            if shape.upsampling == "nearest":
                x = _NearestUpsample(self.dtype, name=name)(x)
            else:
                x = TransposedConv(shape.widths[level], self.dtype, name=name)(x)
            x = jnp.concatenate([x, skips[level]], axis=-1)
            x = convs(x, level, shape.decoder_convs, f"up{level}")
        logits = _Conv(self.n_classes, 1, self.dtype, name="classes")(x)
        return x, wide_scores(logits)


@dataclass(frozen=True)
class UNet(FlaxNetwork):
    """A segmentation U-Net as two pure functions, `init` and `apply`. Hashable, so it may be a static argument.

    With `device_axis`, `apply` runs inside `shard_map` or `pmap` on each device's share of a batch: batch statistics
    are those of the whole batch, and each device draws its own dropout masks. `channels` are those of its input.
    """

    shape: UNetShape
    n_classes: int
    compute_dtype: str = "float32"
    remat: bool = False
    device_axis: str | None = None
    channels: int = 1

    @property
    def features(self) -> int:
        """Channels F of the last feature map."""
        return self.shape.features

    @property
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""
        return 1 << self.shape.levels

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel can depend on, voxels."""
        return receptive_field(self.shape)

    @property
    def dropout(self) -> float:
        """The rate at the bottom."""
        return self.shape.dropout

    def _convolutions(self) -> Iterator[Convolution]:
        return convolutions(self.shape, self.n_classes)

    def _module(self, *, dropout: bool) -> Any:
        shape = self.shape if dropout else replace(self.shape, dropout=0.0)
        return _UNetModule(shape, self.n_classes, jnp.dtype(self.compute_dtype), self.remat, self.device_axis)


def build_unet(model: ModelConfig, n_classes: int, *, device_axis: str | None = None) -> UNet:
    """The U-Net of a configuration, for `n_classes` classes (background included); see `UNet` for `device_axis`."""
    return UNet(unet_shape(model), n_classes, model.compute_dtype, model.remat, device_axis)


def n_parameters(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
