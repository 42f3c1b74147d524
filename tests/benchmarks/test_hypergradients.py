"""The hypergradient benchmark gives well-formed, finite rows."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import hypergradients
from benchmarks._hypergradient_problem import Case
from robpicker_jax.bilevel.problem import Estimate, LossAux
from robpicker_jax.models import UNetShape

TINY = Case(UNetShape((2, 3), 1, 0, 1, 1, True, 0.0, "transposed"), 8, 1, 2, rounds=3)
NAMES = ["unrolled", "tangent", "finite_difference", "none"]


def values(rows: list[dict], case: str) -> dict[str, float | None]:
    return {row["metric"]: row["value"] for row in rows if row["case"].endswith(case)}


def check(rows: list[dict]) -> None:
    json.dumps(rows, allow_nan=False)
    for row in rows:
        assert row["benchmark"] == "hypergradients"
        assert {"case", "metric", "value", "unit"} <= row.keys()
        if row["value"] is None:
            assert row["why"].startswith("not measured: ")
        else:
            assert math.isfinite(row["value"])


def estimate(sign: float, scale: jnp.ndarray) -> Estimate:
    """Stands for a method: compiles in no time."""
    loss = jnp.sum(scale)
    return Estimate({"a": sign * scale, "b": sign * scale @ scale}, None, None, None, loss, loss, LossAux(None, None))


def test_rows_of_measured_methods() -> None:
    scale = jnp.ones((3, 3))
    measured = {}
    for name, sign in zip([hypergradients.PLAIN, *NAMES], (1.0, 1.0, 1.01, -1.0, 0.0), strict=True):
        measured[name] = hypergradients.compiled(TINY, lambda x, sign=sign: estimate(sign, x), (scale,))
        hypergradients.first_call(TINY, measured[name])
    hypergradients.interleave(measured, TINY.rounds)
    oracle = np.concatenate([np.ones(9), np.full(9, 3.0)])
    rows = list(hypergradients.method_rows(TINY, measured, {1: oracle}))
    check(rows)
    error, angle = "relative error of the hypergradient", "cosine with the oracle"
    assert values(rows, ": unrolled")[error] == pytest.approx(0.0, abs=1e-6)
    assert values(rows, ": tangent")[error] == pytest.approx(0.01, rel=1e-4)
    assert values(rows, ": finite_difference")[angle] == pytest.approx(-1.0)
    assert values(rows, ": none")[error] == 1.0
    assert values(rows, ": none")[angle] is None
    assert values(rows, ": tangent")["compile time"] is not None
    ratios = list(hypergradients.ratio_rows(TINY, measured))
    check(ratios)
    assert all(row["value"] > 0 for row in ratios if row["metric"].startswith("time"))


def test_a_method_that_could_not_run_says_why() -> None:
    def too_large() -> hypergradients.Measured:
        raise RuntimeError("out of memory\nmore")

    failed = hypergradients.attempt(too_large)
    rows = list(hypergradients.method_rows(TINY, {hypergradients.PLAIN: failed, "unrolled": failed}, {}))
    check(rows)
    assert all(row["why"] == "not measured: out of memory" for row in rows if "time" in row["metric"])


def test_ratios_are_medians_over_common_rounds() -> None:
    one = hypergradients.Measured(times={0: 2.0, 1: 9.0, 2: 4.0})
    other = hypergradients.Measured(times={0: 1.0, 1: 3.0})
    assert one.over(other) == pytest.approx(2.5)
    assert one.over(hypergradients.Measured()) is None


@pytest.mark.slow
def test_a_small_case_from_end_to_end() -> None:
    rows = list(hypergradients.case_rows(TINY, np.array([0.1, 1.0]), NAMES))
    check(rows)
    for name in ("unrolled", "tangent"):
        error = values(rows, f": {name}")["relative error of the hypergradient"]
        assert error is not None
        assert error < 1e-3
    ratios = values(rows, ": ratios")
    assert len(ratios) == 2 * len(hypergradients.RATIOS) + 1  # medians and smallest times, and the memory
    assert all(value is not None for value in ratios.values())
