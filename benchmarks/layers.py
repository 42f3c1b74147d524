"""Where a plain step's time goes: the network's convolutions one by one, and what remains.

The step is timed as it is, and every convolution of the network by itself, at the step's own sizes and compiled in the
same way: its output, its input gradient and its weight gradient. All take turns within each round, each called twice and
timed the second time, when its data are in the processor's caches. The step takes longer than the sum of its convolutions
by normalisation, ReLU, pooling, the loss, the label-correction network and the optimiser, and because in the step other
data displace those of a convolution from the caches.
Figures are medians over the rounds.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._common import Row, main, row
from benchmarks._hypergradient_problem import Case
from benchmarks.convolution import SUMS, maps, matmul_rate
from benchmarks.hypergradients import PLAIN, measure
from benchmarks.step import QUICKSTART, WIDER
from robpicker_jax.models.conv import conv3d, transposed_conv3d
from robpicker_jax.models.presets import convolutions
from robpicker_jax.system.compilation import jit

NAME = "layers"


@dataclass
class Part:
    """One map of one layer: a call that waits, what it computes, and the times of its calls."""

    layer: str
    kind: str
    call: Callable[[], Any]
    operations: float
    times: list[float] = field(default_factory=list)


def parts(case: Case) -> Iterator[Part]:
    """All maps that a plain step of the network computes; the first layer needs no input gradient."""
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32), case.dtype)

    for number, (taps, channels, features, level) in enumerate(convolutions(case.shape, case.n_classes)):
        edge = case.edge >> level
        upsampling = taps == 1 and features != case.n_classes
        size = {27: 3, 8: 2, 1: 1}[taps]
        inner = edge // 2 if upsampling else edge
        kernel = noise(2, 2, 2, channels, features) if upsampling else noise(size, size, size, channels, features)
        x, g = noise(case.batch, *[inner] * 3, channels), noise(case.batch, *[edge] * 3, features)
        name = f"{edge}³, {channels} → {features}" + (", upsampling" if upsampling else f", {size}³ taps")
        for kind, function in maps(transposed_conv3d if upsampling else conv3d).items():
            if number > 0 or kind != SUMS[1]:
                compiled = jit(function)
                jax.block_until_ready(compiled(x, kernel, g))
                call = functools.partial(lambda f, *a: jax.block_until_ready(f(*a)), compiled, x, kernel, g)
                yield Part(name, kind, call, 2.0 * taps * channels * features * edge**3 * case.batch)


def case_rows(case: Case) -> Iterator[Row]:
    """Times by kind, by layer, and the remainder."""
    rate = matmul_rate(jnp.dtype(case.dtype), 2048 if case.platform == "cpu" else 8192)
    found = list(parts(case))
    step = Part("", PLAIN, measure(case, [])[PLAIN].call or _nothing, 0.0)
    for number in range(case.rounds):
        order = [step, *found]
        for part in order if number % 2 == 0 else order[::-1]:
            part.call()
            start = time.perf_counter()
            part.call()
            part.times.append(time.perf_counter() - start)
    whole = median(step.times)
    yield row(NAME, f"{case.name}: {PLAIN}", "time", whole * 1e3, "ms")
    remaining = 1.0
    for kind in SUMS:
        members = [part for part in found if part.kind == kind]
        spent, work = sum(median(part.times) for part in members), sum(part.operations for part in members)
        remaining -= spent / whole
        record = functools.partial(row, NAME, f"{case.name}: all layers' {kind}")
        yield record("time", spent * 1e3, "ms")
        yield record("share of the step's time", spent / whole, "")
        yield record("share of the matmul rate", work / spent / rate, "")
    yield row(NAME, f"{case.name}: all else", "share of the step's time", remaining, "")
    by_layer: dict[str, list[Part]] = defaultdict(list)
    for part in found:
        by_layer[part.layer].append(part)
    for layer, members in by_layer.items():
        for kind in SUMS:
            same = [part for part in members if part.kind == kind]
            if same:
                achieved = same[0].operations / median([median(part.times) for part in same])
                what = f"{case.name}: {layer}"
                yield row(NAME, what, f"{kind}, share of the matmul rate", achieved / rate, "", better="higher")


def _nothing() -> None:
    raise RuntimeError("the plain step could not be compiled")


def run(quick: bool) -> Iterator[Row]:
    """Rows of the quickstart's network, and of a wider one."""
    for case in [replace(QUICKSTART, rounds=5)] if quick else [replace(c, rounds=15) for c in (QUICKSTART, WIDER)]:
        yield from case_rows(case)


if __name__ == "__main__":
    main(NAME, run, keep_memory=True)
