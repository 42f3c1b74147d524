"""What every backbone that is a Flax module has in common: fresh parameters by one draw, and `apply`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.scores import Head
from robpicker_jax.models.work import Convolution, Work, work_of
from robpicker_jax.system.errors import InputError

Params = Any
BatchStats = Any
_SHAPE_FIELDS = ("widths", "convs_per_block", "bottleneck_convs", "decoder_convs", "batch_norm", "dropout")


class FlaxNetwork(ABC):
    """A backbone's `init` and `apply` from a Flax module; frozen dataclasses derive from it.

    They say `features`, `stride`, `receptive_field` and their convolutions, and make the module, whose
    `__call__(image, train)` gives the feature map, class scores, and perhaps scores of coarser levels. Its kernels start
    at zero and are drawn in `init`, in one draw for all: that compiles in a second instead of thirty.
    """

    compute_dtype: str
    device_axis: str | None
    channels: int

    @property
    @abstractmethod
    def stride(self) -> int:
        """Every patch edge must be divisible by this."""

    @property
    def output_stride(self) -> int:
        """Features and scores have the image's resolution."""
        return 1

    @property
    def head(self) -> Head:
        """Classes exclude each other."""
        return "softmax"

    @property
    def dropout(self) -> float:
        """The highest rate of dropout."""
        return 0.0

    @property
    def uses_dropout(self) -> bool:
        """Whether `apply` draws dropout masks in training."""
        return self.dropout > 0

    @property
    def work(self) -> Work:
        """What a forward pass takes for each voxel of a patch."""
        return work_of(self._convolutions())

    @abstractmethod
    def _convolutions(self) -> Iterator[Convolution]:
        """Its convolutions, or what takes as much."""

    @abstractmethod
    def _module(self, *, dropout: bool) -> Any:
        """The module, with dropout or without."""

    def init(self, key: jax.Array) -> tuple[Params, BatchStats]:
        """Fresh float32 parameters and batch statistics (an empty dict without batch norm).

        Kernels are normal, with the standard deviation of `_spread`; scales are 1, everything else is 0.
        """
        leaves, tree = jax.tree_util.tree_flatten_with_path(self._blank()["params"])
        normal = jax.random.normal(key, (sum(leaf.size for _, leaf in leaves),), jnp.float32)
        values, start = [], 0
        for path, leaf in leaves:
            names = [part.key for part in path]
            draw = normal[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
            if names[-1] not in ("kernel", "table"):
                values.append(jnp.full(leaf.shape, 1.0 if names[-1] == "scale" else 0.0, leaf.dtype))
                continue
            if names[-2].endswith("_upsample") and leaf.ndim == 5:
                # A transposed convolution starts alike for all eight offsets. With eight independent kernels a young
                # network tells classes apart by the parity of the voxel: its class maps are chequered, and each particle
                # falls apart into many clusters (Aitken et al. 2017, arXiv 1707.02937).
                draw = jnp.broadcast_to(draw[:1, :1, :1], leaf.shape)
            values.append(draw * self._spread(names, leaf.shape))
        return jax.tree.unflatten(tree, values), self.fresh_statistics()

    def _spread(self, names: Sequence[str], shape: tuple[int, ...]) -> float:
        """Standard deviation of a fresh kernel: √(gain / fan-in) (He et al. 2015).

        Gain 2 where a ReLU follows, 1 for the transposed and the last convolution. The fan-in of a transposed convolution
        is its input channels.
        """
        transposed = names[-2].endswith("_upsample")
        fan_in = shape[-2] if transposed else math.prod(shape[:-1])
        gain = 1.0 if transposed or names[-2] == "classes" else 2.0
        return float((gain / fan_in) ** 0.5)

    def fresh_statistics(self) -> BatchStats:
        """Running means of zero and variances of one; an empty dict without batch norm."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, 1.0 if path[-1].key == "var" else 0.0, leaf.dtype),
            self._blank().get("batch_stats", {}),
        )

    def _blank(self) -> Any:
        """Shapes of all variables."""
        image = jax.ShapeDtypeStruct((1, self.stride, self.stride, self.stride, self.channels), jnp.float32)
        module = self._module(dropout=False)
        return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), image)

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
            Features `(n, z', y', x', F)` in the compute dtype, class scores `(n, z', y', x', c)` in float32 (float64 when
            that is the compute dtype), and the new batch statistics (the old ones unless `train`). The edges are the
            image's over `output_stride`.

        Raises:
            InputError: an edge is not divisible by `stride`.
        """
        outputs, batch_stats = self._outputs(params, batch_stats, image, train, dropout_key)
        return outputs[0], outputs[1], batch_stats

    def _outputs(
        self, params: Params, batch_stats: BatchStats, image: jax.Array, train: bool, dropout_key: jax.Array | None
    ) -> tuple[tuple[Any, ...], BatchStats]:
        """All that the module gives, and the new batch statistics."""
        if image.ndim == 4:
            image = image[..., None]
        if any(edge % self.stride for edge in image.shape[1:4]):
            raise InputError(
                f"a patch of {image.shape[1:4]} voxels does not fit the network",
                fix=f"make every edge a multiple of {self.stride}",
            )
        if self.device_axis is not None and train and dropout_key is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(self.device_axis))
        variables: Mapping[str, Any] = {"params": params, "batch_stats": batch_stats}
        module = self._module(dropout=dropout_key is not None)
        if not train:
            return module.apply(variables, image, False), batch_stats
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        outputs, updated = module.apply(variables, image, True, mutable=["batch_stats"], rngs=rngs)
        return outputs, updated.get("batch_stats", batch_stats)


def check_unused(model: ModelConfig, used: Sequence[str] = ()) -> None:
    """Refuse fields of the configuration that shape a U-Net where the chosen backbone does not read them.

    Args:
        model: the section `model`.
        used: the fields that the backbone reads.

    Raises:
        InputError: such a field is set.
    """
    for name in _SHAPE_FIELDS:
        if name not in used and getattr(model, name) is not None:
            what = f"{name} is set, but has no meaning for the backbone {model.backbone}"
            raise InputError(what, where=f"model.{name}", fix="leave it out (null)")


def check_levels(widths: Sequence[int], count: int, *, backbone: str) -> None:
    """Refuse widths that are not as many as a backbone has levels.

    Raises:
        InputError: fewer or more widths.
    """
    if len(widths) != count:
        what = f"{backbone} takes {count} widths, not {len(widths)}"
        raise InputError(what, where="model.widths", fix=f"give {count} numbers of channels, finest level first")
