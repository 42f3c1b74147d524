"""The napari plug-in, without a screen: its session on napari's own viewer model, its widget in Qt's offscreen platform."""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robpicker_jax
from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.reviewing import Edit, Review, read_decisions
from robpicker_jax.system.errors import InputError
from tests.napari_plugin.cases import RADII_VOX, drag, press, reviewed_in
from tests.reviewing.review_cases import CLASSES, audit, content, picks


@pytest.mark.fast
def test_nothing_else_imports_napari() -> None:
    root = Path(robpicker_jax.__file__).parent
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "napari_plugin"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            packages = {name.split(".")[0] for name in names}
            assert not packages & {"napari", "qtpy", "npe2", "magicgui"}, path
            assert not any(name.startswith("robpicker_jax.napari_plugin") for name in names), path


def test_twenty_edits_are_made_undone_saved_and_read_back(viewer: Any, tmp_path: Path) -> None:
    given = picks(rotations=True)
    session = reviewed_in(viewer, given)
    edits: list[Edit] = []

    def on(*items: int) -> None:
        session.layer.selected_data = set(items)

    for item, key, do in ((0, "a", "accept"), (1, "r", "reject"), (2, "u", "undecide"), (2, "a", "accept")):
        on(item)
        press(session, key)
        edits.append(Edit(do, item))
    on(3, 4, 5)
    press(session, "r")
    edits += [Edit("reject", item) for item in (3, 4, 5)]
    for item, label in ((6, 2), (7, 3), (8, 1)):
        on(item)
        press(session, str(label))
        edits.append(Edit("reclass", item, label=label))
    on()
    session.layer.add(np.array([[4.25, 5.5, 6.75]]))  # napari's own tool: z, y, x
    edits.append(Edit("add", label=1, at=(6.75, 5.5, 4.25)))
    session.add((7.0, 8.0, 9.0))
    edits.append(Edit("add", label=1, at=(9.0, 8.0, 7.0)))
    press(session, "2")  # the particle that was just added is selected
    edits.append(Edit("reclass", 25, label=2))
    x, y, z = given.particles.positions_vox[9]
    on(9)
    drag(session, (z, y, x), (z, y + 1.5, x - 2))
    edits.append(Edit("move", 9, at=tuple(session.layer.data[9][::-1].tolist())))
    np.testing.assert_allclose(edits[-1].at, (x - 2, y + 1.5, z))
    on(10, 11)
    session.layer.remove_selected()
    edits += [Edit("reject", 10), Edit("reject", 11)]
    while len(edits) < 20:
        item = 12 + len(edits) % 8
        on(item)
        press(session, "a")
        edits.append(Edit("accept", item))
    assert session.review.edits == edits
    for _ in range(4):
        press(session, "z")
    press(session, "y")
    edits = edits[:-3]
    assert session.review.edits == edits

    expected = Review(given, edits).corrected()
    features = session.layer.features
    items = Review(given, edits).items
    assert features["state"].tolist() == [item.state for item in items]
    assert features["class"].tolist() == [CLASSES[item.label - 1] for item in items]
    np.testing.assert_array_equal(session.layer.data[:, ::-1], [item.at for item in items])
    sizes = np.asarray(session.layer.size).reshape(len(items), -1)[:, 0]
    np.testing.assert_array_equal(sizes / 2, [RADII_VOX[item.label - 1] for item in items])

    labels = {name: label for label, name in enumerate(CLASSES, start=1)}
    for fmt, name in (("xml", "a.xml"), ("csv", "a.csv"), ("star", "a.star"), ("copick", "overlay")):
        assert session.save(tmp_path / name, fmt) == len(expected)
        known = None if fmt == "star" else labels  # STAR cannot quote the third name, but has the label
        found = read_annotations(tmp_path / name, voxel_size_angstrom=13.48, class_labels=known)
        (labels_found, at_found), (labels_wanted, at_wanted) = (
            zip(*sorted(content(particles)), strict=True) for particles in (found, expected)
        )
        assert labels_found == labels_wanted
        tolerance = {"xml": 0.0, "csv": 0.0, "star": 5.1e-7, "copick": 1e-12}[fmt]  # STAR is written with six decimals
        np.testing.assert_allclose(at_found, at_wanted, rtol=0, atol=tolerance, err_msg=fmt)
    assert {path.name[:9] for path in (tmp_path / "overlay").glob("**/*.json")} == {
        "review_1_"
    }  # as the command writes it
    session.save_decisions(tmp_path / "decisions.json")
    kept = read_decisions(tmp_path / "decisions.json").tomograms["TS_01"]
    assert kept.edits == edits
    again = reviewed_in(type(viewer)(), given)
    again.open_decisions(tmp_path / "decisions.json")
    assert again.review.items == items


def test_thresholds_hide_and_drop_undecided_picks(viewer: Any, tmp_path: Path) -> None:
    given = picks()
    session = reviewed_in(viewer, given)
    session.layer.selected_data = {int(np.argmin(given.particles.scores))}
    press(session, "a")
    session.set_min_score(0.7)
    passing = given.particles.scores >= 0.7
    passing[np.argmin(given.particles.scores)] = True
    np.testing.assert_array_equal(session.layer.shown, passing)
    session.save(tmp_path / "a.xml")
    assert content(read_annotations(tmp_path / "a.xml")) == content(given.particles.select(passing))
    order = np.flatnonzero(passing)[np.argsort(-given.particles.scores[passing])]
    session.layer.selected_data = set()
    walked = []
    for _ in order:
        press(session, "n")
        walked += session.selected
    assert walked == order.tolist()
    with pytest.raises(InputError, match="unknown format 'xls'"):
        session.save(tmp_path / "a", "xls")


def test_an_audit_is_reviewed_by_its_suggestions(viewer: Any, tmp_path: Path) -> None:
    rows = audit()
    session = reviewed_in(viewer, rows)
    assert session.layer.features["kind"].tolist() == ["false", "wrong_class", "displaced", "false", "missing"]
    session.layer.selected_data = {0, 1, 2, 4}
    press(session, "s")
    expected = Review(rows)
    for index in (0, 1, 2, 4):
        expected.suggest(index)
    assert session.save(tmp_path / "a.xml") == len(expected.corrected())
    assert content(read_annotations(tmp_path / "a.xml")) == content(expected.corrected())


def test_the_widget_opens_a_run_reviews_and_saves(
    viewer: Any, application: Any, tiny_run: Path, tmp_path: Path
) -> None:
    from npe2 import PluginManifest
    from qtpy.QtWidgets import QPushButton

    manifest = PluginManifest.from_file(Path(robpicker_jax.__file__).parent / "napari_plugin" / "napari.yaml")
    (command,) = manifest.contributions.commands
    assert [entry.command for entry in manifest.contributions.widgets] == [command.id]
    assert command.python_name is not None
    module, _, name = command.python_name.partition(":")
    widget = getattr(importlib.import_module(module), name)(viewer)
    try:
        widget.run.setText(str(tiny_run))
        widget.run.editingFinished.emit()
        assert widget.volume.itemText(0) == "test_000"
        buttons = {button.text(): button for button in widget.findChildren(QPushButton)}
        own = read_annotations(tiny_run / "picks" / "test_000.xml", allow_empty=True)
        if not len(own):  # hardly trained, the tiny network may find nothing
            source = tiny_run / "data" / "test" / "test_000_objl.xml"
            widget.picks.setText(str(source))
            own = read_annotations(source)
        buttons["Open"].click()
        assert widget.session is not None, widget.message.text()
        assert [layer.name for layer in viewer.layers] == ["test_000", "test_000 picks"]
        widget.session.layer.selected_data = {0}
        buttons["Reject (R)"].click()
        buttons["Next (N)"].click()
        assert "1 rejected" in widget.message.text()
        widget.save_list(tmp_path / "list.xml")
        found: Particles = read_annotations(tmp_path / "list.xml", allow_empty=True)
        assert content(found) == content(own)[1:]
        widget.run.setText(str(tmp_path))
        buttons["Open"].click()
        assert "no config.yaml" in widget.message.text()
        # A model's file takes the place of the run; what was typed as the tomogram stays.
        volume = tiny_run / "data" / "test" / "test_000.mrc"
        widget.run.setText(str(tiny_run / "model.rpk"))
        widget.volume.setEditText(str(volume))
        widget.run.editingFinished.emit()
        assert widget.volume.currentText() == str(volume)
        widget.picks.setText("")
        buttons["Open"].click()
        assert "no picks of its own" in widget.message.text()
        widget.picks.setText(str(tmp_path / "list.xml"))
        buttons["Open"].click()
        assert len(widget.session.review.items) == len(own) - 1, widget.message.text()
        if picture := os.environ.get("ROBPICKER_TEST_SCREENSHOT"):
            widget.grab().save(picture)
    finally:
        widget.close()
        application.processEvents()
