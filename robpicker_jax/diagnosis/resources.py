"""Memory and time of a configuration, roughly (see `training/workload.py`)."""

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
    work = step_operations(config.model, config.train, n_classes=n_classes, patch_size=config.patches.size)
    memory = step_bytes(
        config.model,
        config.train,
        n_classes=n_classes,
        patch_size=config.patches.size,
        micro_batches=config.parallel.micro_batches,
        parameters=parameters,
    )
    volumes = [o for o in observations if o.header and o.tomogram.split in ("train", "meta", "val")]
    voxels = sum(int(np.prod(o.header.shape_zyx)) for o in volumes if o.header)
    rate, device = measured_rate()
    tile = config.inference.tile_edge(config.patches.size)
    usual = float(np.median([int(np.prod(o.header.shape_zyx)) for o in observations if o.header] or [0]))
    repeated = (tile / max(1, tile - config.inference.overlap_vox)) ** 3
    return Estimate(
        parameters,
        memory / 2**30,
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
        f"{config.train.steps:,} steps about {duration(needs.train_hours * 3600)}, one tomogram about "
        f"{duration(needs.tomogram_minutes * 60)} on this machine ({needs.device}, {needs.gflops:.0f} GFLOP/s assumed; "
        "within a factor of 3)"
    )
    findings.append(Finding("info", "resources", what, "", (), {**vars(needs), "available_gib": have}))
    return findings


def duration(seconds: float) -> str:
    """Seconds in words."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
