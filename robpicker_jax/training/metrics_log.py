"""The record of a training: `metrics.jsonl` and what its trackers take, and the clock that they take rates from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robpicker_jax.system.files import write_text
from robpicker_jax.training.trackers import build_trackers


class MetricsLog:
    """`metrics.jsonl` and the trackers of a run; rows after the step a run resumes from are dropped.

    Attributes:
        waited_s: seconds that the devices waited for input since `pace` was last called.
    """

    waited_s: float
    _clock: tuple[float, int]
    _total: tuple[float, float]

    def __init__(self, workdir: Path, trackers: Sequence[str] = ("tensorboard",)) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        self._trackers = build_trackers(trackers, workdir)
        self._start_clock(0)

    def rows(self) -> list[dict[str, Any]]:
        """All rows written so far; lines that are damaged are passed over."""
        return read_metrics(self._path)

    def truncate(self, step: int, *, without_validation: bool = False) -> None:
        """Drop the rows after `step` (on request its validation too, which is done again), and start the clock there."""
        rows = [row for row in self.rows() if row["step"] <= step]
        if without_validation:
            rows = [row for row in rows if (row["step"], row["kind"]) != (step, "validation")]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._start_clock(step)

    def validation_scores(self, name: str) -> dict[int, float]:
        """A validation score by step."""
        rows = (row for row in self.rows() if row["kind"] == "validation")
        return {row["step"]: row[name] for row in rows if row.get(name) is not None}

    def is_validated(self, step: int) -> bool:
        """Whether the validation of a step is among the rows."""
        return any(row["kind"] == "validation" and row["step"] == step for row in self.rows())

    def pace(self, step: int) -> tuple[float, float]:
        """Steps per second, and the share of time spent waiting for input, since the last call or reset."""
        now = time.monotonic()
        then, former = self._clock
        elapsed, waited = max(now - then, 1e-9), self.waited_s
        self._clock, self.waited_s = (now, step), 0.0
        self._total = (self._total[0] + elapsed, self._total[1] + waited)
        return (step - former) / elapsed, min(waited / elapsed, 1.0)

    def wait_share(self) -> float | None:
        """The share of time spent waiting for input, over all calls of `pace`; None before the first."""
        elapsed, waited = self._total
        return min(waited / elapsed, 1.0) if elapsed else None

    def reset_clock(self) -> None:
        """Leave the time since the last call of `pace` (a checkpoint, a validation) out of the rate."""
        self._clock, self.waited_s = (time.monotonic(), self._clock[1]), 0.0

    def _start_clock(self, step: int) -> None:
        self._clock, self.waited_s = (time.monotonic(), step), 0.0
        self._total = (0.0, 0.0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, NaN as null; the trackers get the same numbers."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")
        numbers = {key: value for key, value in clean.items() if key != "step" and isinstance(value, (int, float))}
        scalars = {f"{clean['kind']}/{key}": value for key, value in numbers.items()}
        for tracker in self._trackers:
            tracker.log(int(row["step"]), scalars)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()


class SilentLog(MetricsLog):
    """The log of a process that is not the first: it keeps time and writes nothing."""

    def __init__(self) -> None:
        self._start_clock(0)

    def rows(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def truncate(self, step: int, *, without_validation: bool = False) -> None:
        """Start the clock."""
        self._start_clock(step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; lines that are no row of a log (half-written by a killed run, damaged) are passed over."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str):
                rows.append(row)
    return rows
