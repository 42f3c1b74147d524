"""Rules that count as published scorers do, against plain loops over all picks and particles."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.commands.evaluate import _RULES
from robpicker_jax.config import EvaluationConfig
from robpicker_jax.evaluation import RULES, Evaluation, EvaluationOptions, Rule, evaluate, evaluation_table
from tests.evaluation.metric_cases import NAMES, particle_sets, particles, score

pytestmark = pytest.mark.fast

RADII = (3.0, 5.0)
LISTS = st.lists(st.tuples(particle_sets(), particle_sets()), min_size=1, max_size=3)


def evaluated(lists: list[tuple[Particles, Particles]], rule: str, **options: object) -> Evaluation:
    truth = {str(number): true for number, (true, _) in enumerate(lists)}
    picks = {str(number): picked for number, (_, picked) in enumerate(lists)}
    chosen = {"class_names": NAMES, "rule": rule, "radii_vox": RADII, "tolerance_vox": 2.0} | options
    return evaluate(truth, picks, EvaluationOptions(**chosen))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))


def of_class(listed: Particles, label: int) -> np.ndarray:
    return listed.positions_vox[listed.labels == label]


@settings(max_examples=60, deadline=None)
@given(lists=LISTS, rule=st.sampled_from([("czii_scorer", 4.0), ("robpicker", 1.0)]))
def test_particles_near_a_pick(lists: list[tuple[Particles, Particles]], rule: tuple[str, float]) -> None:
    """TP: particles with a pick within half a radius; FP: picks - TP; FN: particles - TP; F-beta of the sums."""
    name, beta = rule
    weights = {"ribosome": 1.0, "proteasome": 3.0}
    result = evaluated(lists, name, weights=weights)
    mean, total = 0.0, 0.0
    for label, (species, radius) in enumerate(zip(NAMES, RADII, strict=True), start=1):
        tp = fp = fn = 0
        for true, picked in lists:
            references, candidates = of_class(true, label), of_class(picked, label)
            hit = sum(any(distance(r, c) <= radius / 2 for c in candidates) for r in references)
            tp, fp, fn = tp + hit, fp + len(candidates) - hit, fn + len(references) - hit
        counts = result.of_class(species).counts
        assert (counts.true_positives, counts.false_positives, counts.false_negatives) == (tp, fp, fn)
        if tp + fp + fn:
            precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
            both = beta**2 * precision + recall
            f = (1 + beta**2) * precision * recall / both if both else 0
            assert result.of_class(species).rates.fbeta == pytest.approx(f)
            mean, total = mean + weights[species] * f, total + weights[species]
    if total:
        assert result.weighted.fbeta == pytest.approx(mean / total)


def test_the_challenges_weights_are_known() -> None:
    names = ("ribosome", "beta-amylase", "thyroglobulin")
    options = EvaluationOptions(class_names=names, rule="czii_scorer", radii_vox=(3.0,) * 3)
    assert options.chosen_weights == {"ribosome": 1.0, "beta-amylase": 0.0, "thyroglobulin": 2.0}
    assert options.chosen_beta == 4.0


def deepict(
    true: np.ndarray, picked: np.ndarray, scores: np.ndarray, radius: float
) -> tuple[list[int], list[int], int]:
    """Running numbers of true and false positives, pick by pick, and of redundant picks in the end."""
    taken: set[int] = set()
    positives, negatives, redundant = [], [], 0
    tp = fp = 0
    for pick in np.argsort(-scores, kind="stable"):
        near = sorted((distance(t, picked[pick]), i) for i, t in enumerate(true) if distance(t, picked[pick]) <= radius)
        free = [i for _, i in near if i not in taken]
        if free:
            taken.add(free[0])
            tp += 1
        elif near:
            redundant += 1
        else:
            fp += 1
        positives.append(tp)
        negatives.append(fp)
    return positives, negatives, redundant


@settings(max_examples=80, deadline=None)
@given(true=particle_sets(), picked=particle_sets(most=20), seed=st.integers(0, 99))
def test_repeated_hits_count_neither_way(true: Particles, picked: Particles, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(len(picked)) / 50  # no ties
    picked = picked.with_(scores=scores)
    result = score(true, picked, rule="deepict", tolerance_vox=2.0)
    for label, species in enumerate(NAMES, start=1):
        references, mine = of_class(true, label), picked.labels == label
        positives, negatives, _ = deepict(references, picked.positions_vox[mine], scores[mine], 2.0)
        found = result.of_class(species)
        tp, fp = (positives[-1], negatives[-1]) if positives else (0, 0)
        assert (found.counts.true, found.counts.true_positives, found.counts.false_positives) == (
            len(references),
            tp,
            fp,
        )
        if len(references) and positives:
            precision = np.array(positives) / (np.array(positives) + np.array(negatives))
            recall = np.array(positives) / len(references)
            area = sum(
                0.5 * (recall[k + 1] - recall[k]) * (precision[k + 1] + precision[k]) for k in range(len(recall) - 1)
            )
            assert found.average_precision == pytest.approx(area)
            f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True)]
            assert found.curve.best_fbeta == pytest.approx(max(f1))


@settings(max_examples=80, deadline=None)
@given(lists=LISTS)
def test_exactly_one_pick_near_a_particle(lists: list[tuple[Particles, Particles]]) -> None:
    """Pairs of (true label, predicted label), with 0 for nothing, as they go into a confusion matrix."""
    actual, predicted = [], []
    for true, picked in lists:
        used = set()
        for at, label in zip(true.positions_vox, true.labels, strict=True):
            near = [i for i, other in enumerate(picked.positions_vox) if distance(at, other) <= 2.0]
            actual.append(int(label))
            predicted.append(int(picked.labels[near[0]]) if len(near) == 1 else 0)
            used |= set(near) if len(near) == 1 else set()
        for i, label in enumerate(picked.labels):
            if i not in used:
                actual.append(0)
                predicted.append(int(label))
    result = evaluated(lists, "deepfinder")
    for label, species in enumerate(NAMES, start=1):
        pairs = list(zip(actual, predicted, strict=True))
        counts = result.of_class(species).counts
        assert counts.true_positives == sum(a == p == label for a, p in pairs)
        assert counts.false_positives == sum(a != label and p == label for a, p in pairs)
        assert counts.false_negatives == sum(a == label and p != label for a, p in pairs)
        assert result.of_class(species).curve is None


@settings(max_examples=80, deadline=None)
@given(lists=LISTS, seed=st.integers(0, 2**32 - 1))
def test_the_first_pick_in_a_label_gives_its_class(lists: list[tuple[Particles, Particles]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, actual, predicted, hits, twice, located, apart = {}, [], [], 0, 0, 0, []
    for number, (true, picked) in enumerate(lists):
        hitbox = rng.integers(0, len(true) + 1, (8, 8, 8)) if len(true) else np.zeros((8, 8, 8), int)
        maps[str(number)] = hitbox
        classes, times = [0] * len(true), [0] * len(true)
        for at, label in zip(picked.positions_vox, picked.labels, strict=True):
            x, y, z = (min(max(int(np.floor(value + 0.5)), 0), 7) for value in at)
            owner = hitbox[z, y, x] - 1
            if owner < 0:
                continue
            times[owner] += 1
            whole = np.floor(at + 0.5), np.floor(true.positions_vox[owner] + 0.5)
            apart.append(distance(*whole))
            classes[owner] = classes[owner] or int(label)
        actual += true.labels.tolist()
        predicted += classes
        hits += sum(times)
        located += sum(time > 0 for time in times)
        twice += sum(time > 1 for time in times)
    truth = {str(number): true for number, (true, _) in enumerate(lists)}
    picks = {str(number): picked for number, (_, picked) in enumerate(lists)}
    options = EvaluationOptions(class_names=NAMES, rule="shrec", radii_vox=RADII)
    result = evaluate(truth, picks, options, instance_maps=maps)
    for label, species in enumerate(NAMES, start=1):
        pairs = list(zip(actual, predicted, strict=True))
        counts = result.of_class(species).counts
        assert counts.true_positives == sum(a == p == label for a, p in pairs)
        assert counts.picked == sum(p == label for _, p in pairs)
        assert counts.true == actual.count(label)
    where = result.localisation
    assert where is not None
    assert (where.located, where.located_twice) == (located, twice)
    assert (where.true, where.picked) == (len(actual), sum(len(picked) for _, picked in lists))
    assert where.mean_distance_vox == (pytest.approx(np.mean(apart)) if hits else None)
    if located:
        assert where.rates.f1 == pytest.approx(1 / ((len(actual) / located + where.picked / located) / 2))


def test_without_a_map_a_label_is_the_nearest_sphere() -> None:
    truth = particles([[0, 0, 0], [7, 0, 0]], [1, 2])
    picks = particles([[3.5, 0, 0], [-2.9, 0, 0], [20, 0, 0]], [2, 1, 1])
    result = score(truth, picks, rule="shrec", radii_vox=(4.0, 5.0))
    # The first pick lies in both spheres, equally near: the first particle's. It is of the wrong class.
    assert [found.counts.true_positives for found in result.classes] == [0, 0]
    assert result.classes[1].counts.picked == 1
    assert (result.localisation.located, result.localisation.located_twice) == (1, 1)


def test_regions_leave_out_what_lies_outside() -> None:
    truth = particles([[2, 2, 2], [6, 2, 2]], [1, 1])
    picks = particles([[2, 2, 2], [6, 2, 2], [5.6, 2, 2], [2, 7, 2]], [1, 1, 1, 1], [0.9, 0.8, 0.7, 0.6])
    region = np.zeros((9, 9, 9), bool)
    region[:, :, :5] = True
    expected = {"deepict": (1, 2, 1), "deepfinder": (1, 2, 1), "shrec": (1, 1, 1), "robpicker": (1, 2, 1)}
    for rule, counts in expected.items():
        result = score(truth, picks, rule=rule, radii_vox=(1.0, 1.0), tolerance_vox=1.0, regions={"t": region})
        found = result.classes[0].counts
        assert (found.true, found.picked, found.true_positives) == counts, rule


def test_every_rule_is_known_everywhere() -> None:
    rule = get_type_hints(EvaluationConfig, include_extras=True)["rule"]
    assert list(RULES) == _RULES == list(get_args(Rule)) == list(get_args(get_args(rule)[0]))


@pytest.mark.parametrize("rule", list(RULES))
def test_the_table_says_the_rule(rule: str) -> None:
    truth, picks = particles([[1, 1, 1]], [1]), particles([[1, 1, 1], [1, 1, 2]], [1, 1], [0.5, 0.4])
    table = evaluation_table(score(truth, picks, rule=rule, radii_vox=(4.0, 4.0)))
    assert RULES[rule].text in str(table.caption)
    names = list(table.columns[0].cells)
    assert ("any class" in names) == (rule == "shrec")
