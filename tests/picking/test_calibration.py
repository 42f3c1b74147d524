"""Score thresholds for a wanted precision (field faults A22: a point estimate, missed on every second fresh tomogram)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from robpicker_jax.annotations import Particles
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.picking import calibration
from robpicker_jax.picking.calibration import ClassCalibration, lowest, operating_points
from robpicker_jax.system.errors import InputError


def of(hits: np.ndarray, scores: np.ndarray | None = None, true: int | None = None) -> ClassCalibration:
    """The calibration of picks with distinct scores; by default the first has the highest."""
    scores = np.linspace(0.95, 0.05, len(hits)) if scores is None else scores
    order = np.argsort(-scores)
    picked, right = np.arange(1, len(hits) + 1), np.cumsum(hits[order])
    return ClassCalibration(
        tuple(scores[order].tolist()),
        tuple(picked.tolist()),
        tuple(right.tolist()),
        int(hits.sum()) if true is None else true,
    )


def fresh(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of picks, and whether they are right: the likelier the higher the score."""
    scores = rng.uniform(0.4, 1.0, number)
    return scores, rng.random(number) < 1 / (1 + np.exp(-25 * (scores - 0.6)))


@pytest.mark.parametrize(("picks", "wanted"), [(100, 0.85), (200, 0.9), (1000, 0.95)])
def test_a22_fresh_tomograms_have_the_precision_that_was_asked_for(picks: int, wanted: float) -> None:
    """Missed in at most a tenth of 200 calibrations, where the point estimate missed 36 to 51 %."""
    rng = np.random.default_rng(3)
    scores, right = fresh(rng, 400_000)
    missed = reached = 0
    for _ in range(200):
        seen, hits = fresh(rng, picks)
        chosen = lowest(operating_points(of(hits, seen)), wanted)
        if chosen is not None:
            reached += 1
            missed += right[scores >= chosen.threshold].mean() < wanted
    assert reached > 150
    assert missed <= 0.1 * reached


def test_a22_one_false_pick_on_top_of_ninety_nine_right_ones() -> None:
    hits = np.ones(100, bool)
    hits[0] = False
    chosen = lowest(operating_points(of(hits)), 0.95)
    assert chosen is not None
    assert chosen.threshold == pytest.approx(0.05)
    assert chosen.recall == 1.0
    assert chosen.precision == 0.99


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.05, 0.99))
def test_bounds_are_clopper_pearsons_and_the_lowest_is_taken(hits: list[bool], wanted: float) -> None:
    curve = of(np.array(hits), true=len(hits))
    points = operating_points(curve)
    assert [point.threshold for point in points] == sorted({point.threshold for point in points}, reverse=True)
    assert points[-1].threshold == curve.thresholds[-1]
    for point in points:
        end = curve.thresholds.index(point.threshold)
        exact = binomtest(curve.hits[end], curve.picked[end], alternative="greater").proportion_ci(0.95).low
        assert point.bound == pytest.approx(exact, abs=1e-9)
        assert point.bound <= point.precision
        assert point.recall == curve.hits[end] / len(hits)
    chosen = lowest(points, wanted)
    good = [point.threshold for point in points if point.bound >= wanted]
    assert (None if chosen is None else chosen.threshold) == min(good, default=None)


def test_from_an_evaluation_to_the_file_and_back(tmp_path: Path) -> None:
    positions = np.stack([10.0 * np.arange(60), np.zeros(60), np.zeros(60)], axis=1)
    truth = Particles(positions[:50], np.ones(50, int))
    picks = Particles(positions[5:], np.ones(55, int), scores=np.linspace(0.9, 0.36, 55))
    result = evaluate({"a": truth}, {"a": picks}, EvaluationOptions(["one"], radii_vox=[3.0]))
    calibration.save(tmp_path, calibration.calibrate(result), ["a"])
    assert calibration.load(tmp_path).tomograms == ("a",)
    (chosen,) = calibration.min_scores(tmp_path, ["one"], 0.9)
    assert chosen.threshold == pytest.approx(0.9 - 44 * 0.01)  # down to the last of the 45 right ones
    assert chosen.recall == 0.9
    (chosen,) = calibration.min_scores(tmp_path, ["one"], 0.6)
    assert chosen.threshold == pytest.approx(0.36)
    with pytest.raises(InputError, match="no picks of two"):
        calibration.min_scores(tmp_path, ["one", "two"], 0.5)
    for precision in (0.0, 1.0, 1.5):
        with pytest.raises(InputError, match="--precision"):
            calibration.min_scores(tmp_path, ["one"], precision)


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not calibrated"):
        calibration.min_scores(tmp_path, ["one"], 0.9)
    calibration.save(tmp_path, {"one": of(np.ones(10, bool))}, ["a"])
    with pytest.raises(InputError, match=r"0\.9 is not shown for one: .*1\.00 was seen.*0\.74 .*10 picks"):
        calibration.min_scores(tmp_path, ["one"], 0.9)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"tomograms": [], "classes": {"one": {"thresholds": [0.9], "precision": [1.0], "recall": [1.0]}}}',
        '{"tomograms": [], "classes": {"one": {"thresholds": [0.9], "picked": [1, 2], "hits": [1], "true": 3}}}',
        '{"tomograms": [], "classes": {"one": {"thresholds": [0.9, 0.8], "picked": [2, 1], "hits": [1, 1], "true": 3}}}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / calibration.FILE).write_text(content)
    with pytest.raises(InputError, match=r"calibration\.json"):
        calibration.min_scores(tmp_path, ["one"], 0.9)


def test_a_list_of_the_file_is_one_of_the_class(tmp_path: Path) -> None:
    calibration.save(tmp_path, {"one": of(np.ones(3, bool))}, ["a", "b"])
    content = json.loads((tmp_path / calibration.FILE).read_text())
    assert content["tomograms"] == ["a", "b"]
    assert content["classes"]["one"]["hits"] == [1, 2, 3]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 80))
def test_a_condensed_calibration_keeps_operating_points_and_the_best_f1(right: list[bool], more: int) -> None:
    whole = of(np.array(right), true=sum(right) + more)
    kept = calibration.condensed(whole)
    assert set(kept.thresholds) <= set(whole.thresholds)
    assert operating_points(kept) == operating_points(whole)

    def best_f1(entry: ClassCalibration) -> float:
        return max(2 * hits / (picked + entry.true) for picked, hits in zip(entry.picked, entry.hits, strict=True))

    assert best_f1(kept) == pytest.approx(best_f1(whole), abs=1e-12)
