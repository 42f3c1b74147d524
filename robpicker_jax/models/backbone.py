"""Segmentation networks by name: what a backbone must offer, and which there are.

`model.backbone` chooses one, `model.backbone_options` sets its options. A new backbone is a builder as
`BackboneBuilder` describes it, and one line in `BACKBONES`: here, or from outside of the package by
`BACKBONES["mine"] = build_mine` before the configuration is used.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.deepfinder import build_deepfinder
from robpicker_jax.models.deepict import build_deepict
from robpicker_jax.models.flexunet import build_flexunet
from robpicker_jax.models.residual_unet import build_residual_unet
from robpicker_jax.models.scores import Head
from robpicker_jax.models.swin_unet import build_swin_unet
from robpicker_jax.models.unet import build_unet
from robpicker_jax.models.work import Work
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import checked_options, look_up

Params = Any
BatchStats = Any


@runtime_checkable
class Backbone(Protocol):
    """A segmentation network as two pure functions, `init` and `apply`, and what others must know of it.

    Attributes:
        features: channels F of the feature map that the label correction reads.
        stride: every edge of a patch or tile must be divisible by this.
        output_stride: edge, in voxels of the image, of the cube that one voxel of the feature map and of the class scores
            stands for; it divides `stride`. 1: they have the image's resolution. What reads them at every voxel of the
            image takes `FullResolution(backbone)` in place of `backbone.apply`.
        head: how the class scores become probabilities (`class_probabilities`).
        receptive_field: edge of the cube of input voxels that one output voxel can depend on, voxels.
        uses_dropout: whether `apply` draws random masks in training and so needs a key.
        work: what a forward pass takes for each voxel, roughly; plans of memory and time are made from it.
    """

    @property
    def features(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def output_stride(self) -> int: ...
    @property
    def head(self) -> Head: ...
    @property
    def receptive_field(self) -> int: ...
    @property
    def uses_dropout(self) -> bool: ...
    @property
    def work(self) -> Work: ...

    def init(self, key: jax.Array) -> tuple[Params, BatchStats]:
        """Fresh float32 parameters, and running statistics (an empty dict where there are none)."""
        ...

    def apply(
        self,
        params: Params,
        batch_stats: BatchStats,
        image: jax.Array,
        train: bool,
        *,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, BatchStats]:
        """Features and class scores of a batch of patches; differentiable in both modes, to the second order.

        Args:
            params: parameters.
            batch_stats: running statistics.
            image: `(n, z, y, x, 1)`, each edge divisible by `stride`.
            train: training behaviour: the batch's own statistics, and new running ones.
            dropout_key: key of the dropout masks; None: no dropout.

        Returns:
            Features `(n, z', y', x', F)` in any floating type, class scores `(n, z', y', x', c)` in float32 at least,
            background first, and the running statistics (those given unless `train`). z', y', x' are the image's edges
            over `output_stride`.
        """
        ...


@runtime_checkable
class DeeplySupervised(Protocol):
    """A backbone that classifies coarser levels as well, for training: a loss on them teaches those levels directly."""

    def deep_scores(
        self, params: Params, batch_stats: BatchStats, image: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Class scores of coarser levels, finest first, each at the image's resolution: `(n, z, y, x, c)`.

        They are of the forward pass that `apply` makes in training with the same operands, and with `output_stride` 1.
        """
        ...


class BackboneBuilder(Protocol):
    """Builds a backbone: `build(model, n_classes, device_axis=None, **options) -> Backbone`.

    `device_axis` is the name of the mesh axis along which a batch is split when `apply` runs inside `shard_map` (the pmap
    form): batch statistics must then be those of the whole batch. None: `apply` sees the whole batch.
    """

    def __call__(self, model: ModelConfig, n_classes: int, /, *args: Any, **options: Any) -> Backbone:
        """The backbone of a configuration.

        Args:
            model: the configuration's section; `compute_dtype` and `remat` should be honoured.
            n_classes: c, background included.
            args: not used; it lets builders with other parameters fit this type.
            options: `device_axis`, and the builder's further keyword-only parameters: these are the backbone's options,
                and `model.backbone_options` is checked against their names and annotations.
        """
        ...


BACKBONES: dict[str, BackboneBuilder] = {
    "unet": build_unet,
    "deepfinder": build_deepfinder,
    "deepict": build_deepict,
    "flexunet": build_flexunet,
    "residual_unet": build_residual_unet,
    "swin_unet": build_swin_unet,
}
"""Name → builder."""


def build_backbone(model: ModelConfig, n_classes: int, *, device_axis: str | None = None) -> Backbone:
    """The backbone that a configuration names, for `n_classes` classes (background included).

    Raises:
        InputError: an unknown backbone or option, or an option of another type.
    """
    build = look_up(BACKBONES, model.backbone, key="model.backbone")
    options = checked_options(build, model.backbone_options, key="model.backbone_options", reserved=("device_axis",))
    return build(model, n_classes, device_axis=device_axis, **options)


def check_edge(edge: int, stride: int, *, where: str) -> None:
    """Refuse an edge of patches or tiles that a network's stride does not divide.

    Args:
        edge: voxels.
        stride: of the network that is to take them.
        where: the key of the configuration that gives the edge.

    Raises:
        InputError: with the nearest edges that fit.
    """
    if edge % stride:
        lower = edge - edge % stride
        fits = f"{lower} or {lower + stride}" if lower else str(stride)
        raise InputError(f"{edge} is not divisible by the network's stride {stride}", where=where, fix=f"use {fits}")
