"""In which form the input of training is kept: tomograms on the devices or the host, label maps stored or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from robpicker_jax import parallel
from robpicker_jax.config import ParallelConfig, PatchConfig, Species, TrainConfig
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.system.memory import device_bytes, machine_bytes

Shape = tuple[int, int, int]
_USABLE = 0.8
_STEP_DOUBT = 2.0  # the estimate of a step's memory is good to about this factor
_LABEL_SHARE = 0.25  # of the free memory, for label maps of tomograms that stay in their files


def lives_on_devices(
    shapes: Mapping[str, Sequence[Shape]], patches: PatchConfig, devices_config: ParallelConfig, step_bytes: float
) -> bool:
    """Whether tomograms and label maps are kept on the devices.

    `patches.input` decides; where it is "auto", they are kept there if they fit beside a training step.

    Args:
        shapes: sizes of the tomograms in voxels, by split.
        patches: the section `patches`.
        devices_config: the section `parallel`.
        step_bytes: memory of one training step on all devices together.
    """
    if patches.input != "auto":
        return patches.input == "device"
    voxels = sum(len(sizes) * int(np.prod(np.max(sizes, axis=0))) for sizes in shapes.values() if sizes)
    devices = jax.local_devices()[: devices_config.devices]
    copies = len(devices) if devices[0].platform == "cpu" else 1
    step = _STEP_DOUBT * step_bytes / (len(devices) * jax.process_count() / copies)
    limit: float | None
    if devices_config.memory_limit_gib is not None:
        limit = devices_config.memory_limit_gib * 2**30
    else:
        free = [amount for device in devices if (amount := device_bytes(device, free=True)) is not None]
        limit = _USABLE * min(free) if free else None
    fits = limit is not None and 5 * voxels * copies + step <= limit
    return not parallel.any_process(not fits)


def labels_are_drawn(
    tomograms: Sequence[OpenedTomogram],
    rows_per_step: int,
    *,
    patches: PatchConfig,
    train: TrainConfig,
    species: Sequence[Species],
    resident: bool,
) -> bool:
    """Whether the labels of patches are drawn from coordinates, patch by patch, instead of cut from whole maps.

    `patches.labels` decides; where it is "auto", they are drawn if whole maps are more work or do not fit into memory.

    Args:
        tomograms: the tomograms of one split.
        rows_per_step: patches that a training step cuts from them.
        patches: the section `patches`.
        train: the section `train`.
        species: the species.
        resident: whether tomograms and maps are kept on the devices.
    """
    if patches.labels != "auto":
        return patches.labels == "drawn"
    voxels = sum(int(np.prod(tomogram.shape_zyx)) for tomogram in tomograms)
    if not resident and voxels > _LABEL_SHARE * (machine_bytes(free=True) or np.inf):
        return True
    count = sum(0 if tomogram.particles is None else len(tomogram.particles) for tomogram in tomograms)
    reach = patches.size + 2 * max(entry.radius_vox for entry in species)
    near = max(1.0, count * reach**3 / voxels)
    return train.steps * rows_per_step * near < count
