"""What a training step waits for its input: patches cut on the device or on the host, label maps stored or drawn.

Ten training tomograms and one of the meta set, (200, 512, 512) each, of noise with particles at random places; the step
is the quickstart's. The wait share is what the trainer logs: the share of time in which the devices had nothing left to
do and the next batch was not there. The cost share also has what the cutting takes from the step where they share
processors: 1 − (time of the step on one batch, again and again) / (time of the step with its input).
"""

from __future__ import annotations

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
READY = 4
"""The feed prepares no more than this many batches ahead."""
FORMS = (("device", "stored"), ("device", "drawn"), ("host", "stored"), ("host", "drawn"))
QUICK_FORMS = (FORMS[0], FORMS[3])


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    from robpicker_jax.config import load_config
    from robpicker_jax.system.compilation import enable_persistent_cache

    enable_persistent_cache()
    shape, tomograms, particles, steps = ((64, 192, 192), 3, 150, 10) if quick else (SHREC, 10, 2500, 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tomograms(folder, shape, tomograms, particles)
        overrides = [f"data.dir={folder}", "data.voxel_size_angstrom=13", "train.steps=1000000"]
        config = load_config(None, overrides)
        step = Step(config)
        yield row(NAME, "quickstart's step", "work", step.plan.operations / 1e9, "GFLOP")
        for form, labels in QUICK_FORMS if quick else FORMS:
            case = f"{tomograms} tomograms of {shape}, {form} input, labels {labels}"
            start = "" if (form, labels) == FORMS[0] else ", scalings known"
            yield from _form_rows(_settings(config, input=form, labels=labels), folder, case, start, step, steps)


def write_tomograms(folder: Path, shape: tuple[int, int, int], count: int, particles: int) -> None:
    """A data set of noise with particles of three species at random places and angles."""
    from robpicker_jax.annotations import Particles, write_annotations
    from robpicker_jax.annotations.geometry import random_rotations
    from robpicker_jax.volumes import write_mrc

    rng = np.random.default_rng(0)
    density = rng.standard_normal(shape, dtype=np.float32)
    for split, n, shift in (("train", count, 0), ("meta", 1, count)):
        (folder / split).mkdir(parents=True)
        for index in range(n):
            write_mrc(folder / split / f"{split}_{index}.mrc", np.roll(density, shift + index, axis=2), 13.0)
            positions = rng.uniform(0, 1, (particles, 3)) * (np.array(shape[::-1]) - 1)
            found = Particles(positions, rng.integers(1, 4, particles), random_rotations(particles, rng))
            write_annotations(folder / split / f"{split}_{index}_objl.xml", found)


def _settings(config: Any, **patches: Any) -> Any:
    return replace(config, patches=replace(config.patches, **patches))


def _form_rows(config: Any, folder: Path, case: str, start: str, step: Step, steps: int) -> Iterator[Row]:
    """One form of input: how fast it makes batches when nothing else runs, and what a step waits for it."""
    from robpicker_jax.training.data import load_training_data

    began = time.perf_counter()
    data = load_training_data(
        folder,
        data=config.data,
        patches=config.patches,
        model=config.model,
        train=config.train,
        parallel=config.parallel,
        scalings=folder / "scalings.json",
    )
    yield row(NAME, case, f"to load{start}", time.perf_counter() - began, "s")
    patches = 2 * config.train.batch_size
    ahead = data.batches(step.mesh)(0)
    try:
        time_s = seconds(lambda: [next(ahead) for _ in range(BATCHES)], repeats=2) / BATCHES
        yield row(NAME, case, "patches made", patches / time_s, "1/s")
        yield row(NAME, case, "a batch pair", 1e3 * time_s, "ms")
        yield from _waiting(case, ahead, step, steps, patches)
    finally:
        ahead.close()  # type: ignore[attr-defined]


def _waiting(case: str, ahead: Iterator[Any], step: Step, steps: int, patches: int) -> Iterator[Row]:
    """Steps with this input, and on one batch again and again, in turns, since a machine's speed drifts."""
    from robpicker_jax.training.metrics_log import SilentLog

    fixed = next(ahead)
    times: dict[str, list[float]] = {"input": [], "fixed": []}
    log = SilentLog()
    for _ in range(2):
        # These batches were prepared while no step ran; steps that took them would seem faster than they are.
        for _ in range(READY):
            next(ahead)
        step.take(ahead, READY, SilentLog())
        log.reset_clock()
        began = time.perf_counter()
        step.take(ahead, steps // 2, log)
        times["input"].append(time.perf_counter() - began)
        log.pace(0)
        began = time.perf_counter()
        step.take(iter(lambda: fixed, None), steps // 2, SilentLog())
        times["fixed"].append(time.perf_counter() - began)
    with_input, alone = (min(times[kind]) / (steps // 2) for kind in ("input", "fixed"))
    yield row(NAME, case, "step with its input", 1e3 * with_input, "ms")
    yield row(NAME, case, "step on one batch", 1e3 * alone, "ms")
    yield row(NAME, case, "patches trained on", patches / with_input, "1/s")
    yield row(NAME, case, "wait share", 100 * (log.wait_share() or 0.0), "%")
    yield row(NAME, case, "cost share", 100 * (1 - alone / with_input), "%")


class Step:
    """The quickstart's compiled step and the state that it goes on from."""

    def __init__(self, config: Any) -> None:
        from robpicker_jax.training.experiment import build_experiment
        from robpicker_jax.training.plan import prepare

        experiment, self.plan = prepare(build_experiment(config))
        self.mesh, self._step, self._state = experiment.mesh, experiment.step, experiment.state

    def take(self, source: Iterator[Any], steps: int, log: Any) -> None:
        """Some steps as the trainer takes them: the last one's metrics are read while the present one runs."""
        import jax

        from robpicker_jax.training.trainer import next_batch

        pending = None
        for _ in range(steps):
            train, meta = next_batch(source, pending, log)
            self._state, metrics = self._step(self._state, train, meta)
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        jax.block_until_ready(self._state)


if __name__ == "__main__":
    main(NAME, run)
