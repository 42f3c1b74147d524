"""Decisions in napari are not lost: other tomograms opened, layers removed, the widget or napari closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.reviewing import Edit, Review, ReviewList, read_decisions
from tests.napari_plugin.cases import drag, opened, press, reviewed_in, widget_in
from tests.reviewing.review_cases import CLASSES, audit, picks

pytestmark = pytest.mark.usefixtures("application")


def counts(given: ReviewList, edits: list[Edit]) -> str:
    """What the widget says of a review."""
    states = [item.state for item in Review(given, edits).items]
    said = ", ".join(f"{states.count(state)} {state}" for state in ("accepted", "rejected", "undecided"))
    return f"{given.name}, {len(states)} particles: {said}"


def decide(session: Any, keys: str) -> list[Edit]:
    """Go through the particles by keys, one decision for each; what has been decided so far."""
    for key in keys:
        press(session, "n")
        press(session, key)
    return list(session.review.edits)


def test_what_was_decided_is_there_when_napari_opens_the_list_again(viewer: Any, tmp_path: Path) -> None:
    first, second = picks(), picks(name="TS_02", seed=1)
    widget = widget_in(viewer, tmp_path / "kept")
    widget.review(opened(first))
    edits = decide(widget.session, "ar2")
    widget.threshold.setValue(0.5)
    widget.review(opened(second))
    assert widget.message.text() == counts(second, [])
    others = decide(widget.session, "r")

    again = widget_in(type(viewer)(), tmp_path / "kept")  # as after a crash: nothing was closed
    again.review(opened(first))
    assert again.session.review.edits == edits
    assert again.session.min_scores == dict.fromkeys(CLASSES, 0.5)
    assert again.threshold.value() == 0.5
    assert again.message.text().splitlines() == [counts(first, edits), "3 edits are from before; Undo all begins anew."]
    again.review(opened(second))
    assert again.session.review.edits == others
    assert again.session.min_scores == {}
    # Another list of the tomogram, other classes, and another tomogram with the same list begin anew.
    longer = picks(25)
    renamed = ReviewList("TS_01", first.particles, ("a", "b", "c"), None, 13.48, first.shape_zyx)
    moved = ReviewList("TS_03", first.particles, CLASSES, None, 13.48, first.shape_zyx)
    for given in (longer, renamed, moved):
        again.review(opened(given))
        assert again.session.review.edits == []
    assert len(list((tmp_path / "kept").iterdir())) == 2  # nothing is written where nothing was decided


def test_several_tomograms_stay_open_and_the_widget_follows_the_layer(viewer: Any) -> None:
    first, second = picks(), picks(name="TS_02", seed=1)
    widget = widget_in(viewer, None)
    widget.review(opened(first))
    one = widget.session
    edits = decide(one, "ar")
    widget.review(opened(second))
    other = widget.session
    decide(other, "a")
    assert [layer.name for layer in viewer.layers] == ["TS_01", "TS_01 picks", "TS_02", "TS_02 picks"]
    viewer.layers.selection.active = one.layer
    assert widget.session is one
    assert widget.message.text() == counts(first, edits)
    viewer.layers.selection.active = other.image  # no review: the widget stays where it is
    assert widget.session is one
    # The same list opened again takes the place of its layers, and of what was undone too.
    press(one, "z")
    widget.review(opened(first))
    assert widget.session is not one
    assert [layer.name for layer in viewer.layers] == ["TS_02", "TS_02 picks", "TS_01", "TS_01 picks"]
    assert widget.session.review.edits == edits[:1]
    press(widget.session, "y")
    assert widget.session.review.edits == edits
    # A copy of the layer, which shares its metadata, is no second review.
    metadata = widget.session.layer.metadata
    viewer.layers.selection.active = other.layer
    copied = viewer.add_points(np.zeros((1, 3)), metadata=metadata)
    assert viewer.layers.selection.active is copied
    assert widget.session is other


def test_counts_follow_every_edit_however_it_was_made(viewer: Any, tmp_path: Path) -> None:
    given = picks()
    widget = widget_in(viewer, tmp_path)
    widget.review(opened(given))
    session = widget.session

    def check(n_edits: int) -> None:
        assert len(session.review.edits) == n_edits
        assert widget.message.text() == counts(given, session.review.edits)
        kept = read_decisions(session.keeper.path, CLASSES).tomograms["TS_01"]
        assert kept.edits == session.review.edits
        assert kept.min_scores == session.min_scores

    decide(session, "ar2")
    check(3)
    assert widget.classes.currentIndex() == 1
    session.layer.add(np.array([[4.0, 5.0, 6.0]]))
    check(4)
    session.layer.selected_data = {20}
    session.layer.remove_selected()
    check(5)
    session.layer.selected_data = {3}
    z, y, x = session.layer.data[3]
    drag(session, (z, y, x), (z, y + 2, x))
    check(6)
    press(session, "z")
    check(5)
    press(session, "y")
    check(6)
    widget.threshold.setValue(0.6)
    check(6)
    assert session.min_scores == dict.fromkeys(CLASSES, 0.6)
    edits = list(session.review.edits)
    press(session, "z")
    session.undo_all()
    assert widget.message.text() == counts(given, [])
    assert session.min_scores == {}
    assert not session.keeper.path.exists()
    for n_edits in range(1, 7):
        press(session, "y")
        check(n_edits)
        assert session.review.edits == edits[:n_edits]


def test_suggestions_pass_over_what_the_review_added(viewer: Any) -> None:
    session = reviewed_in(viewer, audit())
    session.add((4.0, 5.0, 6.0))
    session.layer.selected_data = {0, 5}
    press(session, "s")
    assert [edit.do for edit in session.review.edits] == ["add", "reject"]


def test_removed_layers_and_a_widget_that_is_opened_again(viewer: Any, tmp_path: Path) -> None:
    first, second = picks(), picks(name="TS_02", seed=1)
    widget = widget_in(viewer, tmp_path)
    widget.review(opened(first))
    edits = decide(widget.session, "ar")
    # The widget was closed, and its keys went on; the one that is opened then takes the review up.
    later = widget_in(viewer, tmp_path)
    assert later.session is widget.session
    edits = decide(later.session, "a")
    assert later.message.text() == counts(first, edits)
    later.review(opened(second))
    viewer.layers.remove(later.session.layer)
    assert later.session.opened.given.name == "TS_01"
    assert later.message.text() == counts(first, edits)
    viewer.layers.remove(later.session.layer)
    assert later.session is None
    assert "TS_01 was removed" in later.message.text()
    later.review(opened(first))
    assert later.session.review.edits == edits
    # Where nothing is kept, what was decided can still be saved.
    other = widget_in(type(viewer)(), None)
    other.review(opened(first))
    decide(other.session, "r")
    other.viewer.layers.remove(other.session.layer)
    assert "save them now" in other.message.text()
    other.session.save_decisions(tmp_path / "decisions.json")
    assert len(read_decisions(tmp_path / "decisions.json").tomograms["TS_01"].edits) == 1


def test_a_widget_that_qt_has_deleted_is_left_alone(viewer: Any, application: Any, tmp_path: Path) -> None:
    from qtpy.QtCore import QEvent

    widget = widget_in(viewer, tmp_path)
    widget.review(opened(picks()))
    session = widget.session
    widget.deleteLater()
    application.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert len(decide(session, "a")) == 1
    viewer.layers.clear()


def test_what_cannot_be_kept_is_said(viewer: Any, tmp_path: Path) -> None:
    given = picks()
    (tmp_path / "file").write_text("no folder")
    widget = widget_in(viewer, tmp_path / "file")
    widget.review(opened(given))
    edits = decide(widget.session, "a")
    said, warning = widget.message.text().splitlines()
    assert said == counts(given, edits)
    assert warning.startswith("Decisions are not kept, save them yourself: ")
    # A file of a newer version of the package is neither read nor replaced.
    widget = widget_in(type(viewer)(), tmp_path / "kept")
    widget.review(opened(given))
    decide(widget.session, "ar")
    path = widget.session.keeper.path
    newer = json.dumps({**json.loads(path.read_text()), "review": 2})
    path.write_text(newer)
    widget = widget_in(type(viewer)(), tmp_path / "kept")
    widget.review(opened(given))
    assert "what was kept cannot be read: " in widget.message.text()
    assert widget.session.review.edits == []
    decide(widget.session, "r")
    assert path.read_text() == newer


def test_decisions_that_are_not_saved_are_replaced_when_the_user_says_so(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QFileDialog, QMessageBox

    given, path = picks(), tmp_path / "decisions.json"
    source = reviewed_in(type(viewer)(), given)
    theirs = decide(source, "rr")
    source.save_decisions(path)
    widget = widget_in(viewer, tmp_path / "kept")
    widget.review(opened(given))
    questions: list[str] = []

    def answer(yes: bool) -> None:
        def ask(_parent: Any, _title: str, text: str) -> Any:
            questions.append(text)
            return QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No

        monkeypatch.setattr(QMessageBox, "question", ask)

    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    answer(False)
    widget._open_decisions()  # nothing was decided that could be lost
    assert widget.session.review.edits == theirs
    mine = decide(widget.session, "a")
    assert len(mine) == 3
    widget._open_decisions()
    assert widget.session.review.edits == mine
    answer(True)
    widget._open_decisions()
    assert widget.session.review.edits == theirs
    assert questions == ["Decisions on TS_01 are not saved. Replace them by those of the file?"] * 2
    decide(widget.session, "a")
    widget.session.save_decisions(tmp_path / "mine.json")
    widget._open_decisions()
    decide(widget.session, "a")
    widget.save_list(tmp_path / "mine.xml")
    widget._open_decisions()
    assert len(questions) == 2
    assert widget.message.text() == counts(given, theirs)


def test_reviews_are_kept_in_the_folder_of_application_data(viewer: Any) -> None:
    from robpicker_jax.napari_plugin.widget import ReviewWidget, reviews_folder

    folder = reviews_folder()
    assert folder is not None
    assert "application_data" in str(folder)  # that of the tests
    widget = ReviewWidget(viewer)
    widget.review(opened(picks()))
    decide(widget.session, "a")
    assert [path.name[:6] for path in folder.iterdir()] == ["TS_01_"]
