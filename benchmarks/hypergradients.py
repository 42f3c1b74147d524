"""Every hypergradient method on RobPicker's own problem: error, time, compile time, work, memory; PyTorch beside it.

Errors are against `unrolled` in float64 at the same weights and batches. Times are taken in turn within one process
(one call of each method, then the next round, in another order), so that a machine that slows down slows all of them.
Ratios are medians over the rounds of the ratio within a round; those of the smallest times stand beside them. With
`--figure FILE` the error of finite differences against ε is drawn (not with `--quick`, which leaves it out).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row
from benchmarks._hypergradient_epsilon import draw, epsilon_rows
from benchmarks._hypergradient_problem import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Case,
    batch,
    cosine,
    custom,
    flat,
    oracle,
    relative_error,
    setup,
    trees,
)
from robpicker_jax.bilevel import hypergradient
from robpicker_jax.bilevel.problem import Carry, run_inner_steps
from robpicker_jax.models import PRESETS
from robpicker_jax.system.compilation import compile_options

NAME = "hypergradients"
PLAIN, TORCH = "plain step", "PyTorch, "
NO_TORCH = "torch is not installed"
METHODS: dict[str, tuple[int, dict[str, Any]]] = {
    "unrolled": (1, {}),
    "tangent": (1, {}),
    "forward_over_reverse": (1, {}),
    "finite_difference": (1, {}),
    "darts": (1, {}),
    "none": (1, {}),
    "neumann": (1, {"terms": 5, "step": LEARNING_RATE}),
    "conjugate_gradient": (1, {"terms": 5}),
    "truncated": (5, {"last": 1}),
}
"""Inner steps and options of each method."""
SLOW = {"neumann", "conjugate_gradient", "truncated"}
"""Methods of several times the work, timed in fewer rounds."""
RATIOS = [(exact, base) for base in (PLAIN, "finite_difference") for exact in ("unrolled", "tangent")]


@dataclass
class Measured:
    """What was seen of one method; `missing` says why there is nothing."""

    call: Callable[[], Any] | None = None
    hypergradient: np.ndarray | None = None
    losses: tuple[float, float] | None = None
    compile_s: float | None = None
    gflop: float | None = None
    temporary_mib: float | None = None
    peak_mib: float | None = None
    times: dict[int, float] = field(default_factory=dict)
    missing: str = ""

    @property
    def seconds(self) -> float | None:
        """Median time of a call."""
        return median(self.times.values()) if self.times else None

    @property
    def smallest(self) -> float | None:
        """Smallest time of a call."""
        return min(self.times.values()) if self.times else None

    def smallest_over(self, other: Measured) -> float | None:
        """Ratio of the smallest times."""
        return None if self.smallest is None or other.smallest is None else self.smallest / other.smallest

    def over(self, other: Measured) -> float | None:
        """Median over the rounds that both have of the ratio of times."""
        both = self.times.keys() & other.times.keys()
        return median(self.times[i] / other.times[i] for i in both) if both else None


def compiled(case: Case, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Measured:
    """The function compiled for the case's device as the trainer compiles its step, and what the compiler says."""
    start = time.perf_counter()
    lowered = jax.jit(function, compiler_options=compile_options(case.platform)).lower(*arguments)
    program = lowered.compile()
    result = Measured(compile_s=time.perf_counter() - start)
    memory, cost = program.memory_analysis(), program.cost_analysis()
    if memory is not None:
        result.temporary_mib = memory.temp_size_in_bytes / 2**20
    flops = (cost[0] if isinstance(cost, list) else cost or {}).get("flops")
    if flops is not None:
        result.gflop = flops / 1e9
    result.call = lambda: jax.block_until_ready(program(*arguments))
    return result


def first_call(case: Case, measured: Measured) -> Measured:
    """Fill in peak memory and values, in the call that also warms up."""
    assert measured.call is not None
    if case.platform == "cpu":
        out, measured.peak_mib = peak_memory_mib(measured.call)
    else:
        before = (case.device.memory_stats() or {}).get("peak_bytes_in_use")
        in_use = (case.device.memory_stats() or {}).get("bytes_in_use", 0)
        out = measured.call()
        after = (case.device.memory_stats() or {}).get("peak_bytes_in_use")
        # The device's peak never falls: where it did not rise, an earlier call took more memory than this one.
        if before is not None and after > before:
            measured.peak_mib = (after - in_use) / 2**20
    if getattr(out, "hypergradient", None) is not None:
        measured.hypergradient = flat(out.hypergradient)
        measured.losses = float(out.inner_loss), float(out.outer_loss)
    return measured


def measure(case: Case, names: list[str]) -> dict[str, Measured]:
    """Compile and warm up the plain step and the methods."""

    def plain(params: Any, meta: Any, state: Any, opt_state: Any, train: Any, _: Any) -> Any:
        return run_inner_steps(problem, 1, meta, Carry(params, state, opt_state), train)

    results: dict[str, Measured] = {}
    for name in [PLAIN, *names]:
        inner_steps, options = METHODS.get(name, (1, {}))
        problem, arguments = setup(case, case.dtype, inner_steps)
        function = plain if name == PLAIN else hypergradient(name, problem, inner_steps, **options)
        results[name] = attempt(functools.partial(compiled, case, function, arguments))
    for result in sorted(results.values(), key=lambda result: result.temporary_mib or 0.0):
        if result.call is not None:
            failed = attempt(functools.partial(first_call, case, result))
            result.call, result.missing = failed.call, failed.missing
    return results


def attempt(function: Callable[[], Measured]) -> Measured:
    """The result, or why there is none: a device that is too small for one method still measures the others."""
    try:
        return function()
    except RuntimeError as error:  # out of memory, in JAX and in PyTorch
        return Measured(missing=(str(error) or type(error).__name__).splitlines()[0][:120])


def interleave(measured: dict[str, Measured], rounds: int, slow_rounds: int = 2) -> None:
    """Time all calls in turn; every other round backwards. Slow methods take part in the first rounds only.

    A first round is not counted: compilation leaves caches, pages and clocks in no usual state.
    """
    for i in range(-1, rounds):
        order = [m for name, m in measured.items() if m.call is not None and (name not in SLOW or 0 <= i < slow_rounds)]
        for result in order if i % 2 == 0 else order[::-1]:
            assert result.call is not None
            start = time.perf_counter()
            result.call()
            if i >= 0:
                result.times[i] = time.perf_counter() - start


def method_rows(case: Case, measured: dict[str, Measured], oracles: dict[int, np.ndarray]) -> Iterator[Row]:
    """The table's block of each method."""
    for name, result in measured.items():
        inner_steps = METHODS.get(name, (1, {}))[0]
        steps = f", {inner_steps} inner steps" if inner_steps > 1 else ""
        record = functools.partial(row, NAME, f"{case.name}: {name}{steps}", why=result.missing or "no value")
        if name != PLAIN:
            error = angle = None
            if result.hypergradient is not None:
                error = relative_error(result.hypergradient, oracles[inner_steps])
                angle = cosine(result.hypergradient, oracles[inner_steps])
            yield record("relative error of the hypergradient", error, "")
            yield record("cosine with the oracle", angle, "", why=result.missing or "the hypergradient is zero")
        yield record("time", None if result.seconds is None else result.seconds * 1e3, "ms")
        yield record("smallest time", None if result.smallest is None else result.smallest * 1e3, "ms")
        yield record("time over the plain step", result.over(measured[PLAIN]), "x")
        yield record("compile time", result.compile_s, "s")
        yield record("work, loop bodies counted once", result.gflop, "GFLOP")
        yield record("temporary memory, by the compiler", result.temporary_mib, "MiB")
        why = result.missing or "not above an earlier call's peak, or the device does not say"
        yield record("peak memory, measured", result.peak_mib, "MiB", why=why)


def ratio_rows(case: Case, measured: dict[str, Measured]) -> Iterator[Row]:
    """The ratios that decide whether the exact hypergradient is affordable."""
    record = functools.partial(row, NAME, f"{case.name}: ratios")
    for exact, base in RATIOS:
        why = measured[exact].missing or measured[base].missing
        ours, theirs = measured[exact], measured[base]
        yield record(f"time, {exact} / {base}", ours.over(theirs), "x", why=why, better="lower")
        yield record(f"time, {exact} / {base}, smallest times", ours.smallest_over(theirs), "x", why=why)
    lean, rough = measured["tangent"].temporary_mib, measured["finite_difference"].temporary_mib
    value = lean / rough if lean is not None and rough else None
    yield record(
        "temporary memory, tangent / finite_difference", value, "x", why="the compiler does not say", better="lower"
    )


def missing_ratio_rows(name: str, why: str) -> Iterator[Row]:
    """The same ratios where they cannot be taken."""
    for exact, base in RATIOS:
        yield row(NAME, f"{name}: ratios", f"time, {exact} / {base}", None, "x", why=why)
    yield row(NAME, f"{name}: ratios", "temporary memory, tangent / finite_difference", None, "x", why=why)


def torch_calls(case: Case) -> dict[str, Measured]:
    """The steps in PyTorch, with the same weights and batches."""
    from benchmarks.hypergradients_torch import TorchProblem

    weights = trees(case.shape, case.n_classes)
    side = TorchProblem(
        case.shape,
        weights["params"],
        weights["meta"],
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        compute_dtype=case.dtype,
        device="cpu" if case.platform == "cpu" else "cuda",
    )
    batches = [
        side.batch(np.asarray(b.image), np.asarray(b.label), case.n_classes) for b in (batch(case, 1), batch(case, 2))
    ]

    def measured(step: Callable[..., Any]) -> Measured:
        def call() -> Any:
            out = step(*batches)
            side.synchronise()
            return out

        call()  # libraries prepare their kernels in the first call
        result = first_call(replace(case, platform="cpu"), Measured(call=call))
        if case.platform != "cpu":
            result.peak_mib = side.device_peak_mib(call)
        return result

    return {TORCH + name: attempt(functools.partial(measured, step)) for name, step in side.steps().items()}


def torch_rows(case: Case, ours: dict[str, Measured], theirs: dict[str, Measured]) -> Iterator[Row]:
    """Times of PyTorch's steps, and how far their values are from ours in the same precision."""
    base = theirs[TORCH + "plain"]
    same = {"exact double backward": "unrolled", "finite_difference": "finite_difference", "darts": "darts"}
    for name, result in theirs.items():
        record = functools.partial(row, NAME, f"{case.name}: {name}", why=result.missing or "no value")
        yield record("time", None if result.seconds is None else result.seconds * 1e3, "ms")
        yield record("smallest time", None if result.smallest is None else result.smallest * 1e3, "ms")
        yield record("time over PyTorch's plain step", result.over(base), "x")
        yield record("peak memory, measured", result.peak_mib, "MiB", why=result.missing or "it is read from /proc")
        twin = same.get(name.removeprefix(TORCH), PLAIN)
        our = ours.get(twin, Measured(missing="our method is left out"))
        yield record(f"time over our {twin}", result.over(our), "x", why=result.missing or our.missing)
        if result.hypergradient is None:
            continue
        if our.hypergradient is not None and our.losses and result.losses:
            for level, left, right in zip(("inner", "outer"), result.losses, our.losses, strict=True):
                yield record(f"{level} loss, relative difference from ours", abs(left - right) / abs(right), "")
            difference = relative_error(result.hypergradient, our.hypergradient)
            yield record(f"hypergradient, relative difference from our {twin}", difference, "")
        reference = oracle(float32(case))
        yield record("relative error of the hypergradient", relative_error(result.hypergradient, reference), "")
        yield record("cosine with the oracle", cosine(result.hypergradient, reference), "")


def float32(case: Case) -> Case:
    """The case whose oracle all precisions share."""
    return replace(case, dtype="float32")


def case_rows(case: Case, epsilons: np.ndarray | None = None, names: list[str] | None = None) -> Iterator[Row]:
    """All rows of one case; everything is timed before the slow float64 oracles are computed."""
    names = list(METHODS) if names is None else names
    measured, theirs = measure(case, names), {}
    with contextlib.suppress(ImportError):
        theirs = torch_calls(case)
    interleave({**measured, **theirs}, case.rounds)
    steps = {METHODS[name][0] for name in names}
    yield from method_rows(case, measured, {k: oracle(float32(case), k) for k in steps})
    yield from ratio_rows(case, measured)
    if theirs:
        yield from torch_rows(case, measured, theirs)
    else:
        for name in ("plain", "finite_difference", "exact double backward"):
            yield row(NAME, f"{case.name}: {TORCH}{name}", "time", None, "ms", why=NO_TORCH)
    if epsilons is not None:
        yield from epsilon_rows(NAME, case, epsilons)


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases; the paper's sizes where there is an accelerator."""
    if quick:  # compiling is what takes the time: few methods on few layers
        shape = replace(custom((8, 12)), convs_before_pool=1, bottleneck_convs=1, decoder_convs=1)
        yield from case_rows(Case(shape, 16, 2, 4), names=["unrolled", "tangent", "finite_difference"])
    else:
        yield from case_rows(Case(custom((16, 24, 32)), 32, 4, 4, rounds=11), np.logspace(-7, 1, 17))
    platform = jax.default_backend()
    for dtype in ("float32", "bfloat16"):
        case = Case(PRESETS["deepfinder"], 64, 25, 13, dtype, platform)
        if quick or platform == "cpu":
            name = replace(case, platform="accelerator").name
            yield from missing_ratio_rows(name, "left out by --quick" if quick else "no accelerator here")
        else:
            yield from case_rows(replace(case, rounds=10))


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--figure", type=Path)
    options, rest = parser.parse_known_args(arguments)

    def rows(quick: bool) -> Iterator[Row]:
        kept = []
        for item in run(quick):
            kept.append(item)
            yield item
        if options.figure is not None and not quick:
            draw(kept, options.figure)

    main(NAME, rows, rest, keep_memory=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
