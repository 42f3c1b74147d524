"""The dock widget: what is opened, buttons for the decisions, and what is saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QStandardPaths
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from robpicker_jax.annotations.registry import FORMATS
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.models.shipped import shipped_models
from robpicker_jax.napari_plugin.opening import Opened, open_for_review, tomograms_of_run
from robpicker_jax.napari_plugin.session import ReviewSession, session_of
from robpicker_jax.system.errors import InputError

SAVED_FORMATS = ("xml", "star", "csv", "copick")
_DECIMALS = 3  # of the smallest score


class ReviewWidget(QWidget):  # type: ignore[misc]  # Qt is only there with the extra `napari`
    """Opens a tomogram with its picks, of a run or by the species of a model, and reviews them.

    Several tomograms can be open; the widget is at the one whose layer of points was selected last.

    Attributes:
        session: the review, None while nothing is open.
        keep_in: folder in which decisions are kept; None: nowhere.
        ask: puts a question to the user, and says whether the answer is yes.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: ReviewSession | None = None
        self.keep_in: Path | None = reviews_folder()
        self.ask: Callable[[str], bool] = self._ask
        self._alive = [True]
        self._tomograms: dict[str, TomogramFiles] = {}
        rows = QVBoxLayout(self)
        rows.addLayout(self._sources())
        rows.addWidget(self._button("Open", self.open))
        rows.addLayout(self._decisions())
        rows.addLayout(self._saving())
        self.message = QLabel("Choose a run or a model, then a tomogram.")
        self.message.setWordWrap(True)
        rows.addWidget(self.message)
        rows.addStretch()
        # napari may still hold the widget when Qt has deleted it, and nothing may be written on it then.
        self.destroyed.connect(partial(_end, self._alive))
        for layer in napari_viewer.layers:  # of reviews that go on while the widget was closed and opened again
            self._follow_layer(layer)
        self._follow_layer(napari_viewer.layers.selection.active)
        napari_viewer.layers.selection.events.active.connect(self._on_active)
        napari_viewer.layers.events.removed.connect(self._on_removed)

    def _sources(self) -> QGridLayout:
        grid = QGridLayout()
        self.run, self.volume, self.picks = QLineEdit(), QComboBox(), QLineEdit()
        self.volume.setEditable(True)
        self.run.setPlaceholderText(", ".join(["a run's folder", "a model's file", *shipped_models()]))
        self.picks.setPlaceholderText("the run's own picks")
        self.run.editingFinished.connect(self._list_volumes)
        choosers: tuple[tuple[str, QWidget, Callable[[], None]], ...] = (
            ("Run or model", self.run, self._choose_run),
            ("Tomogram", self.volume, self._choose_volume),
            ("List or audit.csv", self.picks, self._choose_picks),
        )
        for row, (text, field, choose) in enumerate(choosers):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(field, row, 1)
            grid.addWidget(_narrow(self._button("…", choose)), row, 2)
        grid.addWidget(_narrow(self._button("File", self._choose_model)), 0, 3)
        grid.setColumnStretch(1, 1)
        return grid

    def _decisions(self) -> QGridLayout:
        grid = QGridLayout()
        actions: tuple[tuple[str, Callable[[ReviewSession], None]], ...] = (
            ("Previous (P)", lambda session: session.go(-1)),
            ("Next (N)", lambda session: session.go(1)),
            ("Accept (A)", lambda session: session.decide("accept")),
            ("Reject (R)", lambda session: session.decide("reject")),
            ("Undecide (U)", lambda session: session.decide("undecide")),
            ("As suggested (S)", lambda session: session.suggest()),
            ("Undo (Z)", lambda session: session.undo()),
            ("Redo (Y)", lambda session: session.redo()),
        )
        for number, (text, action) in enumerate(actions):
            grid.addWidget(self._button(text, partial(self._on, action)), number // 2, number % 2)
        self.classes = QComboBox()
        self.classes.activated.connect(lambda index: self._on(lambda session: session.reclass(index + 1)))
        grid.addWidget(QLabel("Class (1 … 9)"), 4, 0)
        grid.addWidget(self.classes, 4, 1)
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(-1e6, 1e6)
        self.threshold.setDecimals(_DECIMALS)
        self.threshold.setSingleStep(0.01)
        self.threshold.valueChanged.connect(lambda value: self._on(lambda session: session.set_min_score(value)))
        grid.addWidget(QLabel("Smallest score"), 5, 0)
        grid.addWidget(self.threshold, 5, 1)
        return grid

    def _saving(self) -> QVBoxLayout:
        rows = QVBoxLayout()
        self.format, self.accepted_only = QComboBox(), QCheckBox("accepted ones alone")
        self.format.addItems(SAVED_FORMATS)
        line = QHBoxLayout()
        for widget in (self.format, self._button("Save list", self._save_list), self.accepted_only):
            line.addWidget(widget)
        rows.addLayout(line)
        line = QHBoxLayout()
        line.addWidget(self._button("Save decisions", self._save_decisions))
        line.addWidget(self._button("Open decisions", self._open_decisions))
        line.addWidget(self._button("Undo all", lambda: self._on(lambda session: session.undo_all())))
        rows.addLayout(line)
        return rows

    def _button(self, text: str, action: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda _=False: self._guarded(action))
        return button

    def open(self) -> None:
        """Open the chosen tomogram with its list.

        Raises:
            InputError: whatever is wrong with one of them.
        """
        text = self.volume.currentText().strip()
        if not self.run.text().strip() or not text:
            raise InputError("no run or model, or no tomogram", fix="choose both")
        picks = Path(self.picks.text().strip()) if self.picks.text().strip() else None
        self.review(open_for_review(Path(self.run.text().strip()), self._tomograms.get(text, Path(text)), picks))

    def review(self, opened: Opened) -> None:
        """Review what was opened, with the decisions on this list that were kept or that are being made."""
        same = [session for session in map(session_of, self.viewer.layers) if session and session.is_of(opened.given)]
        for session in same:
            session.close()
        session = ReviewSession(self.viewer, opened, self.keep_in)
        for earlier in same:
            session.take_over(earlier)
        self._follow_layer(session.layer)
        if count := len(session.review.edits):
            edits = "1 edit is" if count == 1 else f"{count} edits are"
            self.message.setText(f"{self.message.text()}\n{edits} from before; Undo all begins anew.")

    def save_list(self, path: Path) -> None:
        """Save the list that the decisions leave, in the chosen format.

        Raises:
            InputError: nothing is open, or the format cannot be written.
        """
        session = self._opened()
        fmt = self.format.currentText()
        count = session.save(path, fmt, accepted_only=self.accepted_only.isChecked())
        self.message.setText(f"{count} particles saved: {path}")

    def open_decisions(self, path: Path) -> None:
        """Take decisions from a file; where others are not saved that they would replace, the user is asked first.

        Raises:
            InputError: nothing is open, or the file is damaged, without this tomogram, or made on another list of it.
        """
        session = self._opened()
        question = f"Decisions on {session.opened.given.name} are not saved. Replace them by those of the file?"
        if not session.unsaved or self.ask(question):
            session.open_decisions(path)

    def _opened(self) -> ReviewSession:
        if self.session is None:
            raise InputError("nothing is open", fix="choose a run or a model and a tomogram, and press Open")
        return self.session

    def _on(self, action: Callable[[ReviewSession], None]) -> None:
        def act() -> None:
            action(self._opened())
            self._refresh()

        self._guarded(act)

    def _guarded(self, action: Callable[[], None]) -> None:
        """What is wrong with the input is said in the widget, as the command line says it."""
        try:
            action()
        except InputError as error:
            self.message.setText(str(error))

    def _on_active(self, event: Any) -> None:
        """Turn to the review whose layer was selected."""
        self._follow_layer(event.value)

    def _follow_layer(self, layer: Any) -> None:
        session = session_of(layer)
        if session is None or not self._alive:
            return
        self.session = session
        if self._refresh not in session.listeners:
            session.listeners.append(self._refresh)
        self.classes.clear()
        self.classes.addItems(list(session.opened.given.class_names))
        self._refresh()

    def _on_removed(self, event: Any) -> None:
        """Leave the review whose layer was removed, for another one that is open."""
        if not self._alive or self.session is None or event.value is not self.session.layer:
            return
        name, keeper = self.session.opened.given.name, self.session.keeper
        if self.session.unsaved and (keeper.path is None or keeper.fault is not None):
            self.message.setText(f"{name} was removed from the viewer. Decisions on it are not kept: save them now.")
            return
        self.session = None
        self.classes.clear()
        self.message.setText(f"{name} was removed from the viewer. Opened again, it has the decisions made so far.")
        for layer in self.viewer.layers:
            self._follow_layer(layer)

    def _refresh(self) -> None:
        """Say how far the review is, whatever has changed it."""
        session = self.session
        if session is None or not self._alive:
            return
        states = [item.state for item in session.review.items]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("accepted", "rejected", "undecided"))
        fault = session.keeper.fault
        warning = "" if fault is None else f"\nDecisions are not kept, save them yourself: {fault}"
        self.message.setText(f"{session.opened.given.name}, {len(states)} particles: {counts}{warning}")
        self.classes.setCurrentIndex(session.label - 1)
        scores = session.opened.given.particles.scores
        least = 0.0 if scores is None or not len(scores) else float(scores.min())
        least = min(session.min_scores.values(), default=least)
        # A number that is being typed must not be written anew under the cursor.
        if abs(self.threshold.value() - least) > 0.5 * 10**-_DECIMALS:
            self.threshold.blockSignals(True)
            self.threshold.setValue(least)
            self.threshold.blockSignals(False)

    def _ask(self, question: str) -> bool:
        return bool(QMessageBox.question(self, "Review picks", question) == QMessageBox.StandardButton.Yes)

    def _list_volumes(self) -> None:
        def fill() -> None:
            text = self.volume.currentText()
            typed = "" if text in self._tomograms else text
            self.volume.clear()
            self._tomograms = {}
            self.volume.setEditText(typed)
            self._tomograms = tomograms_of_run(Path(self.run.text().strip()))
            self.volume.addItems(list(self._tomograms))
            if typed:
                self.volume.setEditText(typed)
            if not self._tomograms:
                self.message.setText("A model's file has no tomograms of its own: choose one, and its list.")

        if self.run.text().strip():
            self._guarded(fill)

    def _choose_run(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of a run"):
            self.run.setText(folder)
            self._list_volumes()

    def _choose_model(self) -> None:
        if path := QFileDialog.getOpenFileName(self, "File of a model", filter="Models (*.rpk);;All files (*)")[0]:
            self.run.setText(path)
            self._list_volumes()

    def _choose_volume(self) -> None:
        if path := QFileDialog.getOpenFileName(self, "Tomogram")[0]:
            self.volume.setEditText(path)

    def _choose_picks(self) -> None:
        if path := QFileDialog.getOpenFileName(self, "List, or audit.csv")[0]:
            self.picks.setText(path)

    def _save_list(self) -> None:
        name = FORMATS[self.format.currentText()].file_name(self._opened().opened.given.name)
        if path := QFileDialog.getSaveFileName(self, "Save the list", name)[0]:
            self.save_list(Path(path))

    def _save_decisions(self) -> None:
        session = self._opened()
        name = f"{session.opened.given.name}_decisions.json"
        if path := QFileDialog.getSaveFileName(self, "Save the decisions", name)[0]:
            session.save_decisions(Path(path))
            self.message.setText(f"decisions saved: {path}")

    def _open_decisions(self) -> None:
        if path := QFileDialog.getOpenFileName(self, "Open decisions")[0]:
            self.open_decisions(Path(path))


def reviews_folder() -> Path | None:
    """Where reviews in napari are kept: `robpicker_jax/reviews` in the user's folder of application data."""
    folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return Path(folder) / "robpicker_jax" / "reviews" if folder else None


def _end(alive: list[bool], *_: Any) -> None:
    alive.clear()


def _narrow(button: QPushButton) -> QPushButton:
    """A button that leaves the room beside it to the field that it fills."""
    button.setMaximumWidth(44)
    return button
