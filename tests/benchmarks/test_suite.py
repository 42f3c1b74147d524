"""The suite of benchmarks: rows, Markdown, and a run of the quickest of them."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as suite
from benchmarks._common import machine_row, peak_memory_mib, row
from benchmarks._compare import changes, comparison_table
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


def test_the_command_of_a_table_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["toy.py", "--json", "somewhere/rows.json", "--quick"])
    assert machine_row("toy")["command"] == "python -m benchmarks.toy --quick"


def test_the_recorded_run_can_be_compared_with() -> None:
    recorded = json.loads((Path(__file__).parents[2] / "docs" / "performance.json").read_text(encoding="utf-8"))
    assert {entry["benchmark"] for entry in recorded} == set(suite.SUITE)
    found = changes(recorded, recorded)
    assert len(found) > 50
    assert all(change.worse == 0 for change in found)


def test_a_call_that_fails_is_not_made_again() -> None:
    calls = []

    def failing() -> None:
        calls.append(1)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        peak_memory_mib(failing)
    assert len(calls) == 1


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
    assert set(suite.ACCELERATOR) <= set(suite.SUITE)
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


def test_only_ratios_that_say_which_way_is_better_are_compared() -> None:
    before = [
        HEAD,
        row("toy", "a", "over PyTorch", 0.8, "x", better="lower"),
        row("toy", "a", "share of the rate", 0.5, "", better="higher"),
        row("toy", "a", "time", 1.0, "s"),
        row("toy", "b", "over PyTorch", None, "x", why="no torch", better="lower"),
        row("toy", "gone", "over PyTorch", 1.0, "x", better="lower"),
    ]
    now = [
        HEAD,
        row("toy", "a", "over PyTorch", 1.2, "x", better="lower"),
        row("toy", "a", "share of the rate", 0.4, "", better="higher"),
        row("toy", "a", "time", 9.0, "s"),
        row("toy", "b", "over PyTorch", 1.0, "x", better="lower"),
        row("toy", "new", "over PyTorch", 1.0, "x", better="lower"),
    ]
    found = changes(before, now)
    assert [(change.metric, round(change.worse, 9)) for change in found] == [
        ("over PyTorch", 0.5),
        ("share of the rate", 0.25),
    ]
    assert all(change.worse <= 0 for change in changes(now, before))
    table = comparison_table(found, 0.3)
    assert (table.row_count, table.caption) == (1, "1 of 2 ratios")


def toy_suite(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Benchmarks "labels" and "layers" are a Python program: argv 1 is the name, argv 2 the JSON file."""
    real = subprocess.run

    def instead(command: list[str], **options: Any) -> Any:
        name, out = command[2].removeprefix("benchmarks."), command[4]
        return real([sys.executable, "-c", code, name, out], **options)

    monkeypatch.setattr(subprocess, "run", instead)


WRITES = """
import json, sys
row = {"benchmark": sys.argv[1], "case": "c", "metric": "m", "value": 2.0, "better": "lower"}
json.dump([row], open(sys.argv[2], "w"))
"""


def test_a_stopped_run_goes_on_and_a_worse_ratio_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, before = tmp_path / "rows.json", tmp_path / "before.json"
    stored = {"benchmark": "layers", "case": "c", "metric": "m", "value": 1.0, "better": "lower"}
    rows.write_text(json.dumps([stored]))
    before.write_text(json.dumps([stored, stored | {"benchmark": "labels"}]))
    toy_suite(monkeypatch, WRITES)
    arguments = ["--only", "labels,layers", "--json", str(rows), "--resume", "--compare", str(before)]
    assert suite.main(arguments) == 1  # the ratio of "labels" has doubled
    assert [(r["benchmark"], r["value"]) for r in json.loads(rows.read_text())] == [("layers", 1.0), ("labels", 2.0)]
    assert suite.main([*arguments, "--margin", "1.5"]) == 0


def test_the_time_limit_stops_a_benchmark_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_suite(monkeypatch, "import time; time.sleep(60)")
    assert suite.main(["--only", "labels,layers", "--minutes", "0.005"]) == 0
    assert "no time was left for: labels, layers" in capsys.readouterr().err


@pytest.mark.slow
def test_the_suite_writes_rows_and_tables(tmp_path: Path) -> None:
    rows, text = tmp_path / "rows.json", tmp_path / "tables.md"
    assert suite.main(["--quick", "--only", "labels", "--json", str(rows), "--markdown", str(text)]) == 0
    head, *figures = json.loads(rows.read_text())
    assert head["machine"]
    assert {figure["benchmark"] for figure in figures} == {"labels"}
    assert text.read_text().startswith("## labels")
