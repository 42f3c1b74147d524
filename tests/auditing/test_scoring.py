"""Planted faults of each kind, in the probability maps of a network that knows the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.auditing import KINDS, Evidence, judge, unannotated
from tests.auditing.planted import RADII, evidence_of, grid_of_truth, probabilities

FALSE, WRONG, DISPLACED, _ = range(len(KINDS))


def off(rng: np.random.Generator, radii: np.ndarray, share: float) -> np.ndarray:
    """Displacements by a share of the radius, in random directions."""
    directions = rng.normal(size=(len(radii), 3))
    return share * radii[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), sure=st.floats(0.6, 0.95))
def test_each_fault_is_of_its_kind_and_above_what_is_right(seed: int, sure: float) -> None:
    truth, rng = grid_of_truth(seed), np.random.default_rng(seed)
    scores = probabilities(truth, sure=sure)
    order = rng.permutation(len(truth))
    swapped, moved, dropped, right = order[:3], order[3:6], order[6:9], order[9:]
    labels, positions = truth.labels.copy(), truth.positions_vox.copy()
    labels[swapped] = 3 - labels[swapped]
    radii = np.array(RADII)[truth.labels - 1]
    positions[moved] += off(rng, radii[moved], 0.9)
    kept = np.setdiff1d(np.arange(len(truth)), dropped)
    nothing_there = np.array([[20.0, 20.0, 20.0], [41.0, 40.0, 20.0]])
    annotated = Particles(
        np.concatenate([positions[kept], nothing_there]), np.concatenate([labels[kept], [1, 2]]).astype(np.int32)
    )
    judged = judge(annotated, RADII, evidence_of(scores, annotated))
    kind_of = dict(zip(kept.tolist(), judged.kinds[: len(kept)].tolist(), strict=True))
    worst = dict(zip(kept.tolist(), judged.scores.max(axis=1).tolist(), strict=False))
    assert all(kind_of[index] == WRONG for index in swapped)
    assert all(kind_of[index] == DISPLACED for index in moved)
    assert (judged.kinds[len(kept) :] == FALSE).all()
    rows = {index: row for row, index in enumerate(kept.tolist())}
    for index in swapped:
        assert judged.other_labels[rows[index]] == truth.labels[index]
    for index in moved:  # the suggestion is the true centre, to a fraction of a voxel
        assert np.linalg.norm(judged.found_vox[rows[index]] - truth.positions_vox[index]) < 0.5
    faulty = [worst[index] for index in (*swapped, *moved)] + judged.scores[len(kept) :].max(axis=1).tolist()
    assert min(faulty) > max(worst[index] for index in right)
    assert min(faulty) >= 0.5
    assert ((judged.scores >= 0) & (judged.scores <= 1)).all()
    # Of all true particles, only those that were dropped have no annotation.
    lost = unannotated(truth, annotated, judged.found_vox, RADII)
    assert set(np.flatnonzero(lost)) == set(dropped.tolist())


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_annotations_does_not_matter(seed: int) -> None:
    truth, rng = grid_of_truth(seed), np.random.default_rng(seed)
    scores = probabilities(truth)
    radii = np.array(RADII)[truth.labels - 1]
    annotated = truth.with_(positions_vox=truth.positions_vox + off(rng, radii, 0.4))
    order = rng.permutation(len(annotated))
    one = judge(annotated, RADII, evidence_of(scores, annotated))
    shuffled = annotated.select(order)
    other = judge(shuffled, RADII, evidence_of(scores, shuffled))
    np.testing.assert_allclose(one.scores[order], other.scores, atol=1e-6)
    np.testing.assert_allclose(one.found_vox[order], other.found_vox, atol=1e-6)


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 1.0))
def test_the_score_of_a_displacement_grows_with_it_and_is_one_half_at_the_tolerated_share(
    seed: int, share: float
) -> None:
    truth, rng = grid_of_truth(seed), np.random.default_rng(seed)
    scores = probabilities(truth, sure=1.0, second=0.0, haze=0.0)
    radii = np.array(RADII)[truth.labels - 1]
    annotated = truth.with_(positions_vox=truth.positions_vox + off(rng, radii, share))
    judged = judge(annotated, RADII, evidence_of(scores, annotated), tolerated_share=0.5)
    np.testing.assert_allclose(judged.scores[:, DISPLACED], share, atol=0.08)
    np.testing.assert_allclose(judged.scores[:, FALSE], 0, atol=0.12)


@pytest.mark.fast
def test_of_two_annotations_of_one_particle_the_nearer_one_keeps_it() -> None:
    truth = Particles([[30.0, 30.0, 20.0]], [1])
    annotated = Particles([[35.5, 30.0, 20.0], [30.5, 30.0, 20.0]], [1, 1])
    judged = judge(annotated, RADII, evidence_of(probabilities(truth), annotated))
    assert judged.kinds[0] == FALSE
    assert judged.scores[0, FALSE] > 0.5
    assert judged.scores[1].max() < 0.2


@pytest.mark.fast
def test_a_false_annotation_beside_a_particle_of_another_species_is_not_of_the_wrong_class() -> None:
    truth = Particles([[30.0, 30.0, 20.0]], [1])
    annotated = Particles([[30.0, 38.0, 20.0]], [2])
    judged = judge(annotated, RADII, evidence_of(probabilities(truth), annotated))
    assert judged.kinds[0] == FALSE


@pytest.mark.fast
def test_with_one_species_no_class_is_wrong() -> None:
    truth = Particles([[30.0, 30.0, 20.0], [12.0, 12.0, 12.0]], [1, 1])
    scores = probabilities(truth)
    one_species = np.stack([1 - scores[..., 1], scores[..., 1]], axis=-1)
    evidence = Evidence(one_species.shape[:3], 2, truth, RADII[:1])
    evidence.add(0, 0, one_species)
    judged = judge(truth, RADII[:1], evidence)
    assert (judged.scores[:, WRONG] == 0).all()
    assert (judged.other_labels == 1).all()


@pytest.mark.fast
def test_without_annotations_everything_predicted_is_missing() -> None:
    truth = grid_of_truth(0)
    nothing = Particles.empty()
    judged = judge(nothing, RADII, evidence_of(probabilities(truth), nothing))
    assert judged.scores.shape == (0, 3)
    assert unannotated(truth, nothing, judged.found_vox, RADII).all()
    assert not len(unannotated(nothing, truth, truth.positions_vox, RADII))


@pytest.mark.fast
def test_what_a_displaced_annotation_belongs_to_is_not_missing() -> None:
    truth = Particles([[30.0, 30.0, 20.0]], [1])
    annotated = Particles([[30.0, 37.2, 20.0]], [1])  # 1.2 radii off
    judged = judge(annotated, RADII, evidence_of(probabilities(truth), annotated))
    assert judged.kinds[0] == DISPLACED
    assert not unannotated(truth, annotated, judged.found_vox, RADII).any()
    assert unannotated(truth, annotated, annotated.positions_vox, RADII).all()
