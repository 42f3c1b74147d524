"""What a configuration's training step takes, counted from the network's shape: operations, memory, parameters.

Work: a 3×3×3 convolution from a to b channels takes 54 a b operations a voxel. In forward passes of the U-Net, a plain
step costs 3 and a bi-level one 8 (three each on the train and meta patches, two in tangents).
Memory: the backward pass keeps, of each convolution, its input and its result before and after normalisation.
Both are meant within a factor of two or three: compilers fuse, and keep copies of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.config import Config

if TYPE_CHECKING:
    from robpicker_jax.models.presets import UNetShape

_BILEVEL_MEMORY = 1.5
_KEPT = 3  # tensors kept of each convolution, in widths of its output
_REMAT = 0.35


def step_operations(config: Config) -> float:
    """Operations of one training step."""
    train = config.train
    operations, _ = per_voxel(config)
    bilevel = train.variant != "supervised"
    passes = 3 * train.batch_size * train.inner_steps + (5 * (train.meta_batch_size or train.batch_size) * bilevel)
    return operations * config.patches.size**3 * passes


def step_bytes(config: Config, parameters: int) -> float:
    """Memory of one training step on all devices together: activations, parameters, gradients, optimisers.

    Args:
        config: the configuration.
        parameters: how many the networks have.
    """
    train = config.train
    bilevel = train.variant != "supervised"
    _, kept = per_voxel(config)
    width = 2 if config.model.compute_dtype == "bfloat16" else 4
    batch, meta_batch = train.batch_size, train.meta_batch_size or train.batch_size
    activations = max(batch, meta_batch if bilevel else 0) * config.patches.size**3 * kept * width
    activations *= (_BILEVEL_MEMORY if bilevel else 1.0) * (_REMAT if config.model.remat else 1.0)
    activations *= 1 + 0.3 * ((train.inner_steps if bilevel else 1) - 1)
    # Parameters, gradient, two moments, and for the bi-level step the updated copy and a tangent.
    return activations / config.parallel.micro_batches + parameters * 4 * (6 if bilevel else 4)


def count_parameters(config: Config) -> dict[str, int]:
    """Exact number of parameters of each network that the configuration trains."""
    import jax

    from robpicker_jax.training.experiment import META_NETWORKS, build_networks

    _, init = build_networks(config.model, len(config.data.species) + 1)
    shapes = jax.eval_shape(init, jax.random.key(0))
    trained = ("unet", *META_NETWORKS[config.train.variant])
    return {name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes[name])) for name in trained}


def per_voxel(config: Config) -> tuple[float, float]:
    """Operations of a forward pass and numbers kept for the backward pass, for each voxel of a patch."""
    from robpicker_jax.models.presets import unet_shape

    operations = kept = 0.0
    for taps, inputs, outputs, level in convolutions(unet_shape(config.model), len(config.data.species) + 1):
        share = 8.0**-level
        operations += 2 * taps * inputs * outputs * share
        kept += _KEPT * outputs * share
    return operations, kept


def convolutions(shape: UNetShape, n_classes: int) -> Iterator[tuple[int, int, int, int]]:
    """Every convolution of a U-Net: (taps, channels in, channels out, level of its output)."""
    channels = 1
    for level in range(shape.levels):
        for _ in range(shape.convs_before_pool):
            yield 27, channels, shape.widths[level], level
            channels = shape.widths[level]
        for _ in range(shape.convs_after_pool):
            yield 27, channels, shape.widths[level + 1], level + 1
            channels = shape.widths[level + 1]
    for _ in range(shape.bottleneck_convs):
        yield 27, channels, shape.widths[-1], shape.levels
        channels = shape.widths[-1]
    for level in reversed(range(shape.levels)):
        width = shape.widths[level]
        if shape.upsampling == "nearest":
            yield 8, channels, channels, level
            up = channels
        else:
            yield 1, channels, width, level  # stride 2: each voxel has one tap
            up = width
        channels = up + width
        for _ in range(shape.decoder_convs):
            yield 27, channels, width, level
            channels = width
    yield 1, channels, n_classes, 0
