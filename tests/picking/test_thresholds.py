"""Thresholds of highest F-beta against a loop over the published grid, and where they are applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.picking import calibration
from robpicker_jax.picking.thresholds import best, build_threshold_rule, chosen_thresholds, grid
from robpicker_jax.system.errors import InputError
from tests.evaluation.metric_cases import NAMES, particle_sets

pytestmark = pytest.mark.fast

LISTS = st.lists(st.tuples(particle_sets(), particle_sets(most=25)), min_size=1, max_size=2)


@settings(max_examples=15, deadline=None)
@given(lists=LISTS, beta=st.sampled_from((1.0, 4.0)))
def test_the_grids_best_value_by_evaluating_every_cut(lists: list[tuple[Particles, Particles]], beta: float) -> None:
    truth = {str(number): true for number, (true, _) in enumerate(lists)}
    picks = {str(number): picked for number, (_, picked) in enumerate(lists)}
    options = EvaluationOptions(class_names=NAMES, rule="robpicker", radii_vox=(3.0, 5.0), beta=beta)
    found = calibration.calibrate(evaluate(truth, picks, options))
    values = [0.1 + 0.05 * k for k in range(11)]
    by_class: dict[str, list[float]] = {name: [] for name in NAMES}
    for value in values:
        kept = {name: picked.select(picked.scores >= value - 1e-12) for name, picked in picks.items()}
        result = evaluate(truth, kept, options)
        for name in NAMES:
            by_class[name].append(np.nan_to_num(result.of_class(name).rates.fbeta))
    for name, entry in found.items():
        chosen = grid(entry, low=0.1, high=0.6, step=0.05, beta=beta)
        assert chosen == pytest.approx(values[int(np.argmax(by_class[name]))])
        scores = sorted({float(s) for one in picks.values() for s in one.scores})
        highest = best(entry, beta=beta)
        assert highest in scores
        at = [
            evaluate(truth, {k: v.select(v.scores >= cut) for k, v in picks.items()}, options).of_class(name)
            for cut in (highest, *scores)
        ]
        assert at[0].rates.fbeta == pytest.approx(max(np.nan_to_num(row.rates.fbeta) for row in at))


def test_the_published_grid_has_a_hundred_and_one_values() -> None:
    entry = calibration.ClassCalibration((0.9, 0.595, 0.3), (1, 2, 3), (1, 2, 2), 2)
    assert grid(entry) == pytest.approx(0.305)  # the lowest value that leaves out the false pick at 0.3
    only = calibration.ClassCalibration((0.6,), (1,), (1,), 1)
    assert grid(only, low=0.6) == pytest.approx(0.6)
    with pytest.raises(InputError, match=r"picking.threshold_options"):
        grid(entry, low=0.7)


def test_they_come_from_the_calibration_of_the_run(tmp_path: Path) -> None:
    entry = calibration.ClassCalibration((0.9, 0.5), (1, 2), (1, 1), 1)
    calibration.save(tmp_path, {"a": entry}, ["meta_0"])
    assert chosen_thresholds(tmp_path, ["a", "b"], "best", {}) == {"a": 0.9}
    with pytest.raises(InputError, match="no class had picks"):
        chosen_thresholds(tmp_path, ["b"], "best", {})
    with pytest.raises(InputError, match="grid"):
        build_threshold_rule("gird", {})


def test_the_published_table(tmp_path: Path) -> None:
    picks = Particles([[1, 2, 3.5]], [2], scores=[0.25], class_names=["atp"], tomograms=["2814"])
    path = tmp_path / "predictions.csv"
    write_annotations(path, picks, fmt="robpicker", voxel_size_angstrom=7.84)
    head, row = path.read_text().splitlines()
    assert head == "x,y,z,particle_type,conf,experiment"
    x, y, z, *rest = row.split(",")
    np.testing.assert_allclose([float(x), float(y), float(z)], [7.84, 15.68, 27.44])
    assert rest == ["atp", "0.25", "2814"]
    back = read_annotations(path, voxel_size_angstrom=7.84)
    np.testing.assert_allclose(back.positions_vox, picks.positions_vox)
    assert (back.class_names.tolist(), back.scores.tolist(), back.tomograms.tolist()) == (["atp"], [0.25], ["2814"])
