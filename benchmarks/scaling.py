"""How a training step grows with batch, patch, width and devices: time, time a voxel, and the exponent of the growth.

An exponent of 1 against the number of voxels means that twice the voxels take twice the time. For width an
exponent of 2 is expected, since the work grows with its square.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from benchmarks import hypergradients
from benchmarks._common import Row, main, row
from benchmarks._hypergradient_problem import Case, custom
from benchmarks.hypergradients import PLAIN, Measured
from benchmarks.step import EXACT

NAME = "scaling"
WIDTHS = (8, 16, 24)


def _measured(cases: Sequence[Case], names: list[str]) -> list[dict[str, Measured]]:
    """All sizes of a series, timed in turn."""
    found = [hypergradients.measure(case, names) for case in cases]
    calls = {f"{index} {name}": result for index, results in enumerate(found) for name, result in results.items()}
    hypergradients.interleave(calls, cases[0].rounds)
    return found


def series_rows(label: str, sizes: Sequence[float], cases: Sequence[Case], names: list[str]) -> Iterator[Row]:
    """Time a voxel of each size, and the slope of log time over log size."""
    found = _measured(cases, names)
    for name in (PLAIN, *names):
        times = [results[name].seconds for results in found]
        for case, taken in zip(cases, times, strict=True):
            voxels = case.batch * case.edge**3
            yield row(NAME, f"{label}: {case.name}, {name}", "time", None if taken is None else taken * 1e3, "ms")
            yield row(
                NAME,
                f"{label}: {case.name}, {name}",
                "time a voxel",
                None if taken is None else taken / voxels * 1e9,
                "ns",
            )
        known = [value for value in times if value is not None]
        slope = None
        if len(known) == len(sizes):
            slope = float(np.polyfit(np.log(sizes), np.log(known), 1)[0])
        yield row(
            NAME,
            f"{label}: {name}",
            f"exponent of the time against {label}",
            slope,
            "",
            why="a size failed",
            better="lower",
        )


def device_rows(case: Case) -> Iterator[Row]:
    """One global batch on one device and on all: the speed-up."""
    count, label = jax.local_device_count(), "devices"
    if count < 2:
        yield row(NAME, f"{label}: {case.name}", "speed-up on all devices", None, "x", why="one device here")
        return
    from benchmarks._hypergradient_problem import setup
    from robpicker_jax import parallel
    from robpicker_jax.bilevel import hypergradient
    from robpicker_jax.system.compilation import jit

    times = {}
    for devices in (1, count):
        mesh = parallel.data_mesh(devices)
        problem, (*trees, train, meta) = setup(replace(case, batch=case.batch * count), case.dtype)
        placed = [parallel.replicate(tree, mesh) for tree in trees]
        placed += [parallel.shard(train, mesh, 1), parallel.shard(meta, mesh)]
        step = jit(hypergradient(EXACT, problem))
        times[devices] = _best(functools.partial(_waiting, step, placed))
    yield row(
        NAME, f"{label}: {case.name}", f"speed-up on {count} devices", times[1] / times[count], "x", better="higher"
    )


def _waiting(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return jax.block_until_ready(function(*arguments))


def _best(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def run(quick: bool) -> Iterator[Row]:
    """Rows of all series."""
    platform = jax.default_backend()
    names = [] if quick else [EXACT]
    base = Case(custom(WIDTHS), 32, 4, 4, "float32", platform, 3 if quick else 7)
    batches = (1, 2, 4) if quick else (1, 2, 4, 8, 16)
    yield from series_rows("batch", batches, [replace(base, batch=n) for n in batches], names)
    if quick:
        return
    edges = (16, 32, 48, 64)
    yield from series_rows("voxels", [n**3 for n in edges], [replace(base, edge=n, batch=2) for n in edges], names)
    factors = (1, 2, 4)
    shapes = [custom((factor * WIDTHS[0], factor * WIDTHS[1], factor * WIDTHS[2])) for factor in factors]
    yield from series_rows("width", factors, [replace(base, shape=shape, batch=2) for shape in shapes], names)
    yield from device_rows(base)


if __name__ == "__main__":
    main(NAME, run, keep_memory=True)
