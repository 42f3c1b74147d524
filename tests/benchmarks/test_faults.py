"""The benchmarks of reliability: what they compare and compute; a run of one kill is slow."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults, load


def test_a_run_that_equals_another_and_leaves_nothing_over(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert faults.compare(tiny_run, run) is None
    (run / "picks" / ".tmp-host-1-x").write_text("half")
    assert faults.compare(tiny_run, run) == "left over: picks/.tmp-host-1-x"
    (run / "picks" / ".tmp-host-1-x").unlink()
    (run / "results.json").unlink()
    assert faults.compare(tiny_run, run) == "results.json is missing"
    rows = (run / "metrics.jsonl").read_text().replace('"step": 3', '"step": 30')
    (run / "metrics.jsonl").write_text(rows)
    found = faults.compare(tiny_run, run)
    assert found is not None
    assert found.startswith("step 3, train: step was 3")


@pytest.mark.slow
def test_kills_go_through_all_phases_and_are_counted_over_starts(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With processes that sleep, so that every kill hits; every third start ends by itself."""
    starts = []

    def started(workdir: Path, log: Path) -> Any:
        starts.append(workdir.name)
        log.write_text("")
        if workdir.name == "whole" or len(starts) % 3 == 0:
            shutil.copytree(tiny_run, workdir, dirs_exist_ok=True)
            return subprocess.Popen(["true"])
        workdir.mkdir(exist_ok=True)
        return subprocess.Popen(["sleep", "5"])

    monkeypatch.setattr(faults, "started", started)
    monkeypatch.setattr(faults, "_marker", lambda phase, workdir: lambda: True)
    monkeypatch.setattr(faults, "_second", lambda *arguments: None)
    for name in ("_LONGEST_DELAY_S", "_LONGEST_START_S"):
        monkeypatch.setattr(faults, name, 0.02)
    said: list[str] = []
    assert faults.run(3, tmp_path / "kills", say=said.append).killed == 3
    tally = faults.run(7, tmp_path / "kills", say=said.append)
    assert tally.killed == 7
    assert not tally.differences
    assert set(tally.kills.values()) == {1, 2}
    assert tally.compared >= 3
    assert json.loads((tmp_path / "kills" / "tally.json").read_text())["kills"] == tally.kills


def test_the_exponent_is_the_slope_through_all_sizes() -> None:
    assert load.exponent((10, 100, 1000), [0.2, 2.0, 20.0]) == pytest.approx(1.0)
    assert load.exponent((10, 100, 1000), [1.0, 100.0, 1.0]) == pytest.approx(0.0, abs=1e-9)
    assert load.exponent((100, 1000), [2.0, 200.0]) == pytest.approx(2.0)
    assert set(load.SIZES) == set(load.QUICK)


def test_a_size_that_does_not_fit_is_said_and_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(case: str, size: int) -> dict[str, float]:
        if "one place" in case:
            raise RuntimeError("MemoryError")
        return {"seconds": size / 1e6, "peak_mib": 1.0}

    monkeypatch.setattr(load, "measured", measured)
    rows = list(load.run(True))
    assert [row["why"] for row in rows if row["value"] is None] == ["not measured: MemoryError"]
    exponents = [row["value"] for row in rows if row["metric"].startswith("exponent")]
    assert len(exponents) == len(load.QUICK) - 1


@pytest.mark.parametrize("case", ["tomograms in a data set", "objects of an IMOD model", "planes of 1024 x 1024"])
def test_a_case_is_measured_in_a_process_of_its_own(case: str) -> None:
    found = load.measured(case, 12)
    assert found["seconds"] > 0
    assert found["peak_mib"] > 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_tiny_run_is_killed_and_comes_out_the_same(tmp_path: Path) -> None:
    tally = faults.run(5, tmp_path)
    assert tally.killed == 5
    assert tally.compared >= 1
    assert not tally.differences
