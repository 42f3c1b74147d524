"""Many devices: mesh and placement, the step in its two forms, several processes."""

from __future__ import annotations

from robpicker_jax.parallel.mesh import (
    DATA_AXIS,
    batch_sharding,
    check_batch,
    data_mesh,
    joined,
    local,
    replicate,
    replicated,
    shard,
)
from robpicker_jax.parallel.processes import any_process, as_first, is_first, process_share, start, value_of_first
from robpicker_jax.parallel.steps import check_method, jit_step, mean_over_devices, pmap_step

__all__ = [
    "DATA_AXIS",
    "any_process",
    "as_first",
    "batch_sharding",
    "check_batch",
    "check_method",
    "data_mesh",
    "is_first",
    "jit_step",
    "joined",
    "local",
    "mean_over_devices",
    "pmap_step",
    "process_share",
    "replicate",
    "replicated",
    "shard",
    "start",
    "value_of_first",
]
