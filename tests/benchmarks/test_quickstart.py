"""What the benchmark of the quickstart reads from runs' records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quickstart

pytestmark = pytest.mark.fast


def weights(step: int, **values: float | None) -> dict[str, Any]:
    return {"kind": "train", "step": step} | {f"weight_mean/{name}": value for name, value in values.items()}


def test_figures_are_those_of_the_last_validation_and_the_last_tenth(tmp_path: Path) -> None:
    config = quickstart.configuration(3, quick=False)
    assert (config.train.seed, config.train.beside) == (3, ())
    steps = config.train.steps
    judged = {"correction/recovered": 0.9, "correction/added": 0.01, "correction/error_change": -0.5}
    rows = [
        weights(steps // 2, ribosome=9.0, apoferritin=1.0),
        {"kind": "validation", "step": steps // 2} | dict.fromkeys(judged, 0.0),
        weights(steps - 5, ribosome=0.5, apoferritin=1.0),
        weights(steps, ribosome=None, apoferritin=2.0),  # a batch without a ribosome
        {"kind": "validation", "step": steps} | judged,
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "evaluation.json").write_text('{"macro": {"f1": 0.75}}', encoding="utf-8")
    assert list(quickstart.figures(config, tmp_path).values()) == [0.9, 0.01, -0.5, 3.0, 0.75]


def test_times_of_steps_are_told_by_phase(tmp_path: Path) -> None:
    config = quickstart.configuration(0, quick=False)
    batch, warm = config.train.batch_size, config.train.n_meta_warmup_steps
    rates = [
        (10, None),
        (warm, batch / 0.25),
        (warm + 10, batch / 0.5),
        (warm + 20, batch / 1.0),
        (warm + 30, batch / 0.5),
    ]
    rows = [{"kind": "train", "step": step, "patches_per_second": rate} for step, rate in rates]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    seconds = (warm - 10) * 0.25 + 10 * (0.5 + 1.0 + 0.5)
    assert list(quickstart.step_times(config, tmp_path)) == [
        ("a step of the warm-up", 0.25, "s"),
        ("a bi-level step", 0.5, "s"),
        ("all steps", pytest.approx(seconds), "s"),
    ]


def test_seeds_are_summed_up() -> None:
    found = list(quickstart.over_seeds([{"x": 1.0}, {"x": 4.0}]))
    assert [row["value"] for row in found] == [2.5, 1.0, 4.0]
    assert {row["case"] for row in found} == {"2 seeds"}
