"""The training step on many devices, in two forms that give the numbers of one device.

**jit** (the default). The step is written for the whole batch; one `jax.jit` over the mesh, the batch split and the
state on every device. The compiler places the communication, and every mean over the batch (losses, gradients, batch
norm) is a mean over all devices because the program says so. Every hypergradient method works.

**pmap**: `shard_map`, which is what `jax.pmap` is built on. The step is written for one device's share, and averages
over devices are explicit. Let device d compute the loss ℓ_d from its share, and L = mean_d ℓ_d be that of the whole
batch.

- Without batch norm ℓ_d depends on θ and d's share alone: ∇L = mean_d ∇ℓ_d, and the same for slopes and their
  gradients, since all are linear in the loss.
- With batch norm over all devices, ℓ_d depends on the activations of every device. Read the program as one function
  of n separate copies of the parameters, θ_1 … θ_n, one a device. Inside `shard_map(check_vma=False)` a `psum` is then
  the all-ones matrix over devices, its own transpose, and `jax.grad`, seeded with 1 on every device, gives on device d
  g_d = ∂(Σ_e ℓ_e)/∂θ_d. With all copies equal, Σ_d g_d = d(Σ_e ℓ_e)/dθ, so mean_d g_d = ∇L. Forward mode with the
  same tangent u on every copy gives s_d = D_u ℓ_d with all copies moving together, so mean_d s_d = D_u L, and
  mean_d ∂(Σ_e s_e)/∂M_d = ∂(D_u L)/∂M: the tangent form.

So one rule holds in both cases: differentiate the local loss, then take `pmean` of what comes out, losses, gradients
and products alike. It holds for `check_vma=False` (`jax.pmap`'s setting) alone: with `check_vma=True`, parameters
count as replicated, `jax.grad` by itself sums over devices, and the `pmean` after it changes nothing: n times too much.

Hence the pmap form takes only methods that place their averages themselves (an argument `mean`), outside of every
derivative. `unrolled` differentiates through the inner update, which needs the averaged gradient: the average would lie
inside of what is differentiated.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from robpicker_jax.bilevel.hypergradients import METHODS, accepts
from robpicker_jax.bilevel.step import Metrics, Step, TrainState
from robpicker_jax.parallel.mesh import DATA_AXIS, replicated
from robpicker_jax.system.compilation import jit
from robpicker_jax.system.errors import InputError


def jit_step(step: Step, mesh: Mesh) -> Step:
    """The step compiled over the mesh: state and metrics on every device, the state donated, batches split."""
    return jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def pmap_step(step: Step, mesh: Mesh) -> Step:
    """The step compiled for each device's share of the batches.

    Args:
        step: made with `mean=mean_over_devices`, of networks whose batch norm runs over `DATA_AXIS`.
        mesh: the devices.
    """

    def on_one_device(state: TrainState, train: Any, meta_batch: Any) -> tuple[TrainState, Metrics]:
        state, metrics = step(state, train, meta_batch)

        def whole(leaf: jax.Array) -> jax.Array:
            gathered: jax.Array = (
                lax.all_gather(leaf, DATA_AXIS, tiled=True) if leaf.ndim else lax.pmean(leaf, DATA_AXIS)
            )
            return gathered

        inner, outer = jax.tree.map(whole, (metrics.inner, metrics.outer))
        return state, metrics._replace(inner=inner, outer=outer)

    mapped = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(None, DATA_AXIS), PartitionSpec(DATA_AXIS)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return jit(mapped, donate_argnums=0)


def mean_over_devices(tree: Any) -> Any:
    """Mean over the devices of what each computed from its share; for use in the pmap form, outside of derivatives."""
    return jax.tree.map(lambda leaf: lax.pmean(leaf, DATA_AXIS), tree)


def check_method(method: str) -> None:
    """Refuse a hypergradient method that cannot run in the pmap form.

    Raises:
        InputError: with the reason, and the methods that can.
    """
    if not accepts(method, "mean"):
        able = ", ".join(name for name in METHODS if accepts(name, "mean"))
        raise InputError(
            f"train.hypergradient {method} cannot run in the pmap form: it differentiates through the inner update, "
            "and so would through the average of gradients over devices",
            where="parallel.form",
            fix=f"use train.hypergradient tangent (as exact; also {able}), or parallel.form jit",
        )
