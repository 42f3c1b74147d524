"""The training step against PyTorch and against the matmul rate: plain, and bi-level with the exact hypergradient.

The network, weights and batches are the same on both sides (`benchmarks.hypergradients_torch`). All calls are timed in
turn within one process, so that a machine that slows down slows all of them. Ratios are medians over the rounds of the
ratio within a round; those of the smallest times stand beside them. On CPU the plain step is also timed with the C
library's default way of allocating memory, in a process of its own.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp

from benchmarks import hypergradients
from benchmarks._common import Row, main, row
from benchmarks._hypergradient_problem import Case, custom
from benchmarks.convolution import matmul
from benchmarks.hypergradients import PLAIN, TORCH, Measured
from robpicker_jax.models import PRESETS
from robpicker_jax.models.presets import UNetShape, convolutions
from robpicker_jax.models.work import work_of
from robpicker_jax.system.large_pages import KEEP, LARGE_PAGES

NAME = "step"
EXACT = "unrolled"
PRODUCT = "matrix product"
TWINS = {PLAIN: TORCH + "plain", EXACT: TORCH + "exact double backward"}
PASSES = {PLAIN: 3, EXACT: 8}
"""Forward passes through the U-Net that a step amounts to."""
QUICKSTART = Case(custom((8, 16, 24)), 32, 6, 4)
WIDER = Case(custom((16, 24, 32)), 32, 4, 4)
SMALL_PAGES = "small pages"


def useful_operations(shape: UNetShape, n_classes: int, edge: int, batch: int) -> float:
    """Operations of the convolutions of one forward pass, by their definition.

    The way in which a convolution is computed may take more operations; those do not count as useful.
    """
    return work_of(convolutions(shape, n_classes)).operations * edge**3 * batch


def measured(case: Case, names: list[str]) -> tuple[dict[str, Measured], float]:
    """Our steps, PyTorch's and a matrix product, timed in turn; and the operations of the product."""
    found = hypergradients.measure(case, names)
    try:
        theirs = hypergradients.torch_calls(case)
        found |= {name: theirs[name] for name in TWINS.values()}
    except ImportError:
        pass
    call, operations = matmul(jnp.dtype(case.dtype), 2048 if case.platform == "cpu" else 8192)
    found[PRODUCT] = Measured(call=call)
    hypergradients.interleave(found, case.rounds)
    return found, operations


def case_rows(case: Case) -> Iterator[Row]:
    """Times, rates and ratios of one network."""
    found, operations = measured(case, [EXACT])
    product = found[PRODUCT]
    edge = f"{round((operations / 2) ** (1 / 3))}³"
    rate = _rate(operations, product.smallest)
    yield row(NAME, f"{case.name}: {PRODUCT} {edge}", "rate, smallest time", _scaled(rate, 1e-9), "GFLOP/s")
    forward = useful_operations(case.shape, case.n_classes, case.edge, case.batch)
    for name, twin in TWINS.items():
        ours, theirs = found[name], found.get(twin, Measured(missing="torch is not installed"))
        record = functools.partial(row, NAME, f"{case.name}: {name}", why=ours.missing or "no value")
        work = PASSES[name] * forward
        yield record("time", _scaled(ours.seconds, 1e3), "ms")
        yield record("smallest time", _scaled(ours.smallest, 1e3), "ms")
        yield record("over the plain step", ours.over(found[PLAIN]), "x", better="lower")
        yield record("useful rate", _scaled(_rate(work, ours.seconds), 1e-9), "GFLOP/s")
        share = _scaled(product.over(ours), work / operations)
        yield record("share of the matmul rate", share, "", better="higher")
        yield record(
            "share of the matmul rate, smallest times", _scaled(product.smallest_over(ours), work / operations), ""
        )
        yield record("temporary memory, by the compiler", ours.temporary_mib, "MiB")
        why = theirs.missing or ours.missing
        yield record("PyTorch, smallest time", _scaled(theirs.smallest, 1e3), "ms", why=why)
        yield record("over PyTorch", ours.over(theirs), "x", why=why, better="lower")
        yield record("over PyTorch, smallest times", ours.smallest_over(theirs), "x", why=why)


def pages_row(case: Case) -> Row:
    """Time of the plain step with glibc's default memory allocation, over its time with large pages that are kept."""
    metric = "small memory pages, given back, over large ones, kept"
    record = functools.partial(row, NAME, f"{case.name}: {PLAIN}", metric)
    if LARGE_PAGES not in os.environ.get("GLIBC_TUNABLES", ""):
        return record(None, "x", why="this system gives no large pages on demand")
    times = []
    for tunables in ("glibc.malloc.hugetlb=0", f"{LARGE_PAGES}:{KEEP}"):
        command = [sys.executable, "-m", f"benchmarks.{NAME}", SMALL_PAGES]
        done = subprocess.run(
            command, env={**os.environ, "GLIBC_TUNABLES": tunables}, capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout.split()[-1]))
    return record(times[0] / times[1], "x")


def _rate(operations: float, seconds: float | None) -> float | None:
    return None if not seconds else operations / seconds


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases; the paper's setting where there is an accelerator."""
    cases = [replace(QUICKSTART, rounds=5)] if quick else [replace(case, rounds=11) for case in (QUICKSTART, WIDER)]
    for case in cases:
        yield from case_rows(case)
    if not quick:
        yield pages_row(QUICKSTART)
    platform = jax.default_backend()
    for dtype in ("float32", "bfloat16"):
        paper = Case(PRESETS["deepfinder"], 64, 25, 13, dtype, platform, 10)
        if quick or platform == "cpu":
            why = "left out by --quick" if quick else "no accelerator here"
            for name in TWINS:
                label = f"{replace(paper, platform='accelerator').name}: {name}"
                for metric, unit in (("time", "ms"), ("useful rate", "GFLOP/s"), ("over PyTorch", "x")):
                    yield row(NAME, label, metric, None, unit, why=why)
        else:
            yield from case_rows(paper)


def _main(arguments: list[str]) -> None:
    if arguments == [SMALL_PAGES]:
        found, _ = measured(replace(QUICKSTART, rounds=7), [])
        print(found[PLAIN].smallest)
        return
    main(NAME, run, arguments, keep_memory=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
