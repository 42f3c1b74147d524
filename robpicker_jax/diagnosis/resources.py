"""Patches and tiles against volumes and radii; memory and time of a configuration, roughly (see `workload`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.config import Config
from robpicker_jax.diagnosis.findings import Finding
from robpicker_jax.diagnosis.observation import Observation
from robpicker_jax.system.memory import device_bytes
from robpicker_jax.training.workload import count_parameters, forward_work, step_bytes, step_operations

_EFFICIENCY = 0.35  # of the matrix product's rate that convolutions reach
_RADII_IN_PATCH = 3.0


def check_patches(observations: Sequence[Observation], config: Config) -> list[Finding]:
    """Patches fit volumes, particles, shifts and the U-Net; the smallest cluster fits the species."""
    from robpicker_jax.models import build_backbone

    findings = []
    size, shift = config.patches.size, config.patches.shift_vox
    small = [o for o in observations if o.header and min(o.header.shape_zyx) < size]
    if small:
        depth, height, width = small[0].header.shape_zyx if small[0].header else (0, 0, 0)
        what = f"a patch of {size} does not fit {small[0].name} of {width} x {height} x {depth} voxels"
        fix = f"set patches.size to {min(depth, height, width)} or less"
        where = tuple(o.name for o in small)
        findings.append(Finding("error", "patch_too_large", what, fix, where, {"patch": size}))
    factor = build_backbone(config.model, len(config.data.species) + 1).stride
    for key, edge in (("patches.size", size), ("inference.tile", config.inference.tile or size)):
        if edge % factor:
            lower = edge - edge % factor
            what = f"{key}: {edge} is not divisible by the stride of the segmentation network"
            fix = f"use a multiple of {factor}" + (f", {lower} or {lower + factor}" if lower else "")
            findings.append(Finding("error", "patch_stride", what, fix, (), {"stride": factor, "edge": edge}))
    largest = max(config.data.species, key=lambda species: species.radius_vox)
    radius = largest.radius_vox
    if size < _RADII_IN_PATCH * radius:
        what = f"a patch of {size} voxels holds {size / radius:.1f} radii of {largest.name} ({radius:g} voxels)"
        fix = f"set patches.size to {-(-int(np.ceil(4 * radius)) // factor) * factor} or more"
        findings.append(Finding("warning", "patch_small", what, fix, (), {"patch": size, "radius_vox": radius}))
    elif shift > size / 2 - 0.5 * radius:
        what = f"shifts of {shift} voxels cut particles of radius {radius:g} at the border of a patch of {size}"
        fix = f"set patches.shift_vox to {max(0, int(size / 2 - radius))} or less"
        evidence = {"patch": size, "shift_vox": shift, "radius_vox": radius}
        findings.append(Finding("warning", "shift", what, fix, (), evidence))
    for species in config.data.species:
        smallest = species.min_cluster_vox or config.picking.min_cluster_vox
        volume = 4 / 3 * np.pi * species.radius_vox**3
        if smallest > volume:
            what = f"{species.name}: clusters under {smallest} voxels are dropped, its sphere has {volume:.0f}"
            fix = f"set min_cluster_vox to about {max(1, round(volume / 5))}"
            evidence = {"min_cluster_vox": smallest, "sphere_vox": volume}
            findings.append(Finding("warning", "min_cluster", what, fix, (), evidence))
    return findings


@dataclass(frozen=True)
class Estimate:
    """What a configuration will need.

    Attributes:
        parameters: of the U-Net and the meta networks.
        step_gib: memory of a training step: activations, parameters, optimisers.
        data_gib: tomograms and label maps of train, meta and val in memory.
        step_tflop: operations of a training step.
        train_hours: time of train.steps at this machine's rate.
        tomogram_minutes: time to segment one tomogram of the data set.
        gflops: the rate assumed.
        device: what it was measured on.
    """

    parameters: int
    step_gib: float
    data_gib: float
    step_tflop: float
    train_hours: float
    tomogram_minutes: float
    gflops: float
    device: str


def estimate(observations: Sequence[Observation], config: Config) -> Estimate:
    """Memory and time of a configuration on this machine; rough, see the module's docstring."""
    n_classes = len(config.data.species) + 1
    operations = forward_work(config.model, n_classes).operations
    parameters = sum(count_parameters(config.model, config.train, n_classes).values())
    work = step_operations(config)
    volumes = [o for o in observations if o.header and o.tomogram.split in ("train", "meta", "val")]
    voxels = sum(int(np.prod(o.header.shape_zyx)) for o in volumes if o.header)
    rate, device = measured_rate()
    tile = config.inference.tile or config.patches.size
    usual = float(np.median([int(np.prod(o.header.shape_zyx)) for o in observations if o.header] or [0]))
    repeated = (tile / max(1, tile - config.inference.overlap_vox)) ** 3
    return Estimate(
        parameters,
        step_bytes(config, parameters) / 2**30,
        voxels * 5 / 2**30,
        work / 1e12,
        work * config.train.steps / (rate * _EFFICIENCY) / 3600,
        usual * repeated * operations / (rate * _EFFICIENCY) / 60,
        rate * _EFFICIENCY / 1e9,
        device,
    )


def measured_rate() -> tuple[float, str]:
    """Operations a second of a matrix product on the first device, and the device's name."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    n = 1024 if device.platform == "cpu" else 8192
    product = jax.jit(lambda a: a @ a)
    matrix = jnp.ones((n, n), jnp.float32)
    product(matrix).block_until_ready()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        product(matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best, f"{len(jax.devices())} x {device.device_kind}"


def available_gib() -> float | None:
    """Memory that training could use: the device's, on CPU the machine's or its container's; None if unknown."""
    import jax

    have = device_bytes(jax.devices()[0])
    return None if have is None else have / 2**30


def check_resources(observations: Sequence[Observation], config: Config) -> list[Finding]:
    """The estimate as a finding, and a warning where memory will not do."""
    needs = estimate(observations, config)
    findings = []
    have = available_gib()
    on_cpu = "cpu" in needs.device.lower()
    total = needs.step_gib + (needs.data_gib if on_cpu else 0.0)
    if have is not None and total > 0.9 * have:
        what = f"training needs about {total:.1f} GiB, this machine has {have:.1f} ({needs.device})"
        fix = "lower train.batch_size or patches.size, set model.remat: true or model.compute_dtype: bfloat16"
        findings.append(Finding("warning", "memory", what, fix, (), {"needed_gib": total, "available_gib": have}))
    what = (
        f"{needs.parameters:,} parameters; a step about {needs.step_gib:.2f} GiB and {needs.step_tflop:.3g} TFLOP; "
        f"{config.train.steps:,} steps about {_duration(needs.train_hours * 3600)}, one tomogram about "
        f"{_duration(needs.tomogram_minutes * 60)} on this machine ({needs.device}, {needs.gflops:.0f} GFLOP/s assumed; "
        "within a factor of 3)"
    )
    findings.append(Finding("info", "resources", what, "", (), {**vars(needs), "available_gib": have}))
    return findings


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
