"""The benchmark of K inner steps: the methods that it compares agree."""

from __future__ import annotations

import pytest

from benchmarks.inner_steps import METHODS, REFERENCE, rows
from tests.benchmarks.test_hypergradients import TINY


@pytest.mark.slow
def test_the_methods_agree_and_their_memory_is_told() -> None:
    found = {(row["case"].partition("K = 2")[2], row["metric"]): row["value"] for row in rows(TINY, (2,))}
    for name in METHODS:
        assert found[f", {name}", "temporary memory, by the compiler"] > 0
        if name != REFERENCE:
            assert found[f", {name}", f"difference from {REFERENCE}, relative"] < 1e-4
    assert found["", "temporary memory, unrolled, all kept / forward_over_reverse"] > 1
