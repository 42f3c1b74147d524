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


def test_a_missing_particle_is_found_once() -> None:
    lost = Particles(np.array([[10.0, 10, 10], [30, 30, 30], [50, 50, 50]]), [1, 1, 2])
    found = Particles(
        np.array([[11.0, 10, 10], [10, 11, 10], [30, 30, 35], [52, 50, 50], [90, 90, 90]]), [1, 1, 1, 2, 1]
    )
    hits = audit.first_hits(found, lost, (6.0, 1.5))
    assert hits.tolist() == [True, False, True, False, False]  # the last particle's radius is 1.5
    # Precision 1 at the first hit and 2/3 at the second; the third particle is never found.
    assert audit.detection_precision(hits.tolist(), [0.9, 0.8, 0.7, 0.6, 0.5], 3) == pytest.approx((1 + 2 / 3) / 3)
    assert audit.first_hits(found, lost.select([]), (6.0, 1.5)).tolist() == [False] * 5


def test_random_places_hit_missing_particles_as_often_as_their_volumes_say() -> None:
    lost = Particles(np.array([[20.0, 20, 20], [40, 40, 40]]), [1, 1])
    listed = Particles(np.array([[40.0, 20, 20]]), [1])
    near, free = audit.random_hits((61, 61, 61), listed, lost, (8.0,), np.random.default_rng(1))
    ball, volume = 4 / 3 * np.pi * 8**3, 60.0**3
    expected = 2 * ball / (volume - ball)
    assert near / free == pytest.approx(expected, rel=0.09)  # four standard deviations of 100,000 places


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
