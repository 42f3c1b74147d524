"""Many devices: mesh and placement, several processes; the training step over a mesh is in `parallel.steps`.

What picks needs the mesh alone, and so loads neither optax nor `bilevel`.
"""

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

__all__ = [
    "DATA_AXIS",
    "any_process",
    "as_first",
    "batch_sharding",
    "check_batch",
    "data_mesh",
    "is_first",
    "joined",
    "local",
    "process_share",
    "replicate",
    "replicated",
    "shard",
    "start",
    "value_of_first",
]
