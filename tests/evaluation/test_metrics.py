"""Metrics against brute force, hand-computed scores, scikit-learn and their own invariances."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
import scipy.optimize
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import Config, DataConfig, EvaluationConfig, Species
from robpicker_jax.evaluation import (
    EvaluationOptions,
    evaluate,
    evaluation_table,
    f_beta,
    matching,
    size_group,
)
from robpicker_jax.evaluation.matching import Pairs, assign_one_to_one, gains_by_rank, pairs_in_instances, pairs_within
from robpicker_jax.system.errors import InputError
from tests.evaluation.metric_cases import NAMES, RULES, pairs_of, particle_sets, particles, score, tolerance


def brute_force(distances: dict[tuple[int, int], float], n_picks: int, n_truths: int) -> tuple[int, float]:
    """Size and total distance of the best one-to-one assignment, by trying all of them."""
    options: list[int | None] = [*range(n_truths), *[None] * n_picks]
    best = (0, 0.0)
    for choice in set(itertools.permutations(options, n_picks)):
        chosen = [(pick, true) for pick, true in enumerate(choice) if true is not None]
        if all(pair in distances for pair in chosen):
            best = min(best, (-len(chosen), sum(distances[pair] for pair in chosen)))
    return -best[0], best[1]


# --- matching -------------------------------------------------------------------------------------------------


def test_a_crowd_is_matched_as_well_without_all_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """More picks and particles within one hit's distance than any sample holds: no match less, and all of them near."""
    monkeypatch.setattr(matching, "_CROWD", 1 << 12)
    rng = np.random.default_rng(0)
    for count, extent in ((300, 1.0), (300, 0.0), (200, 4.0)):
        true, picked = (extent * rng.normal(size=(number, 3)) for number in (count, count + 50))
        evaluation = score(particles(true), particles(picked), tolerance_vox=5.0)
        distances = np.linalg.norm(picked[:, None] - true[None], axis=2)
        rows, columns = linear_sum_assignment(np.where(distances <= 5.0, distances, 1e6))
        best = distances[rows, columns][distances[rows, columns] <= 5.0]
        assert evaluation.classes[0].counts.true_positives == len(best)
        assert evaluation.classes[0].localisation is not None
        assert evaluation.classes[0].localisation.mean_vox <= 1.05 * best.mean() + 1e-9
        pairs = pairs_within(particles(true), particles(picked), np.array([5.0, 5.0]))
        assert len(pairs.picks) <= 2 * matching._NEAREST * (2 * count + 50)
        np.testing.assert_allclose(pairs.distances, distances[pairs.picks, pairs.truths])
        assert (pairs.distances <= 5.0).all()


def test_a_large_group_has_as_many_matches_as_the_optimal_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_LARGE_GROUP", 1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        near = rng.random(tuple(rng.integers(2, 9, 2))) < 0.4
        picks, truths = np.nonzero(near)
        found = assign_one_to_one(Pairs(picks, truths, rng.random(picks.size)), len(near))
        matched = np.flatnonzero(found >= 0)
        assert near[matched, found[matched]].all()
        assert len(set(found[matched])) == len(matched)
        rows, columns = linear_sum_assignment(near, maximize=True)
        assert len(matched) == near[rows, columns].sum()


@pytest.mark.parametrize("dense_cells", [0, 1 << 22])
def test_assignment_is_optimal(dense_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both solvers give most matches first, then least total distance."""
    monkeypatch.setattr(matching, "_DENSE_CELLS", dense_cells)
    rng = np.random.default_rng(0)
    for _ in range(60):
        n_picks, n_truths = rng.integers(1, 5, 2).tolist()
        distances = {
            (pick, true): float(rng.integers(0, 10))
            for pick in range(n_picks)
            for true in range(n_truths)
            if rng.random() < 0.6
        }
        matches = assign_one_to_one(pairs_of(distances), n_picks)
        hits = np.flatnonzero(matches >= 0)
        assert len(set(matches[hits])) == len(hits)
        total = sum(distances[pick, matches[pick]] for pick in hits)
        assert (len(hits), total) == brute_force(distances, n_picks, n_truths)


def test_nearest_first_would_lose_a_match() -> None:
    """Pick 1 is nearest to particle 0, but only by taking particle 1 do both picks hit."""
    truth, picks = particles([[0, 0, 0], [3, 0, 0]]), particles([[-2, 0, 0], [1, 0, 0]])
    result = score(truth, picks, tolerance_vox=2.5)
    assert result.matches["t"].tolist() == [0, 1]


@settings(max_examples=50, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), limits=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)))
def test_pairs_within_are_all_pairs_within(truth: Particles, picks: Particles, limits: tuple[float, float]) -> None:
    found = pairs_within(truth, picks, np.array(limits))
    expected = {
        (i, j)
        for i, j in itertools.product(range(len(picks)), range(len(truth)))
        if picks.labels[i] == truth.labels[j]
        and np.linalg.norm(picks.positions_vox[i] - truth.positions_vox[j]) <= limits[picks.labels[i] - 1]
    }
    assert set(zip(found.picks.tolist(), found.truths.tolist(), strict=True)) == expected
    apart = np.linalg.norm(picks.positions_vox[found.picks] - truth.positions_vox[found.truths], axis=1)
    np.testing.assert_allclose(found.distances, apart)


def test_the_limit_itself_is_a_hit() -> None:
    truth, picks = particles([[0, 0, 0], [9, 9, 9]]), particles([[3, 4, 0], [9, 9, 9]])
    assert len(pairs_within(truth, picks, np.array([5.0])).picks) == 2
    assert len(pairs_within(truth, picks, np.array([4.999])).picks) == 1


def test_instance_maps_decide_by_the_picks_voxel() -> None:
    truth = particles([[2, 2, 2], [6, 2, 2]], [1, 2])
    instances = np.zeros((5, 5, 9), dtype=np.int32)
    instances[2, 2, 1:4], instances[2, 2, 5:8] = 1, 2
    picks = particles([[3.4, 2, 2], [3.6, 2, 2], [6, 2, 2], [6, 2, 2], [-1, 0, 0]], [1, 1, 1, 2, 1])
    found = pairs_in_instances(truth, picks, instances)
    assert found.picks.tolist() == [0, 3]
    assert found.truths.tolist() == [0, 1]
    np.testing.assert_allclose(found.distances, [1.4, 0])
    with pytest.raises(InputError, match="names particle 2"):
        pairs_in_instances(truth.select([0]), picks, instances)


@settings(max_examples=60, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), limit=st.floats(0.5, 6))
def test_gains_sum_to_the_largest_matching_at_every_rank(truth: Particles, picks: Particles, limit: float) -> None:
    pairs = pairs_within(truth, picks, np.array([limit, limit]))
    ranked = np.argsort(-picks.scores, kind="stable")
    gains = gains_by_rank(pairs, ranked)
    for rank in range(len(ranked)):
        among = pairs.where(np.isin(pairs.picks, ranked[: rank + 1]))
        assert gains[: rank + 1].sum() == (assign_one_to_one(among, len(picks)) >= 0).sum()


# --- scores ---------------------------------------------------------------------------------------------------


def test_hand_computed_scores() -> None:
    """Two classes, by hand: class 1 has 3 true, 4 picks, 2 hits; class 2 has 2 true, 1 pick, 1 hit."""
    truth = particles([[0, 0, 0], [20, 0, 0], [40, 0, 0], [0, 30, 0], [20, 30, 0]], [1, 1, 1, 2, 2])
    picks = particles([[1, 0, 0], [2, 0, 0], [20, 3, 0], [60, 0, 0], [20, 30, 1]], [1, 1, 1, 1, 2])
    result = score(truth, picks, tolerance_vox=5.0, beta=2.0)
    first, second = result.classes
    assert (first.counts.true, first.counts.picked, first.counts.true_positives) == (3, 4, 2)
    assert (first.counts.false_positives, first.counts.false_negatives) == (2, 1)
    assert first.rates.precision == pytest.approx(2 / 4)
    assert first.rates.recall == pytest.approx(2 / 3)
    assert first.rates.f1 == pytest.approx(4 / 7)
    assert first.rates.fbeta == pytest.approx(5 * 2 / (4 * 3 + 4))
    assert second.rates.f1 == pytest.approx(2 / 3)
    assert result.macro_f1 == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert result.micro.f1 == pytest.approx(6 / 10)
    assert first.localisation is not None
    assert first.localisation.mean_vox == pytest.approx((1 + 3) / 2)
    assert first.localisation.rms_vox == pytest.approx(np.sqrt((1 + 9) / 2))
    assert result.matches["t"].tolist() == [0, -1, 1, -1, 4]


def test_paper_literal_rule_counts_every_pick() -> None:
    truth, picks = particles([[0, 0, 0], [50, 0, 0]]), particles([[0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]])
    result = score(truth, picks, rule="mask", radii_vox=(3, 3), one_to_one=False)
    counts, rates = result.classes[0].counts, result.classes[0].rates
    assert (counts.true_positives, counts.found, counts.false_negatives) == (3, 1, 1)
    assert rates.precision == pytest.approx(3 / 4)
    assert rates.recall == pytest.approx(3 / 2)
    assert score(truth, picks, rule="mask", radii_vox=(3, 3)).classes[0].counts.true_positives == 1


def czii_score(truth: dict, picks: dict, radii: tuple[float, ...], weights: tuple[float, ...], beta: float) -> float:
    """The challenge's published scoring rule, by loops: distinct particles within half a radius of some pick."""
    total = 0.0
    for label, (radius, weight) in enumerate(zip(radii, weights, strict=True), 1):
        tp = fp = fn = 0
        for name, true in truth.items():
            reference = true.positions_vox[true.labels == label]
            candidates = picks[name].positions_vox[picks[name].labels == label]
            hit = sum(
                any(np.linalg.norm(point - candidate) <= 0.5 * radius for candidate in candidates)
                for point in reference
            )
            tp, fp, fn = tp + hit, fp + len(candidates) - hit, fn + len(reference) - hit
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        bottom = beta**2 * precision + recall
        total += weight * ((1 + beta**2) * precision * recall / bottom if bottom else 0.0)
    return total / sum(weights)


@settings(max_examples=40, deadline=None)
@given(sets=st.lists(st.tuples(particle_sets(20, 12.0), particle_sets(20, 12.0)), min_size=1, max_size=3))
def test_czii_rule_is_the_challenges_score(sets: list[tuple[Particles, Particles]]) -> None:
    truth = {str(index): true for index, (true, _) in enumerate(sets)}
    picks = {str(index): picked for index, (_, picked) in enumerate(sets)}
    assume(all(any((true.labels == label).any() for true in truth.values()) for label in (1, 2)))
    result = evaluate(
        truth,
        picks,
        EvaluationOptions(
            class_names=NAMES,
            rule="czii",
            radii_vox=(6, 3),
            one_to_one=False,
            weights={"proteasome": 2.0},
        ),
    )
    assert result.beta == 4
    assert result.weighted is not None
    assert result.weighted.fbeta == pytest.approx(czii_score(truth, picks, (6, 3), (1, 2), 4.0))


@given(tp=st.integers(0, 50), extra=st.integers(0, 50), missed=st.integers(0, 50), beta=st.floats(0.1, 8))
def test_f_beta_is_the_weighted_harmonic_mean(tp: int, extra: int, missed: int, beta: float) -> None:
    value = float(f_beta(tp, tp + extra, tp + missed, beta))
    if tp + extra + missed == 0:
        assert np.isnan(value)
    elif tp == 0:
        assert value == 0
    else:
        precision, recall = tp / (tp + extra), tp / (tp + missed)
        assert value == pytest.approx((1 + beta**2) * precision * recall / (beta**2 * precision + recall))


def test_classes_with_nothing_in_them_do_not_count() -> None:
    truth = particles([[0, 0, 0]])
    result = score(truth, truth)
    assert result.macro_f1 == 1
    assert np.isnan(result.classes[1].rates.f1)
    false = particles([[0, 0, 0], [5, 5, 5]], [1, 2])
    result = score(truth, false)
    assert result.classes[1].rates.f1 == 0
    assert result.macro_f1 == 0.5
    assert score(truth, Particles.empty()).classes[0].rates.f1 == 0
    assert np.isnan(score(Particles.empty(), Particles.empty()).macro_f1)


# --- invariances ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), options=RULES, seed=st.integers(0, 1000))
def test_the_order_of_the_lists_does_not_matter(truth: Particles, picks: Particles, options: dict, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = score(truth, picks, **options)
    other = score(
        truth.select(rng.permutation(len(truth))), picks.select(rng.permutation(len(picks))), **options
    ).as_dict()
    for mine, theirs in zip(one.as_dict()["classes"], other["classes"], strict=True):
        for key in ("true", "picked", "true_positives", "f1", "fbeta", "average_precision", "best_threshold"):
            assert mine[key] == pytest.approx(theirs[key])


@settings(max_examples=40, deadline=None)
@given(truth=particle_sets(), options=RULES)
def test_perfect_picks_score_one(truth: Particles, options: dict) -> None:
    assume(len(truth))
    if options.get("one_to_one", True):
        result = score(truth, truth, **options)
        assert result.macro_f1 == result.micro.f1 == result.macro.fbeta == 1
        assert all(c.average_precision in (None, pytest.approx(1.0)) for c in result.classes)
        assert all(c.localisation is None or c.localisation.mean_vox == 0 for c in result.classes)


@settings(max_examples=60, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), options=RULES, label=st.integers(1, 2))
def test_a_far_false_pick_never_helps(truth: Particles, picks: Particles, options: dict, label: int) -> None:
    worse = Particles.concatenate([picks, particles([[500, 500, 500]], [label], [0.5])])
    before, after = score(truth, picks, **options), score(truth, worse, **options)
    for one, other in zip(before.classes, after.classes, strict=True):
        # NaN before (nothing there, nothing picked) may become 0.
        assert not other.rates.precision > one.rates.precision
        assert not other.rates.f1 > one.rates.f1
        assert one.counts.true_positives == other.counts.true_positives


@settings(max_examples=60, deadline=None)
@given(truth=particle_sets(), picks=particle_sets(), options=RULES)
def test_one_to_one_counts_nothing_twice(truth: Particles, picks: Particles, options: dict) -> None:
    result = score(truth, picks, **(options | {"one_to_one": True}))
    hits = result.matches["t"][result.matches["t"] >= 0]
    assert len(set(hits.tolist())) == len(hits) == result.counts[..., 2].sum()
    assert (result.counts[..., 2] <= np.minimum(result.counts[..., 0], result.counts[..., 1])).all()


# --- groups, output, errors -----------------------------------------------------------------------------------


def test_size_groups_are_shrec_2019s() -> None:
    weights = {
        "tiny": (42.75, 62.62, 84.61),
        "small": (158.08, 188.73, 236.11, 238.82),
        "medium": (541.74, 559.96, 593.36),
        "large": (1309.28, 1952.74),
    }
    for group, values in weights.items():
        assert {size_group(value) for value in values} == {group}
    assert size_group() is None
    assert size_group(radius_angstrom=30) == "tiny"


def test_group_scores_are_means_over_their_classes() -> None:
    truth = particles([[0, 0, 0], [50, 0, 0], [99, 0, 0]], [1, 2, 3])
    picks = particles([[0, 0, 0], [99, 0, 0], [70, 9, 9]], [1, 3, 3])
    result = score(truth, picks, class_names=("a", "b", "c"), molecular_weights_kda=(50, 60, 2000.0))
    assert [(group.name, group.members) for group in result.groups] == [("tiny", ("a", "b")), ("large", ("c",))]
    assert result.groups[0].macro.f1 == pytest.approx(0.5)
    assert result.groups[0].micro.f1 == pytest.approx(2 / 3)
    assert result.groups[1].macro.f1 == pytest.approx(2 / 3)


def test_result_is_json_and_a_table() -> None:
    from rich.console import Console

    truth = particles([[0, 0, 0], [50, 0, 0]], [1, 1])
    picks = particles([[0, 1, 0]], [1], [0.9])
    result = evaluate(
        {"a": truth, "b": truth},
        {"a": picks},
        EvaluationOptions(
            class_names=NAMES,
            rule="czii",
            radii_vox=(7, 6),
            molecular_weights_kda=(3200, 750),
            voxel_size_angstrom=10.0,
            weights={},
        ),
        missing_picks_as_empty=True,
    )
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["macro_f1"] == pytest.approx(2 / 5)
    assert data["classes"][0]["localisation"]["mean_angstrom"] == 10
    assert data["classes"][0]["best_threshold"] == 0.9
    assert data["classes"][1]["f1"] is None
    assert [row["name"] for row in data["tomograms"]] == ["a", "b"]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(evaluation_table(result))
    text = console.export_text()
    assert "ribosome" in text
    assert "large (1)" in text
    assert "2 tomograms" in text


def test_options_come_from_the_configuration() -> None:
    species = (Species("ribosome", 7.0, molecular_weight_kda=3200.0), Species("proteasome", 6.0))
    config = Config(data=DataConfig(species=species), evaluation=EvaluationConfig(rule="czii", one_to_one=False))
    options = EvaluationOptions.from_config(config.evaluation, config.data.species)
    truth = particles([[0, 0, 0]])
    result = evaluate({"t": truth}, {"t": truth}, options)
    assert (result.rule, result.one_to_one, result.limits_vox) == ("czii", False, (3.5, 3.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "nearest"}, "unknown rule"),
        ({"rule": "mask"}, "radius of each class"),
        ({"rule": "czii", "radii_vox": (1.0,)}, "2 positive radii"),
        ({"rule": "mask", "radii_vox": (1.0, -1.0)}, "2 positive radii"),
        ({"rule": "mask", "instance_maps": {}}, "no instance map"),
        ({"tolerance_vox": 0.0}, "tolerance_vox"),
        ({"beta": 0.0}, "beta"),
        ({"weights": {"actin": 1.0}}, "unknown class 'actin'"),
        ({"molecular_weights_kda": (1.0,)}, "molecular weights"),
        ({"class_names": ("ribosome",)}, r"class labels outside 1 … 1"),
    ],
)
def test_bad_options(changes: dict, message: str) -> None:
    both = particles([[0, 0, 0], [1, 1, 1]], [1, 2])
    with pytest.raises(InputError, match=message):
        score(both, both, **changes)


def test_tomograms_must_correspond() -> None:
    both = particles([[0, 0, 0], [1, 1, 1]], [1, 2])
    options = tolerance()
    with pytest.raises(InputError, match="no picks for 1 of 2 tomograms: b"):
        evaluate({"a": both, "b": both}, {"a": both}, options)
    with pytest.raises(InputError, match="tomograms without truth: c"):
        evaluate({"a": both}, {"a": both, "c": both}, options)
    with pytest.raises(InputError, match="no tomogram"):
        evaluate({}, {}, options)
    result = evaluate({"a": both, "b": both}, {"a": both}, options, missing_picks_as_empty=True)
    assert result.micro.recall == pytest.approx(0.5)


def test_crowded_lists_fall_into_small_assignments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SHREC-sized set ten times over: the distance matrices that are solved stay small, whatever the lists' length."""
    sizes = []

    def recorded(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(cost.size)
        return linear_sum_assignment(cost)

    monkeypatch.setattr(scipy.optimize, "linear_sum_assignment", recorded)
    rng = np.random.default_rng(0)
    truth = particles(rng.uniform(0, 500, (25_000, 3)), rng.integers(1, 13, 25_000))
    picks = particles(truth.positions_vox + rng.normal(size=(25_000, 3)), truth.labels, rng.random(25_000))
    result = score(truth, picks, class_names=[str(k) for k in range(12)], tolerance_vox=10.0)
    assert result.micro.f1 > 0.99
    assert sizes
    assert max(sizes) < 1000
