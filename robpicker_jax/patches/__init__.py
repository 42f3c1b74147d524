"""Training and meta batches of patches: a batch is a pure function of (seed, step).

`BatchSource` cuts the batches on the host, from tomograms in memory or in files, `device.cut` on the device, from
tomograms that lie there; `prefetch` has the next ones cut while a step runs.
"""

from __future__ import annotations

from robpicker_jax.patches.augmentation import Turn, draw_turn, rotated_patch
from robpicker_jax.patches.loader import Batch, BatchSource
from robpicker_jax.patches.prefetch import Prefetcher, prefetch
from robpicker_jax.patches.sampling import PatchPlan, PatchSampler, PatchTomogram

__all__ = [
    "Batch",
    "BatchSource",
    "PatchPlan",
    "PatchSampler",
    "PatchTomogram",
    "Prefetcher",
    "Turn",
    "draw_turn",
    "prefetch",
    "rotated_patch",
]
