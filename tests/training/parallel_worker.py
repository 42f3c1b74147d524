"""Runs in a process of its own, with the given number of virtual CPU devices: a few steps of a tiny problem.

    python parallel_worker.py OUT.npz FORM:METHOD[:MICRO_BATCHES[:plain|norm[:LOSS[:CLASS_WEIGHTS]]]] …
        [--restore DIR] [--save DIR] [--join PORT N I]

Each case's parameters after three steps are written to OUT.npz. The networks have batch norm and weights are divided by
their mean over the batch, except with "plain", where nothing is relative to the batch.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

from robpicker_jax import parallel  # noqa: E402
from robpicker_jax.bilevel.accumulation import accumulated  # noqa: E402
from robpicker_jax.bilevel.step import Step, TrainState, bilevel_step, initial_state, plain_step  # noqa: E402
from robpicker_jax.config import ModelConfig, ParallelConfig, TrainConfig  # noqa: E402
from robpicker_jax.models import build_data_reweighting, build_label_correction  # noqa: E402
from robpicker_jax.models.presets import UNetShape  # noqa: E402
from robpicker_jax.models.unet import UNet  # noqa: E402
from robpicker_jax.parallel.steps import jit_step, mean_over_devices, pmap_step  # noqa: E402
from robpicker_jax.training import objective  # noqa: E402
from robpicker_jax.training.checkpoint import Checkpoints  # noqa: E402
from robpicker_jax.training.losses import build_loss  # noqa: E402
from robpicker_jax.training.objective import Batch, Networks, NetworkState  # noqa: E402

N_CLASSES, BATCH, STEPS = 3, 8, 3
INNER = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.05, momentum=0.9))
META = {"correction": optax.adam(1e-2), "reweighting": optax.adam(1e-2)}


def networks(device_axis: str | None, batch_norm: bool) -> tuple[Networks, dict[str, Any]]:
    """A two-level U-Net with its meta networks, and their float64 parameters."""
    unet = UNet(UNetShape((3, 4), 1, 0, 1, 1, batch_norm, 0.0, "transposed"), N_CLASSES, "float64")
    # Without batch norm parts of a batch are to equal the whole, so no weight may be relative to its part.
    reach = ModelConfig().weight_reach if batch_norm else None
    model = ModelConfig(
        reweighting_hidden=5,
        reweighting_inputs="loss",
        correction="head",
        alpha_channels="classes",
        alpha_bias=-1.0,
        weight_reach=reach,
    )
    correction = build_label_correction(model, N_CLASSES, unet.features)
    reweighting = build_data_reweighting(model, device_axis=device_axis)
    inits = {"unet": lambda key: unet.init(key)[0], "batch_stats": lambda key: unet.init(key)[1]}
    inits |= {"correction": correction.init, "reweighting": reweighting.init}
    # Shapes from the networks, values from NumPy: compiling the initialisers would take longer than all the rest.
    shapes = {name: jax.eval_shape(init, jax.random.PRNGKey(0)) for name, init in inits.items()}
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        """He's variance for kernels, so that nothing saturates; biases near 0, scales and variances near 1."""
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return spread * rng.normal(size=leaf.shape) + (path[-1].key in ("scale", "var"))

    trees = jax.tree_util.tree_map_with_path(draw, shapes)
    apply = replace(unet, device_axis=device_axis).apply
    return Networks(apply, correction.apply, reweighting.apply), trees


def batch(seed: int, lead: tuple[int, ...] = ()) -> Batch:
    """This process's share of a batch of noise whose level and spread differ from sample to sample."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, N_CLASSES, (*lead, BATCH, 2, 2, 2)).repeat(2, -1).repeat(2, -2).repeat(2, -3)
    image = (
        rng.normal(size=label.shape) * rng.uniform(0.5, 2, (BATCH, 1, 1, 1)) + label + rng.normal(size=(BATCH, 1, 1, 1))
    )
    index, count = parallel.process_share()
    rows = slice(index * BATCH // count, (index + 1) * BATCH // count)
    whole = Batch(image[..., None], label, rng.integers(0, N_CLASSES, (*lead, BATCH)))
    return jax.tree.map(lambda leaf: leaf[:, rows] if lead else leaf[rows], whole)


def build(case: str, mesh: Any) -> tuple[Step, TrainState]:
    """The compiled step of a case, and its initial state on the devices."""
    fields = case.split(":")
    form, method, micro, norm, loss, by_class = fields + ["", "", "1", "norm", "dice", ""][len(fields) :]
    pmap = form == "pmap"
    axis = parallel.DATA_AXIS if pmap else None
    options = {"class_weights": by_class} if by_class else {}
    bound = build_loss(TrainConfig(loss=loss, loss_options=options), device_axis=axis)
    nets, trees = networks(axis, batch_norm=norm != "plain")
    weights = "none" if norm == "plain" else "mean"
    problem = objective.robpicker_problem(nets, INNER, bound, weights=weights, device_axis=axis)
    problem = accumulated(problem, int(micro))
    averages = {"mean": mean_over_devices} if pmap else {}
    step = plain_step(problem, **averages)
    if method != "plain":
        step = bilevel_step(problem, META, method=method, **averages)
    state = initial_state(
        trees["unet"],
        NetworkState(trees["batch_stats"], jax.random.PRNGKey(3)),
        {name: trees[name] for name in META},
        INNER,
        META,
    )
    return (pmap_step if pmap else jit_step)(step, mesh), parallel.replicate(state, mesh)


def main() -> None:
    """Run the cases and write what they end with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--restore", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--join", type=int, nargs=3)
    options = parser.parse_args()
    if options.join:
        port, count, index = options.join
        parallel.start(ParallelConfig(coordinator_address=f"localhost:{port}", num_processes=count, process_id=index))
    mesh = parallel.data_mesh()
    found = {}
    for case in options.cases:
        step, state = build(case, mesh)
        if options.restore:
            checkpoints = Checkpoints(options.restore)
            state = checkpoints.restore(state)
            checkpoints.close()
        for number in range(int(state.step), int(state.step) + STEPS):
            train = parallel.shard(batch(2 * number, (1,)), mesh, axis=1)
            state, metrics = step(state, train, parallel.shard(batch(2 * number + 1), mesh))
        if options.save:
            checkpoints = Checkpoints(options.save)
            checkpoints.save(int(state.step), state)
            checkpoints.close()
        kept = {"params": state.params, "meta": state.meta, "stats": state.network_state.batch_stats}
        kept |= {"loss": metrics.inner_loss, "outer": metrics.outer_loss, "aux": metrics.inner}
        kept |= {"step": state.step, "slope": metrics.hypergradient_norm}
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(kept)):
            found[f"{case} {jax.tree_util.keystr(path)}"] = leaf
    if parallel.is_first():
        np.savez(options.out, devices=mesh.size, **found)


if __name__ == "__main__":
    main()
