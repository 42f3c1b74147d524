"""The networks of an experiment as pure functions: segmentation, label correction, reweighting, further meta modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from robpicker_jax.config import ModelConfig, TrainConfig
from robpicker_jax.models import (
    ClassWeights,
    DeeplySupervised,
    FullResolution,
    MixupNetwork,
    VoxelWeights,
    build_backbone,
    build_data_reweighting,
    build_label_correction,
)
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.label_grid import LabelGrid, Pooling
from robpicker_jax.training.objective import Networks


def build_networks(
    model: ModelConfig,
    n_classes: int,
    *,
    device_axis: str | None = None,
    label_pooling: Pooling = "none",
    class_weights: Sequence[float] | None = None,
) -> tuple[Networks, Callable[[jax.Array], dict[str, Any]]]:
    """The networks as pure functions, and a function key → their fresh parameters.

    The parameters are {"backbone", "batch_stats", "correction", "reweighting"}, and those of the further meta modules by
    name. With `device_axis` the networks run inside `shard_map` on each device's share of a batch, with batch norm over all
    of it.

    Args:
        model: the section `model`.
        n_classes: species and background.
        device_axis: see above.
        label_pooling: whether labels are compared at the network's own resolution.
        class_weights: weights of the classes at the start, background first; None: 1.

    Raises:
        InputError: an unknown backbone, or an option that it does not have.
    """
    backbone = build_backbone(model, n_classes, device_axis=device_axis)
    correction = build_label_correction(model, n_classes, backbone.features, device_axis=device_axis)
    reweighting = build_data_reweighting(model, n_classes, device_axis=device_axis)
    initial = tuple(class_weights or (1.0,) * n_classes)
    of_classes, of_voxels = ClassWeights(initial, model.class_weight_form), VoxelWeights()
    mixing = MixupNetwork(n_classes, device_axis=device_axis)
    modules: dict[str, Any] = {"class_weights": of_classes, "voxel_weights": of_voxels, "mixup": mixing}

    def init(key: jax.Array) -> dict[str, Any]:
        params, batch_stats = backbone.init(jax.random.fold_in(key, 0))
        return {
            "backbone": params,
            "batch_stats": batch_stats,
            "correction": correction.init(jax.random.fold_in(key, 1)),
            "reweighting": reweighting.init(jax.random.fold_in(key, 2)),
            **{name: module.init(jax.random.fold_in(key, 3 + k)) for k, (name, module) in enumerate(modules.items())},
        }

    networks = Networks(
        FullResolution(backbone) if label_pooling == "none" else backbone.apply,
        correction.apply,
        reweighting.apply,
        dropout=backbone.uses_dropout,
        head=backbone.head,
        deep=backbone.deep_scores if isinstance(backbone, DeeplySupervised) else None,
        grid=LabelGrid(label_pooling, backbone.output_stride),
        corrects_labels_alone=correction.sees_labels_alone,
        class_weights=of_classes.apply,
        voxel_weights=of_voxels.apply,
        coefficient=mixing.apply,
        fixed_class_weights=initial,
        n_classes=n_classes,
    )
    return networks, init


def of_labels(train: TrainConfig) -> dict[str, Any]:
    """How labels are compared and weighted: arguments of `build_networks`."""
    weights = train.loss_options.get("class_weights")
    listed = weights if isinstance(weights, (list, tuple)) else None
    return {"label_pooling": train.label_pooling, "class_weights": listed}


def check_modules(train: TrainConfig, n_classes: int) -> None:
    """Refuse modules that the loss has no place for."""
    weighs = [name for name in ("class_weights", "voxel_weights") if name in train.meta_networks]
    if weighs and train.loss != "cross_entropy":
        raise InputError(f"train.modules: {weighs[0]} weighs cross-entropies", fix="set train.loss: cross_entropy")
    listed = of_labels(train)["class_weights"]
    if train.loss == "cross_entropy" and listed is not None and len(listed) != n_classes:
        raise InputError(
            f"train.loss_options.class_weights: {len(listed)} weights for {n_classes} classes, background included",
            fix="give one for the background and one for each species",
        )
