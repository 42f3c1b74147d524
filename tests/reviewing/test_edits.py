"""Edits folded, undone and written: against a plain account of the same rules."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.reviewing import Edit, Review, ReviewList, fingerprint, read_decisions, write_decisions
from robpicker_jax.system.errors import InputError
from tests.reviewing.review_cases import CLASSES, account, audit, content, picks

pytestmark = pytest.mark.fast

_COORDINATES = st.tuples(*[st.floats(-10, 100)] * 3)


@st.composite
def edits(draw: st.DrawFn, n: int = 24) -> list[Edit]:
    """Up to thirty edits that make sense one after the other."""
    found: list[Edit] = []
    for _ in range(draw(st.integers(0, 30))):
        do = draw(st.sampled_from(["accept", "reject", "undecide", "reclass", "move", "add"]))
        item = None if do == "add" else draw(st.integers(0, n - 1))
        n += do == "add"
        label = draw(st.integers(1, len(CLASSES))) if do in ("reclass", "add") else None
        found.append(Edit(do, item, label, draw(_COORDINATES) if do in ("move", "add") else None))
    return found


@given(edits(), st.floats(0, 1))
def test_the_list_is_what_the_rules_say(sequence: list[Edit], least: float) -> None:
    reviewed = picks()
    review = Review(reviewed, sequence)
    found = review.corrected(dict.fromkeys(CLASSES, least))
    # An added particle that somebody undecided is in no list, for it never had a score.
    assert content(found) == account(reviewed, sequence, least)
    assert content(Review(reviewed, sequence).corrected(accepted_only=True)) == account(reviewed, sequence, np.inf)


@given(edits(), st.integers(0, 30))
@settings(max_examples=20)
def test_undoing_is_as_if_it_had_never_been_done(sequence: list[Edit], steps: int) -> None:
    reviewed = picks()
    review = Review(reviewed)
    for edit in sequence:
        review.do(edit)
    everything = review.items
    undone = sum(review.undo() is not None for _ in range(steps))
    assert undone == min(steps, len(sequence))
    assert review.items == Review(reviewed, sequence[: len(sequence) - undone]).items
    assert sum(review.redo() is not None for _ in range(steps)) == undone
    assert review.items == everything


def test_a_new_edit_ends_what_could_be_done_again() -> None:
    review = Review(picks())
    for index in range(3):
        review.do(Edit("accept", index))
    review.undo()
    review.do(Edit("reject", 7))
    assert review.redo() is None
    assert [edit.item for edit in review.edits] == [0, 1, 7]


def test_every_column_of_the_list_is_kept() -> None:
    reviewed = picks(rotations=True)
    review = Review(
        reviewed, [Edit("reject", 3), Edit("reclass", 5, label=2), Edit("add", label=1, at=(1.0, 2.0, 3.0))]
    )
    found, given_ = review.corrected(), reviewed.particles
    kept = [index for index in range(24) if index != 3]
    for name in ("scores", "cluster_sizes", "rotations"):
        np.testing.assert_array_equal(getattr(found, name)[:-1], getattr(given_, name)[kept])
    assert np.isnan(found.scores[-1])
    assert found.class_names[kept.index(5)] == CLASSES[1]
    assert found.class_names[-1] == CLASSES[0]
    assert found.tomograms[-1] == "TS_01"


def test_thresholds_count_by_class_and_a_particle_without_a_score_stays() -> None:
    reviewed = picks()
    scores = reviewed.particles.scores.copy()
    scores[0] = np.nan
    reviewed = dataclasses.replace(reviewed, particles=reviewed.particles.with_(scores=scores))
    stays = reviewed.stays({CLASSES[0]: 0.8, CLASSES[1]: 0.3})
    labels = reviewed.particles.labels
    expected = np.isnan(scores) | (labels == 3) | ((labels == 1) & (scores >= 0.8)) | ((labels == 2) & (scores >= 0.3))
    np.testing.assert_array_equal(stays, expected)


def test_of_an_audit_annotations_stay_and_missing_ones_stay_out() -> None:
    rows = audit()
    assert content(Review(rows).corrected()) == content(rows.particles.select([0, 1, 2, 3]))
    review = Review(rows)
    for index in (0, 1, 2, 4):
        review.suggest(index)
    found = review.corrected()
    moved = (6.125 + 2.5, 7.125 + 2.5, 8.125 + 2.5)
    assert content(found) == [
        (2, (3.125, 4.125, 5.125)),
        (2, moved),
        (2, (9.125, 10.125, 11.125)),
        (1, (12.125, 13.125, 14.125)),
    ]
    assert found.scores is None  # those of the table are of suspicions
    assert not found.extra
    assert found.class_names.tolist() == [CLASSES[1], CLASSES[1], CLASSES[1], CLASSES[0]]
    with pytest.raises(InputError, match="nothing is suggested"):
        Review(picks()).suggest(0)


def test_of_an_audit_the_columns_of_the_audited_list_are_kept() -> None:
    rows = audit()
    order = rows.particles.extra["row"]
    annotated = rows.particles.select(order > 0)
    source = Particles(
        annotated.positions_vox[np.argsort(order[order > 0])],
        annotated.labels[np.argsort(order[order > 0])],
        scores=[0.1, 0.2, 0.3, 0.4],
        extra={"rlnGroup": np.array([11, 12, 13, 14])},
    )
    with_source = rows.with_source(source)
    review = Review(with_source, [Edit("reject", 0), Edit("accept", 4), Edit("move", 2, at=(1.0, 1.0, 1.0))])
    found = review.corrected()
    assert content(found) == content(Review(rows, review.edits).corrected())
    np.testing.assert_array_equal(found.scores, [0.1, 0.4, 0.2, np.nan])  # of rows 1, 4 and 2 of the list
    np.testing.assert_array_equal(found.extra["rlnGroup"], [11, 14, 12, np.nan])
    with pytest.raises(InputError, match="not the list that was audited"):
        rows.with_source(source.select([1, 0, 2, 3]))
    with pytest.raises(InputError, match="not the list that was audited"):
        rows.with_source(source.select([0, 1, 2]))


@given(edits())
@settings(max_examples=20)
def test_decisions_come_back_from_their_file(sequence: list[Edit]) -> None:
    reviewed = picks()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.json"
        write_decisions(path, "a run", [(Review(reviewed, sequence), {CLASSES[2]: 0.25})])
        entry = read_decisions(path).tomograms["TS_01"]
    assert list(entry.edits) == sequence
    assert entry.min_scores == {CLASSES[2]: 0.25}
    assert (entry.voxel_size_angstrom, entry.shape_zyx) == (13.48, (32, 32, 32))
    assert entry.review_of(reviewed).items == Review(reviewed, sequence).items


def test_decisions_are_refused_on_another_list(tmp_path: Path) -> None:
    reviewed, path = picks(), tmp_path / "d.json"
    write_decisions(path, "run", [(Review(reviewed, [Edit("reject", 0)]), {})])
    entry = read_decisions(path).tomograms["TS_01"]
    moved = reviewed.particles.with_(positions_vox=reviewed.particles.positions_vox + 1e-9)
    with pytest.raises(InputError, match="another list"):
        entry.review_of(dataclasses.replace(reviewed, particles=moved))
    assert fingerprint(moved) != fingerprint(reviewed.particles) == entry.list


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"review": 2}, "version 1"),
        ({"tomograms": 3}, "damaged"),
        (
            {"tomograms": [{"name": "TS_01", "list": "", "edits": [{"do": "delete", "item": 1}]}]},
            "unknown edit 'delete'",
        ),
        (
            {"tomograms": [{"name": "T", "list": "", "edits": [{"do": "reclass", "item": 1, "class": "x"}]}]},
            "class 'x'",
        ),
        ({"tomograms": [{"name": "T", "list": "", "edits": [{"do": "move", "item": 1, "at": [1, 2]}]}]}, "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"review": 1, "run": "r", "classes": list(CLASSES), "tomograms": []} | change))
    with pytest.raises(InputError, match=message):
        read_decisions(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("accept", 24), "no particle 24"),
        (Edit("accept"), "no particle None"),
        (Edit("reclass", 0, label=4), "needs a class"),
        (Edit("move", 0), "needs a position"),
        (Edit("add", label=1, at=(0.0, np.nan, 1.0)), "needs a position"),
    ],
)
def test_an_edit_without_sense_changes_nothing(edit: Edit, message: str) -> None:
    review = Review(picks())
    before = review.items
    with pytest.raises(InputError, match=message):
        review.do(edit)
    assert review.items == before
    assert not review.edits


def test_an_empty_list_can_be_added_to() -> None:
    empty = ReviewList("TS_09", Particles.empty(), CLASSES)
    found = Review(empty, [Edit("add", label=2, at=(1.0, 2.0, 3.0))]).corrected()
    assert content(found) == [(2, (1.0, 2.0, 3.0))]
    assert found.class_names.tolist() == [CLASSES[1]]
    assert found.tomograms.tolist() == ["TS_09"]
