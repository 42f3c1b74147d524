"""The segmentation U-Net: image patch → last feature map and class scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.conv import conv3d, max_pool3d, transposed_conv3d, upsample_nearest3d
from robpicker_jax.models.norm import BatchNorm
from robpicker_jax.models.presets import UNetShape, convolutions, receptive_field, unet_shape
from robpicker_jax.models.scores import Head
from robpicker_jax.models.voxel_sums import voxel_spread
from robpicker_jax.models.work import Work, work_of
from robpicker_jax.system.errors import InputError

Params = Any
BatchStats = Any
# Kernels start at zero here and are drawn in `UNet.init`, in one draw for all: that compiles in a second instead of thirty.
_zeros = nn.initializers.zeros


class _Conv(nn.Module):
    """A 3D convolution of `size`³ with an optional bias, in the compute dtype."""

    features: int
    size: int
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _zeros, (self.size,) * 3 + (x.shape[-1], self.features), jnp.float32)
        y = conv3d(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.bias:
            bias = self.param("bias", _zeros, (self.features,), jnp.float32)
            y = y + voxel_spread(bias.astype(self.dtype), y.shape)
        return y


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


class _Upsample(nn.Module):
    """2× upsampling: transposed convolution to `features`, or nearest neighbour and a 2×2×2 convolution with ReLU."""

    features: int
    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "nearest":
            return nn.relu(_Conv(x.shape[-1], 2, self.dtype)(upsample_nearest3d(x)))
        kernel = self.param("kernel", _zeros, (2, 2, 2, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", _zeros, (self.features,), jnp.float32)
        y = transposed_conv3d(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + voxel_spread(bias.astype(self.dtype), y.shape)


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
            x = _Upsample(shape.widths[level], shape.upsampling, self.dtype, name=f"up{level}_upsample")(x)
            x = jnp.concatenate([x, skips[level]], axis=-1)
            x = convs(x, level, shape.decoder_convs, f"up{level}")
        logits = _Conv(self.n_classes, 1, self.dtype, name="classes")(x)
        return x, logits.astype(jnp.promote_types(self.dtype, jnp.float32))


@dataclass(frozen=True)
class UNet:
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
    def output_stride(self) -> int:
        """Features and scores have the image's resolution."""
        return 1

    @property
    def head(self) -> Head:
        """Classes exclude each other."""
        return "softmax"

    @property
    def receptive_field(self) -> int:
        """Edge of the cube of input voxels that one output voxel can depend on, voxels."""
        return receptive_field(self.shape)

    @property
    def uses_dropout(self) -> bool:
        """Whether `apply` draws dropout masks in training."""
        return self.shape.dropout > 0

    @property
    def work(self) -> Work:
        """What a forward pass takes for each voxel of a patch."""
        return work_of(convolutions(self.shape, self.n_classes))

    @property
    def _module(self) -> Any:
        return _UNetModule(self.shape, self.n_classes, jnp.dtype(self.compute_dtype), self.remat, self.device_axis)

    def init(self, key: jax.Array) -> tuple[Params, BatchStats]:
        """Fresh float32 parameters and batch statistics (an empty dict without batch norm).

        Kernels are normal with variance gain / fan-in (He et al. 2015): gain 2 where a ReLU follows, 1 for the
        transposed and the last convolution, the fan-in of a transposed convolution being its input channels.

        A transposed convolution starts alike for all eight offsets. With eight independent kernels a young network
        tells classes apart by the parity of the voxel: its class maps are chequered, and each particle falls apart
        into many clusters (Aitken et al. 2017, arXiv 1707.02937).
        """
        blank = self._blank()
        leaves, tree = jax.tree_util.tree_flatten_with_path(blank["params"])
        normal = jax.random.normal(key, (sum(leaf.size for _, leaf in leaves),), jnp.float32)
        values, start = [], 0
        for path, leaf in leaves:
            names = [part.key for part in path]
            draw = normal[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
            if names[-1] != "kernel":
                values.append(jnp.full(leaf.shape, 1.0 if names[-1] == "scale" else 0.0, leaf.dtype))
                continue
            transposed = names[-2].endswith("_upsample")
            fan_in = leaf.shape[-2] if transposed else leaf.size // leaf.shape[-1]
            gain = 1.0 if transposed or names[-2] == "classes" else 2.0
            if transposed:
                draw = jnp.broadcast_to(draw[:1, :1, :1], leaf.shape)
            values.append(draw * (gain / fan_in) ** 0.5)
        return jax.tree.unflatten(tree, values), self.fresh_statistics()

    def fresh_statistics(self) -> BatchStats:
        """Running means of zero and variances of one; an empty dict without batch norm."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, 1.0 if path[-1].key == "var" else 0.0, leaf.dtype),
            self._blank().get("batch_stats", {}),
        )

    def _blank(self) -> Any:
        """Shapes of all variables."""
        image = jax.ShapeDtypeStruct((1, self.stride, self.stride, self.stride, self.channels), jnp.float32)
        return jax.eval_shape(lambda x: self._module.init(jax.random.key(0), x, False), image)

    def apply(
        self,
        params: Params,
        batch_stats: BatchStats,
        image: jax.Array,
        train: bool,
        *,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, BatchStats]:
        """Last feature map and class scores of a batch of patches.

        Args:
            params: parameters.
            batch_stats: running means and variances.
            image: `(n, z, y, x)` or `(n, z, y, x, 1)`, each edge divisible by `stride`.
            train: normalise by the batch's own statistics and update the running ones; else use the running ones.
            dropout_key: key of the dropout masks; None: no dropout.

        Returns:
            Features `(n, z, y, x, F)` in the compute dtype, class scores before softmax `(n, z, y, x, c)` in
            float32 (float64 when that is the compute dtype), and the new batch statistics (the old ones unless `train`).

        Raises:
            InputError: an edge is not divisible by `stride`.
        """
        if image.ndim == 4:
            image = image[..., None]
        if any(edge % self.stride for edge in image.shape[1:4]):
            raise InputError(
                f"a patch of {image.shape[1:4]} voxels cannot be halved {self.shape.levels} times",
                fix=f"make every edge a multiple of {self.stride}",
            )
        if self.device_axis is not None and train and dropout_key is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(self.device_axis))
        variables: Mapping[str, Any] = {"params": params, "batch_stats": batch_stats}
        module = self._module
        if dropout_key is None and self.shape.dropout > 0:
            module = module.clone(shape=UNetShape(**{**vars(self.shape), "dropout": 0.0}))
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        if not train:
            features, logits = module.apply(variables, image, False)
            return features, logits, batch_stats
        (features, logits), updated = module.apply(variables, image, True, mutable=["batch_stats"], rngs=rngs)
        return features, logits, updated.get("batch_stats", batch_stats)


def build_unet(model: ModelConfig, n_classes: int, *, device_axis: str | None = None) -> UNet:
    """The U-Net of a configuration, for `n_classes` classes (background included); see `UNet` for `device_axis`."""
    return UNet(unet_shape(model), n_classes, model.compute_dtype, model.remat, device_axis)


def n_parameters(params: Params) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
