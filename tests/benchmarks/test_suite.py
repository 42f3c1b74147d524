"""The suite of benchmarks: rows, Markdown, and a run of the quickest of them."""

from __future__ import annotations

import importlib.util
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as suite
from benchmarks._common import row
from benchmarks._hypergradient_problem import double_precision
from benchmarks._markdown import markdown

HEAD = {
    "benchmark": "toy",
    "case": "machine",
    "command": "python -m benchmarks.toy",
    "date": "2020-01-01",
    "machine": "abacus",
    "devices": "1 x cpu",
    "versions": {"python": "3"},
}


def test_no_value_that_is_not_a_number() -> None:
    for value in (math.nan, math.inf):
        made = row("toy", "a case", "time", value, "s")
        assert made["value"] is None
        assert str(value) in made["why"]


def test_markdown_groups_cases_of_the_same_metrics() -> None:
    rows = [
        HEAD,
        row("toy", "small", "time", 1.2345, "s"),
        row("toy", "small", "count", 1234, ""),
        row("toy", "large", "time", None, "s", why="no time"),
        row("toy", "large", "count", 5, ""),
        row("toy", "other", "speed", 12345.6, "x"),
    ]
    text = markdown(rows)
    assert "| case | time, s | count |" in text
    assert "| small | 1.23 | 1,234 |" in text
    assert "| large | not measured | 5 |" in text
    assert "| other | 12,346 |" in text
    assert "Not measured: no time." in text
    assert text.count("| case |") == 2


def test_every_benchmark_of_the_suite_exists() -> None:
    for name in suite.SUITE + suite.LONG:
        assert importlib.util.find_spec(f"benchmarks.{name}") is not None, name


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        suite.main(["--only", "nothing"])
    assert refused.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_oracles_are_of_double_precision() -> None:
    with double_precision():
        assert jnp.zeros(1, float).dtype == np.float64
    assert jnp.zeros(1, float).dtype == np.float32


@pytest.mark.slow
def test_the_suite_writes_rows_and_tables(tmp_path) -> None:
    rows, text = tmp_path / "rows.json", tmp_path / "tables.md"
    assert suite.main(["--quick", "--only", "labels", "--json", str(rows), "--markdown", str(text)]) == 0
    head, *figures = json.loads(rows.read_text())
    assert head["machine"]
    assert {figure["benchmark"] for figure in figures} == {"labels"}
    assert text.read_text().startswith("## labels")
