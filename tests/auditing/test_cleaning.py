"""Suggestions carried out: what is changed, what is recorded, what stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from robpicker_jax.annotations import Particles
from robpicker_jax.auditing import KINDS, judge, unannotated
from robpicker_jax.auditing.cleaning import cleaned, suspected
from robpicker_jax.auditing.examine import suspicions
from tests.auditing.planted import NAMES, RADII, evidence_of, grid_of_truth, probabilities

HALF = dict.fromkeys(KINDS, 0.5)


def faulty(seed: int) -> tuple[Particles, Particles, Particles]:
    """The truth, annotations with one fault of each kind and then some, and what an audit finds in them."""
    truth, rng = grid_of_truth(seed), np.random.default_rng(seed)
    labels, positions = truth.labels.copy(), truth.positions_vox.copy()
    labels[:2] = 3 - labels[:2]
    positions[2:4, 0] += 0.8 * np.array(RADII)[truth.labels[2:4] - 1]
    annotated = Particles(
        np.concatenate([positions[:-3], [[20.0, 20.0, 20.0]]]),
        np.append(labels[:-3], 1),
        scores=rng.uniform(size=len(truth) - 2),
        class_names=[*np.array(NAMES)[labels[:-3] - 1], "large"],
        tomograms=["as the list has it"] * (len(truth) - 2),
        extra={"obj_id": np.arange(len(truth) - 2)},
    )
    judged = judge(annotated, RADII, evidence_of(probabilities(truth), annotated))
    predicted = truth.with_(scores=np.full(len(truth), 0.9))
    missing = predicted.select(unannotated(predicted, annotated, judged.found_vox, RADII))
    return truth, annotated, suspicions(annotated, judged, missing, "tomo", NAMES)


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_the_cleaned_list_is_the_truth(seed: int) -> None:
    truth, annotated, found = faulty(seed)
    result, changes = cleaned(annotated, found, HALF, NAMES)
    assert len(result) == len(truth)
    distances, nearest = cKDTree(truth.positions_vox).query(result.positions_vox)
    assert sorted(nearest) == list(range(len(truth)))
    assert distances.max() < 0.5
    np.testing.assert_array_equal(result.labels, truth.labels[nearest])
    assert result.class_names is not None
    assert result.class_names.tolist() == [NAMES[label - 1] for label in result.labels]
    assert result.tomograms is not None
    assert set(result.tomograms.tolist()) == {"as the list has it"}
    assert sorted(change["what"] for change in changes) == ["added"] * 3 + ["moved"] * 2 + ["reclassed"] * 2 + [
        "removed"
    ]


def test_the_record_tells_every_change_and_nothing_else_changes() -> None:
    _, annotated, found = faulty(1)
    result, changes = cleaned(annotated, found, HALF, NAMES)
    touched = {change["row"] for change in changes}
    for row in set(range(1, len(annotated) + 1)) - touched:
        (place,) = np.flatnonzero(result.extra["obj_id"] == row - 1)
        np.testing.assert_array_equal(result.positions_vox[place], annotated.positions_vox[row - 1])
        assert result.labels[place] == annotated.labels[row - 1]
    for change in changes:
        before, after, row = change["from"], change["to"], change["row"]
        assert (before is None) == (change["what"] == "added") == (row is None)
        assert (after is None) == (change["what"] == "removed")
        if row is not None:
            np.testing.assert_allclose(before["position_xyz_vox"], annotated.positions_vox[row - 1], atol=1e-3)
            assert before["class"] == NAMES[annotated.labels[row - 1] - 1]
        if change["what"] in ("reclassed", "moved"):
            (place,) = np.flatnonzero(result.extra["obj_id"] == row - 1)
            np.testing.assert_allclose(after["position_xyz_vox"], result.positions_vox[place], atol=1e-3)
            assert after["class"] == NAMES[result.labels[place] - 1]


@pytest.mark.fast
def test_each_kind_has_a_smallest_score_of_its_own() -> None:
    _, annotated, found = faulty(2)
    never = dict.fromkeys(KINDS, 1.1)
    result, changes = cleaned(annotated, found, never, NAMES)
    assert changes == []
    np.testing.assert_array_equal(result.positions_vox, annotated.positions_vox)
    np.testing.assert_array_equal(result.labels, annotated.labels)
    for kind in KINDS:
        some = suspected(found, {**never, kind: 0.5})
        assert set(some.extra["kind"].tolist()) == {kind}


@pytest.mark.fast
def test_every_annotation_has_one_row_and_rows_are_ranked() -> None:
    _, annotated, found = faulty(3)
    rows = found.extra["row"][found.extra["row"] > 0]
    assert sorted(rows.tolist()) == list(range(1, len(annotated) + 1))
    assert found.scores is not None
    assert (np.diff(found.scores) <= 0).all()
    of_kind = np.stack([found.extra[kind] for kind in KINDS[:3]], axis=1)
    given = found.extra["row"] > 0
    np.testing.assert_array_equal(found.scores[given], of_kind[given].max(axis=1))
    assert np.isnan(of_kind[~given]).all()
