"""The backbones: parameters, receptive field, agreement with PyTorch, time and memory of a training step.

Agreement: the weights are copied into a second implementation in PyTorch (`backbones_torch`), with scales, biases and running
statistics drawn at random, so that every one of them counts. It computes in float64 and this package in float32. Given is the
largest difference of the class scores over their largest size: with running statistics, and with those of the batch. The
gradient is that of the mean square of the scores with respect to all parameters: the norm of the difference over the norm.

Time and memory: a bi-level step of both meta networks, for two training and two meta patches of 32³ with four species: the
processor time of the fastest of a few steps, all cores together, which other work on the machine hardly changes, and the
temporary memory of the compiled step.

`--agreement` compares with PyTorch and does nothing else.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._common import Row, main, row
from robpicker_jax.config import Config, DataConfig, InferenceConfig, ModelConfig, PatchConfig, Species, TrainConfig
from robpicker_jax.models import build_backbone, n_parameters
from robpicker_jax.system.compilation import jit
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.plan import batch_shapes

NAME = "backbones"
EDGE, BATCH, N_SPECIES = 32, 2, 4
CASES: dict[str, ModelConfig] = {
    "unet, preset paper": ModelConfig(),
    "deepfinder": ModelConfig(backbone="deepfinder"),
    **{
        f"deepict, {preset}": ModelConfig(backbone="deepict", backbone_options={"preset": preset})
        for preset in ("example", "default", "paper")
    },
    "flexunet": ModelConfig(backbone="flexunet"),
    **{
        f"{name}, {size}": ModelConfig(backbone=name, size=size)
        for name in ("residual_unet", "swin_unet")
        for size in ("small", "medium", "large")
    },
}
COMPARED = ("deepfinder", "deepict, default", "flexunet", "residual_unet, medium", "swin_unet, small")
TIMED = (
    "deepfinder",
    "deepict, default",
    "flexunet",
    "residual_unet, medium",
    "swin_unet, medium",
)
EDGES = {"flexunet": 64}
"""Patches of the comparison. FlexUNet halves five times: of two patches of 32³ two values of a channel are left at the bottom,
and batch norm makes ±1 of them, whichever is larger by a rounding error."""
QUICK = ("deepfinder", "deepict, example")


def drawn(tree: Any, rng: np.random.Generator) -> Any:
    """A tree whose scales and variances lie about 1, and whose biases and means about 0; kernels stay."""

    def leaf(path: Any, value: Any) -> Any:
        noise = 0.2 * rng.standard_normal(value.shape)
        names = {"bias": noise, "mean": noise, "scale": 1 + noise, "var": np.exp(noise), "table": noise}
        return jnp.asarray(names[path[-1].key], value.dtype) if path[-1].key in names else value

    return jax.tree_util.tree_map_with_path(leaf, tree)


def differences(model: ModelConfig, *, edge: int = EDGE, n_classes: int = 1 + N_SPECIES) -> dict[str, float]:
    """By how much the network and its PyTorch twin differ: scores with running and with the batch's statistics, gradient.

    Raises:
        ImportError: PyTorch is not installed.
    """
    import torch

    from benchmarks import backbones_torch

    network = build_backbone(model, n_classes)
    rng = np.random.default_rng(0)
    params, stats = jax.jit(network.init)(jax.random.key(0))
    params, stats = drawn(params, rng), drawn(stats, rng)
    image = rng.standard_normal((2, edge, edge, edge, 1), np.float32)
    weights, running = (backbones_torch.tensors(tree, torch.float64) for tree in (params, stats))
    found: dict[str, float] = {}
    for train, name in ((False, "running statistics"), (True, "batch statistics")):
        ours = np.asarray(jit(functools.partial(network.apply, train=train))(params, stats, image)[1])
        with torch.no_grad():
            theirs = backbones_torch.segment(network, weights, running, image, train=train)[1].numpy()
        found[name] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    def loss(params: Any) -> jax.Array:
        value: jax.Array = jnp.mean(network.apply(params, stats, jnp.asarray(image), False)[1] ** 2)
        return value

    leaves = {name: tensor.requires_grad_() for name, tensor in weights.items()}
    backbones_torch.segment(network, leaves, running, image, train=False)[1].square().mean().backward()
    gradient = backbones_torch.tensors(jit(jax.grad(loss))(params), torch.float64)
    pairs = [
        (ours, torch.zeros_like(ours) if leaves[name].grad is None else leaves[name].grad)
        for name, ours in gradient.items()
    ]
    apart, size = (sum(float((a - b * s).square().sum()) for a, b in pairs) for s in (1, 0))
    found["gradient"] = (apart / size) ** 0.5
    return found


def step_figures(model: ModelConfig, repeats: int) -> tuple[float, float]:
    """Processor seconds of a bi-level step, and MiB of temporary memory by the compiler."""
    species = tuple(Species(f"species {k}", 4.0) for k in range(N_SPECIES))
    config = Config(
        data=DataConfig(species=species),
        patches=PatchConfig(size=EDGE),
        model=model,
        train=TrainConfig(batch_size=BATCH),
        inference=InferenceConfig(tile=None),
    )
    experiment = build_experiment(config)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        real = leaf.dtype == np.float32
        values = rng.standard_normal(leaf.shape) if real else rng.integers(0, 1 + N_SPECIES, leaf.shape)
        placed: jax.Array = jax.device_put(values.astype(leaf.dtype), leaf.sharding)
        return placed

    batches = jax.tree.map(draw, batch_shapes(config.train, config.patches, experiment.mesh))
    step: Any = experiment.step.lower(experiment.state, *batches).compile()  # type: ignore[attr-defined]
    state = experiment.state

    times = []
    for _ in range(1 + repeats):
        start = time.process_time()
        state, _ = jax.block_until_ready(step(state, *batches))
        times.append(time.process_time() - start)
    return min(times), step.memory_analysis().temp_size_in_bytes / 2**20


def run(quick: bool) -> Iterator[Row]:
    """Rows of every backbone; of two with `quick`."""
    for case in QUICK if quick else CASES:
        model = CASES[case]
        network = build_backbone(model, 1 + N_SPECIES)
        params, _ = jax.eval_shape(network.init, jax.random.key(0))
        record = functools.partial(row, NAME, case)
        yield record("parameters", n_parameters(params), "")
        yield record("receptive field", network.receptive_field, "voxels")
        yield record("patch edges are multiples of", network.stride, "voxels")
        yield record("operations of a forward pass, per voxel", network.work.operations / 1e3, "kFLOP")
        if case not in (QUICK if quick else TIMED):
            continue
        spent, memory = step_figures(model, 1 if quick else 2)
        yield record("bi-level step, processor time", spent, "s")
        yield record("bi-level step, temporary memory", memory, "MiB")
    yield from agreement(QUICK if quick else COMPARED)


def agreement(cases: tuple[str, ...]) -> Iterator[Row]:
    """Rows of the comparison with PyTorch."""
    for case in cases:
        try:
            found: dict[str, float] = differences(CASES[case], edge=EDGES.get(case, EDGE))
        except ImportError:
            found = {}
        for what in ("running statistics", "batch statistics", "gradient"):
            yield row(
                NAME, f"{case}: PyTorch", f"difference, {what}", found.get(what), "", why="torch is not installed"
            )


if __name__ == "__main__":
    if "--agreement" in sys.argv:
        sys.argv.remove("--agreement")
        main(NAME, lambda quick: agreement(QUICK if quick else COMPARED))
    else:
        main(NAME, run, keep_memory=True)
