"""Training and meta batches of patches: a batch is a pure function of (seed, step).

`BatchSource` cuts the batches, from tomograms in memory; `prefetch` cuts the next ones while a step runs.
"""

from __future__ import annotations

from robpicker_jax.patches.augmentation import Turn, draw_turn, rotated_patch
from robpicker_jax.patches.loader import Batch, BatchSource, Prefetcher, prefetch
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
