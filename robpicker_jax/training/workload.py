"""What a configuration's training step takes, counted from the networks' shapes: operations, memory, parameters.

Work: in forward passes of the backbone, a plain step costs 3 and a bi-level one 8 (three each on the train and meta
patches, two in tangents). Memory: what the backward pass keeps of a forward pass. Both passes are described by the
backbone (`Backbone.work`), and both figures are right within a factor of two or three: compilers fuse operations, and
keep copies of their own.
"""

from __future__ import annotations

import jax
import numpy as np

from robpicker_jax.config import ModelConfig, TrainConfig
from robpicker_jax.models import Work, build_backbone
from robpicker_jax.training.networks import build_networks

_BILEVEL_MEMORY = 1.5
_REMAT = 0.35


def forward_work(model: ModelConfig, n_classes: int) -> Work:
    """Operations of a forward pass and numbers kept for the backward pass, for each voxel of a patch."""
    return build_backbone(model, n_classes).work


def step_operations(model: ModelConfig, train: TrainConfig, *, n_classes: int, patch_size: int) -> float:
    """Operations of one training step.

    Args:
        model: the section `model`.
        train: the section `train`.
        n_classes: classes, background included.
        patch_size: edge of the patches, voxels.
    """
    passes = 3 * train.batch_size * train.inner_steps + (5 * train.meta_rows if train.is_bilevel else 0)
    return forward_work(model, n_classes).operations * patch_size**3 * passes


def step_bytes(
    model: ModelConfig,
    train: TrainConfig,
    *,
    n_classes: int,
    patch_size: int,
    micro_batches: int,
    parameters: int,
) -> float:
    """Memory of one training step on all devices together: activations, parameters, gradients, optimisers.

    Args:
        model: the section `model`.
        train: the section `train`.
        n_classes: classes, background included.
        patch_size: edge of the patches, voxels.
        micro_batches: parts in which each device takes its share of a batch.
        parameters: how many the networks have; 0 for the activations alone.
    """
    width = 2 if model.compute_dtype == "bfloat16" else 4
    patches = max(train.batch_size, train.meta_batch) if train.is_bilevel else train.batch_size
    activations = patches * patch_size**3 * forward_work(model, n_classes).kept * width
    activations *= (_BILEVEL_MEMORY if train.is_bilevel else 1.0) * (_REMAT if model.remat else 1.0)
    activations *= 1 + 0.3 * ((train.inner_steps if train.is_bilevel else 1) - 1)
    # Parameters, gradient, two moments, and for the bi-level step the updated copy and a tangent.
    return activations / micro_batches + parameters * 4 * (6 if train.is_bilevel else 4)


def count_parameters(model: ModelConfig, train: TrainConfig, n_classes: int) -> dict[str, int]:
    """Exact number of parameters of each network that is trained."""
    _, init = build_networks(model, n_classes)
    shapes = jax.eval_shape(init, jax.random.key(0))
    trained = ("backbone", *train.meta_networks)
    return {name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes[name])) for name in trained}
