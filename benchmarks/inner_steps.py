"""K inner steps: time, memory and agreement of the exact methods, reverse over reverse against mixed mode.

Reverse mode over reverse mode (`unrolled`) either keeps what all K steps computed or computes each step again on the way back;
`tangent` and `forward_over_reverse` (mixed mode, as MixFlow-MG) write the recursion over the steps down and take second-order
products by forward mode. All are exact, so they are compared with one another. Times are taken in turn within one process, as
ratios to K plain steps of the same round. The problem is that of `benchmarks.hypergradients`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks._common import Row, main, row
from benchmarks._hypergradient_problem import Case, custom, relative_error, setup
from benchmarks.hypergradients import Measured, attempt, compiled, first_call, interleave
from robpicker_jax.bilevel import hypergradient
from robpicker_jax.bilevel.problem import Carry, run_inner_steps

NAME = "inner_steps"
PLAIN = "plain steps"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "unrolled, all kept": ("unrolled", {"remat": False}),
    "unrolled, steps recomputed": ("unrolled", {}),
    "tangent": ("tangent", {}),
    "forward_over_reverse": ("forward_over_reverse", {}),
}
"""Each method's name in the table, its name in the package, and its options."""
REFERENCE = "unrolled, steps recomputed"
KEPT, MIXED = "unrolled, all kept", "forward_over_reverse"


def run(quick: bool) -> Iterator[Row]:
    """Rows of all K."""
    if quick:
        yield from rows(Case(custom((4, 8)), 16, 2, 4, rounds=1), (1, 5))
    else:
        yield from rows(Case(custom((16, 24, 32)), 32, 4, 4, rounds=3), (1, 5, 20))


def rows(case: Case, counts: Sequence[int]) -> Iterator[Row]:
    """Rows of a network for some numbers of inner steps."""
    for count in counts:
        measured = measure(case, count)
        where = f"{case.name}: K = {count}"
        for name, result in measured.items():
            record = functools.partial(row, NAME, f"{where}, {name}", why=result.missing or "no value")
            yield record("temporary memory, by the compiler", result.temporary_mib, "MiB")
            why = result.missing or "not above an earlier call's peak"
            yield record("peak memory, measured", result.peak_mib, "MiB", why=why)
            yield record("compile time", result.compile_s, "s")
            yield record("time", result.seconds, "s")
            if name == PLAIN:
                continue
            yield record(f"time over {count} plain steps", result.over(measured[PLAIN]), "x", better="lower")
            base, own = measured[REFERENCE].hypergradient, result.hypergradient
            if name != REFERENCE:
                error = None if base is None or own is None else relative_error(own, base)
                yield record(f"difference from {REFERENCE}, relative", error, "")
        most, least = measured[KEPT].temporary_mib, measured[MIXED].temporary_mib
        ratio = most / least if most and least else None
        why = measured[KEPT].missing or measured[MIXED].missing or "the compiler does not say"
        yield row(NAME, where, f"temporary memory, {KEPT} / {MIXED}", ratio, "x", why=why, better="higher")


def measure(case: Case, count: int) -> dict[str, Measured]:
    """Compile, warm up and time all methods for K inner steps."""
    problem, arguments = setup(case, case.dtype, count)

    def plain(params: Any, meta: Any, state: Any, opt_state: Any, train: Any, _: Any) -> Any:
        return run_inner_steps(problem, count, meta, Carry(params, state, opt_state), train)

    functions: dict[str, Callable[..., Any]] = {PLAIN: plain}
    for label, (name, options) in METHODS.items():
        functions[label] = hypergradient(name, problem, count, **options)
    found = {
        label: attempt(functools.partial(compiled, case, function, arguments)) for label, function in functions.items()
    }
    for result in sorted(found.values(), key=lambda result: result.temporary_mib or 0.0):
        if result.call is not None:
            failed = attempt(functools.partial(first_call, case, result))
            result.call, result.missing = failed.call, failed.missing
    interleave(found, case.rounds)
    return found


if __name__ == "__main__":
    main(NAME, run)
