"""What a training step waits for its input: patches cut on the device or on the host, label maps stored or drawn.

Ten training tomograms and one of the meta set, (200, 512, 512) each, of noise with particles at random places; the step
is the quickstart's. The wait share is what the trainer logs: the share of time in which the devices had nothing left to
do and the next batch was not there. The cost share also has what the cutting takes from the step where they share
processors: 1 − (time of the step on one batch, again and again) / (time of the step with its input).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Row, main, row, seconds

NAME = "input"
SHREC = (200, 512, 512)
BATCHES = 20


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    from robpicker_jax.compilation import enable_persistent_cache
    from robpicker_jax.config import load_config

    enable_persistent_cache()
    shape, tomograms, particles, steps = ((64, 192, 192), 3, 150, 8) if quick else (SHREC, 10, 2500, 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tomograms(folder, shape, tomograms, particles)
        overrides = [f"data.dir={folder}", "data.voxel_size_angstrom=13", "train.steps=1000000"]
        config = load_config(None, overrides)
        size = f"{tomograms} tomograms of {shape}"
        yield from _making(config, folder, size, quick)
        yield from _waiting(config, folder, size, steps, quick)


def write_tomograms(folder: Path, shape: tuple[int, int, int], count: int, particles: int) -> None:
    """A data set of noise with particles of three species at random places and angles."""
    from robpicker_jax.annotations import Particles, write_annotations
    from robpicker_jax.geometry import random_rotations
    from robpicker_jax.volumes import write_mrc

    rng = np.random.default_rng(0)
    density = rng.standard_normal(shape, dtype=np.float32)
    for split, n in (("train", count), ("meta", 1)):
        (folder / split).mkdir(parents=True)
        for index in range(n):
            write_mrc(folder / split / f"{split}_{index}.mrc", np.roll(density, index, axis=2), 13.0)
            positions = rng.uniform(0, 1, (particles, 3)) * (np.array(shape[::-1]) - 1)
            found = Particles(positions, rng.integers(1, 4, particles), random_rotations(particles, rng))
            write_annotations(folder / split / f"{split}_{index}_objl.xml", found)


def _settings(config: Any, **patches: Any) -> Any:
    return replace(config, patches=replace(config.patches, **patches))


def _making(config: Any, folder: Path, size: str, quick: bool) -> Iterator[Row]:
    """How fast batches are made when nothing else runs, and what the start takes."""
    from robpicker_jax import parallel
    from robpicker_jax.training_data import load_training_data

    mesh = parallel.data_mesh()
    rows = 2 * config.train.batch_size
    forms = [("device", "stored"), ("host", "stored"), ("host", "drawn")] + ([] if quick else [("device", "drawn")])
    scalings = folder / "scalings.json"
    for form, labels in forms:
        settings = _settings(config, input=form, labels=labels)
        case = f"{size}, {form} input, labels {labels}"
        began = time.perf_counter()
        data = load_training_data(settings, folder, scalings=scalings)
        known = "" if (form, labels) == forms[0] else ", scalings known"
        yield row(NAME, case, f"to load{known}", time.perf_counter() - began, "s")
        ahead = data.batches(mesh)(0)
        time_s = seconds(lambda source=ahead: [next(source) for _ in range(BATCHES)], repeats=2) / BATCHES  # type: ignore[misc]
        ahead.close()  # type: ignore[attr-defined]
        yield row(NAME, case, "patches made", rows / time_s, "1/s")
        yield row(NAME, case, "a batch pair", 1e3 * time_s, "ms")


def _waiting(config: Any, folder: Path, size: str, steps: int, quick: bool) -> Iterator[Row]:
    """The quickstart's step with each input, and on one batch again and again."""
    import jax

    from robpicker_jax.experiment import build_experiment
    from robpicker_jax.plan import prepare
    from robpicker_jax.trainer import SilentLog
    from robpicker_jax.training_data import load_training_data

    experiment, plan = prepare(build_experiment(config))
    yield row(NAME, "quickstart's step", "work", plan.operations / 1e9, "GFLOP")
    for form, labels in (
        (("device", "stored"), ("host", "drawn"))
        if quick
        else (
            ("device", "stored"),
            ("device", "drawn"),
            ("host", "stored"),
            ("host", "drawn"),
        )
    ):
        data = load_training_data(
            _settings(config, input=form, labels=labels), folder, scalings=folder / "scalings.json"
        )
        ahead = data.batches(experiment.mesh)(0)
        fixed = next(ahead)
        state = jax.tree.map(lambda leaf: leaf.copy(), experiment.state)
        times: dict[str, list[float]] = {"input": [], "fixed": []}
        log = SilentLog()
        for kind in ("input", "fixed") * 2:  # in turns, since a machine's speed drifts
            source = ahead if kind == "input" else iter(lambda batch=fixed: batch, None)  # type: ignore[misc]
            if kind == "input":
                log.reset_clock()
            began = time.perf_counter()
            state = _train(experiment.step, state, source, steps // 2, log)
            times[kind].append(time.perf_counter() - began)
            if kind == "input":
                log.pace(0)
        ahead.close()  # type: ignore[attr-defined]
        with_input, alone = (min(times[kind]) / (steps // 2) for kind in ("input", "fixed"))
        case = f"{size}, {form} input, labels {labels}, {os.cpu_count()} cores"
        patches = 2 * config.train.batch_size
        yield row(NAME, case, "step with its input", 1e3 * with_input, "ms")
        yield row(NAME, case, "step on one batch", 1e3 * alone, "ms")
        yield row(NAME, case, "patches trained on", patches / with_input, "1/s")
        yield row(NAME, case, "wait share", 100 * (log.wait_share() or 0.0), "%")
        yield row(NAME, case, "cost share", 100 * (1 - alone / with_input), "%")


def _train(step: Any, state: Any, source: Iterator[Any], steps: int, log: Any) -> Any:
    """Some steps as the trainer takes them: the last one's metrics are read while the present one runs."""
    import jax

    from robpicker_jax.trainer import next_batch

    pending = None
    for _ in range(steps):
        train, meta = next_batch(source, pending, log)
        state, metrics = step(state, train, meta)
        if pending is not None:
            jax.device_get(pending)
        pending = metrics
    return jax.block_until_ready(state)


if __name__ == "__main__":
    main(NAME, run)
