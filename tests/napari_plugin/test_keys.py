"""Edits by keys that Qt delivers to napari's window, undone, done again, and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.reviewing import Edit, Review, write_decisions
from tests.napari_plugin.cases import opened, widget_in
from tests.reviewing.review_cases import CLASSES, account, content, picks


def strike(target: Any, keys: str) -> None:
    """Strike keys on a widget of Qt, one after the other."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    for key in keys:
        QTest.keyClick(target, getattr(Qt.Key, f"Key_{key.upper()}"))


def docked(window: Any, keep_in: Path) -> tuple[Any, Any]:
    """The widget in a window, with a list under review, and the canvas, to which keys go."""
    widget = widget_in(window, keep_in)
    window.window.add_dock_widget(widget, name="Review picks")
    widget.review(opened(picks(rotations=True)))
    return widget, window.window._qt_viewer.canvas.native  # napari's public names end at the window


def assert_saved(widget: Any, edits: Sequence[Edit], folder: Path) -> None:
    """What the widget saves is, to the byte, what these edits leave of the list."""
    given = widget.session.opened.given
    expected = Review(given, edits).corrected()
    for fmt, name in (("xml", "list.xml"), ("csv", "list.csv"), ("star", "list.star")):
        widget.format.setCurrentText(fmt)
        widget.save_list(folder / name)
        size, shape = given.voxel_size_angstrom, given.shape_zyx
        write_annotations(folder / f"wanted_{name}", expected, fmt=fmt, voxel_size_angstrom=size, shape_zyx=shape)
        assert (folder / name).read_bytes() == (folder / f"wanted_{name}").read_bytes()
    labels = {name: label for label, name in enumerate(CLASSES, start=1)}
    assert content(read_annotations(folder / "list.xml", class_labels=labels)) == account(given, list(edits))
    widget.session.save_decisions(folder / "decisions.json")
    write_decisions(folder / "wanted.json", "napari", [(Review(given, edits), {})])
    assert (folder / "decisions.json").read_bytes() == (folder / "wanted.json").read_bytes()


def test_twenty_edits_by_keys_are_undone_done_again_and_saved(window: Any, tmp_path: Path) -> None:
    widget, canvas = docked(window, tmp_path / "kept")
    session = widget.session
    best = [int(index) for index in np.argsort(-session.opened.given.particles.scores)]
    edits: list[Edit] = []
    actions = (("a", "accept"), ("r", "reject"), ("a", "accept"), ("u", "undecide"))
    for rank, (key, do) in enumerate(actions * 2):
        strike(canvas, "n" + key)
        edits.append(Edit(do, best[rank]))
    strike(canvas, "pp")  # back from the eighth of the ranking to the sixth
    for rank, label in ((5, 2), (6, 3), (7, 1)):
        strike(canvas, f"{label}n")
        edits.append(Edit("reclass", best[rank], label=label))
    for at in ((4.25, 5.5, 6.75), (20.0, 21.5, 3.125)):
        window.cursor.position = at
        strike(canvas, "i3")  # the particle that is added is selected
        edits += [Edit("add", label=edits[-1].label, at=at[::-1]), Edit("reclass", 24 + (at[0] > 10), label=3)]
    session.layer.selected_data = set(best[10:13])
    strike(canvas, "r")
    edits += [Edit("reject", index) for index in sorted(best[10:13])]
    strike(canvas, "a")
    edits += [Edit("accept", index) for index in sorted(best[10:13])]
    assert len(edits) == 21
    assert session.review.edits == edits
    assert_saved(widget, edits, tmp_path)

    strike(canvas, "z" * 14)
    assert session.review.edits == edits[:7]
    assert_saved(widget, edits[:7], tmp_path)
    strike(canvas, "y" * 11)
    assert session.review.edits == edits[:18]
    assert_saved(widget, edits[:18], tmp_path)
    strike(canvas, "z" * 30)  # more than there are
    assert session.review.edits == []
    assert_saved(widget, [], tmp_path)
    strike(canvas, "y" * 30)
    assert session.review.edits == edits
    # A new edit takes the place of those that were undone.
    strike(canvas, "zzzz")
    session.layer.selected_data = {best[20]}
    strike(canvas, "ryy")
    edits = [*edits[:17], Edit("reject", best[20])]
    assert session.review.edits == edits
    states = [item.state for item in Review(session.opened.given, edits).items]
    assert f"{states.count('accepted')} accepted, {states.count('rejected')} rejected" in widget.message.text()
    assert widget.classes.currentIndex() == 2
    assert_saved(widget, edits, tmp_path)


def test_keys_act_from_the_buttons_but_not_while_something_is_typed(window: Any, tmp_path: Path) -> None:
    from qtpy.QtWidgets import QPushButton

    widget, canvas = docked(window, tmp_path / "kept")
    buttons = {button.text(): button for button in widget.findChildren(QPushButton)}
    strike(canvas, "n")
    first = widget.session.selected[0]
    buttons["Accept (A)"].click()
    strike(buttons["Accept (A)"], "nr")
    second = widget.session.selected[0]
    assert widget.session.review.edits == [Edit("accept", first), Edit("reject", second)]
    strike(widget.run, "arz")
    assert widget.run.text() == "arz"
    assert len(widget.session.review.edits) == 2
    window.layers.selection.active = widget.session.image
    strike(canvas, "ar")
    assert len(widget.session.review.edits) == 2
