"""Training and meta batches of patches: a batch is a pure function of (seed, step).

`SAMPLERS` say where patches lie, `AUGMENTATIONS` how they are turned; both are chosen by name in the configuration.
`BatchSource` cuts the batches on the host, from tomograms in memory or in files, `device.cut` on the device, from
tomograms in its memory; `prefetch` prepares the next ones while a step runs.
"""

from __future__ import annotations

from robpicker_jax.patches.augmentation import AUGMENTATIONS, Augmentation, Augmenter
from robpicker_jax.patches.loader import Batch, BatchSource, check_names
from robpicker_jax.patches.prefetch import Prefetcher, prefetch
from robpicker_jax.patches.samplers import SAMPLERS, Draw, Sampler, SamplerSettings
from robpicker_jax.patches.tomogram_set import PatchPlan, PatchTomogram, TomogramSet

__all__ = [
    "AUGMENTATIONS",
    "SAMPLERS",
    "Augmentation",
    "Augmenter",
    "Batch",
    "BatchSource",
    "Draw",
    "PatchPlan",
    "PatchTomogram",
    "Prefetcher",
    "Sampler",
    "SamplerSettings",
    "TomogramSet",
    "check_names",
    "prefetch",
]
