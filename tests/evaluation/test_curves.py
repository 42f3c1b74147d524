"""Metrics: curves of precision and recall, regions and instance maps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation import (
    evaluate,
    evaluation_table,
    precision_recall_curve,
)
from tests.evaluation.metric_cases import RULES, pairs_of, particle_sets, particles, score, tolerance

pytestmark = pytest.mark.fast


@settings(max_examples=40, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), options=RULES)
def test_each_point_of_the_curve_is_the_evaluation_of_that_cut(
    truth: Particles, picks: Particles, options: dict
) -> None:
    result = score(truth, picks, **options)
    for scored in result.classes:
        if scored.curve is None:
            continue
        for index, threshold in enumerate(scored.curve.thresholds):
            cut = score(truth, picks.select(picks.scores >= threshold), **options).of_class(scored.name)
            assert scored.curve.precision[index] == pytest.approx(cut.rates.precision)
            assert scored.curve.recall[index] == pytest.approx(cut.rates.recall)
            if threshold == scored.curve.best_threshold:
                assert scored.curve.best_fbeta == pytest.approx(cut.rates.fbeta)


def test_average_precision_is_scikit_learns_where_it_applies() -> None:
    """Isolated particles, each with one pick, false picks elsewhere: matching is trivial, ranking is all."""
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(5)
    truth = particles(np.stack([10 * np.arange(40), np.zeros(40), np.zeros(40)], axis=1))
    positions = np.concatenate([truth.positions_vox[:30] + rng.normal(size=(30, 3)) * 0.3, 1000 + rng.random((25, 3))])
    picks = particles(positions, scores=np.round(rng.random(55), 1))
    result = score(truth, picks, tolerance_vox=3.0)
    expected = average_precision_score(np.arange(55) < 30, picks.scores) * 30 / 40  # ten particles have no pick
    assert result.classes[0].average_precision == pytest.approx(expected)


def test_no_curve_without_scores() -> None:
    truth = particles([[0, 0, 0]])
    assert score(truth, particles([[0, 0, 0]])).classes[0].average_precision is None
    assert score(truth, particles([[0, 0, 0]], scores=[np.nan])).classes[0].average_precision is None
    curve = precision_recall_curve([pairs_of({})], [np.empty(0)], [np.empty(0, np.int64)], 3)
    assert curve.average_precision == 0


def test_counts_are_summed_over_tomograms() -> None:
    rng = np.random.default_rng(8)
    truth = {f"t{k}": particles(rng.uniform(0, 200, (20, 3)), rng.integers(1, 3, 20)) for k in range(5)}
    picks = {
        name: Particles.concatenate([true.select(slice(0, 9 + 2 * k)), particles(rng.uniform(300, 500, (3, 3)))])
        for k, (name, true) in enumerate(truth.items())
    }
    together = evaluate(truth, picks, tolerance())
    apart = [score(truth[name], picks[name]) for name in truth]
    np.testing.assert_array_equal(together.counts, np.concatenate([one.counts for one in apart]))
    assert together.micro.f1 == pytest.approx(2 * 65 / (100 + 65 + 15))
    interval = together.micro_interval
    assert interval is not None
    assert interval.low < together.micro.f1 < interval.high
    assert apart[0].micro_interval is None
    again = evaluate(truth, picks, tolerance())
    assert again.as_dict() == together.as_dict()


def test_regions_leave_out_what_lies_outside() -> None:
    region = np.zeros((10, 10, 100), dtype=bool)
    region[:, :, :50] = True
    truth = particles([[10, 5, 5], [48, 5, 5], [52, 5, 5], [90, 5, 5]])
    # A hit inside; one beyond the border of a particle inside; one inside of a particle outside; false in and out.
    picks = particles([[10, 5, 5], [50.6, 5, 5], [49.3, 5, 5], [30, 5, 5], [80, 5, 5]])
    result = score(truth, picks, tolerance_vox=3.0, regions={"t": region})
    counts = result.classes[0].counts
    assert (counts.true, counts.picked, counts.true_positives) == (2, 3, 2)
    assert score(truth, picks, tolerance_vox=3.0).classes[0].counts.true == 4


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), many=st.booleans())
def test_masks_against_counting_by_hand(seed: int, many: bool) -> None:
    """Particles so far apart that a pick has one candidate at most: then right, missed and false are plain to see."""
    rng = np.random.default_rng(seed)
    cells = np.array(list(itertools.product(range(4, 40, 9), repeat=3)))
    truth = particles(rng.permutation(cells)[:14] + rng.uniform(-1, 1, (14, 3)), rng.integers(1, 3, 14))
    chosen = rng.permutation(14)[:9]
    near = truth.positions_vox[chosen] + rng.uniform(-1.5, 1.5, (9, 3))
    picks = particles(np.concatenate([near, rng.uniform(0, 39, (8, 3))]), rng.integers(1, 3, 17), rng.random(17))
    masks = {name: rng.random((41, 41, 41)) < share for name, share in (("a", 0.5), ("b", 0.1), ("c", 1.1))}
    del masks["c"]  # a tomogram without a mask counts whole
    found = evaluate(
        dict.fromkeys("abc", truth),
        dict.fromkeys("abc", picks),
        tolerance(tolerance_vox=3.0, one_to_one=not many),
        regions=masks,
    )

    def within(name: str, position: np.ndarray) -> bool:
        x, y, z = (int(c + 0.5) for c in position)
        return name not in masks or bool(masks[name][z, y, x])

    for row, name in enumerate("abc"):
        expected = np.zeros((2, 3), int)
        hit = set()
        for position, label in zip(truth.positions_vox, truth.labels, strict=True):
            expected[label - 1, 0] += within(name, position)
        candidates = {}
        for pick, (position, label) in enumerate(zip(picks.positions_vox, picks.labels, strict=True)):
            apart = np.linalg.norm(truth.positions_vox - position, axis=1)
            candidates[pick] = [t for t in np.flatnonzero(apart <= 3.0) if truth.labels[t] == label]
            assume(len(candidates[pick]) <= 1)
        taken = list(itertools.chain.from_iterable(candidates.values()))
        assume(many or len(taken) == len(set(taken)))
        for pick, true in candidates.items():
            inside = within(name, truth.positions_vox[true[0]] if true else picks.positions_vox[pick])
            expected[picks.labels[pick] - 1, 1] += inside
            expected[picks.labels[pick] - 1, 2] += bool(true) and inside
            if true and inside:
                hit.add((pick, true[0]))
        np.testing.assert_array_equal(found.counts[row, :, :3], expected)
        assert {(p, t) for p, t in enumerate(found.matches[name].tolist()) if t >= 0} == hit
        left_out = found.left_out(name)
        assert left_out == (14 - expected[:, 0].sum(), 17 - expected[:, 1].sum())
    assert found.left_out()[0] > 0
    assert "outside the masks" in evaluation_table(found).caption  # type: ignore[operator]
    assert found.as_dict()["tomograms"][2]["left_out"] == {"true": 0, "picked": 0}


def test_mask_rule_with_instance_maps_of_spheres_agrees_with_spheres() -> None:
    from robpicker_jax.labels import instance_labels

    rng = np.random.default_rng(2)
    centres = np.array(list(itertools.product(range(8, 40, 14), repeat=3)), dtype=np.float64)
    truth = particles(centres + rng.uniform(-1, 1, centres.shape), rng.integers(1, 3, len(centres)))
    picks = particles(np.rint(truth.positions_vox + rng.normal(size=(len(truth), 3)) * 2.5), truth.labels)
    instances = instance_labels((48, 48, 48), truth, radii_vox=(5.0, 3.0))
    by_map = score(truth, picks, rule="mask", instance_maps={"t": instances})
    by_radius = score(truth, picks, rule="mask", radii_vox=(5.0, 3.0))
    assert 0 < by_map.micro.f1 < 1
    np.testing.assert_array_equal(by_map.matches["t"], by_radius.matches["t"])
