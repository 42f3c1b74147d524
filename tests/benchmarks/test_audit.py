"""The benchmark of the audit: which annotation counts as which fault, and its rows on a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import audit
from robpicker_jax.annotations import Particles


def test_each_annotation_has_the_fault_that_was_planted() -> None:
    truth = Particles(np.arange(15.0).reshape(5, 3) * 10, [1, 2, 1, 2, 1])
    kept = [0, 2, 3, 4]
    positions = truth.positions_vox[kept].copy()
    positions[1, 0] += 2.9  # less than half of 6
    positions[2, 0] += 2.9  # more than half of 4
    positions[3, 0] += 9.0  # swapped all the same
    noisy = Particles(np.concatenate([positions, [[1.0, 2.0, 3.0]]]), [1, 1, 2, 2, 1])
    record = {"kept": kept, "swapped": [{"index": 4}], "dropped": [{"index": 1}]}
    faults = audit.planted(truth, record, noisy, (6.0, 4.0), 0.5)
    assert faults.tolist() == ["", "", "displaced", "wrong_class", "false"]


@pytest.mark.slow
def test_rows_on_a_tiny_run(tiny_run: Path, tmp_path: Path) -> None:
    audit.main(["--workdir", str(tiny_run), "--seeds", "1", "--json", str(tmp_path / "rows.json")])
    head, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert head["case"] == "machine"
    assert {row["case"] for row in rows} >= {"held out, seed 2000", "training tomograms"}
    values = {(row["case"], row["metric"]): row["value"] for row in rows}
    # The tiny noise plants missing particles and no swaps.
    assert values["held out, seed 2000", "wrong_class: average precision"] is None
    assert all(value is None or 0 <= value <= 1 for value in values.values())
