"""A review on napari's layers: an image, and a layer of points that shows the review and turns what is done to it into edits.

Points are z, y, x in voxels, one for each particle of the review in its order, rejected ones too. Their features are
`class`, `score`, `state`, `added` and, of an audit, `kind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import write_annotations
from robpicker_jax.annotations.copick_json import REVIEWER
from robpicker_jax.annotations.registry import FORMATS, format_of
from robpicker_jax.napari_plugin.opening import Opened
from robpicker_jax.reporting.style import BACKGROUND_COLOUR, class_colours
from robpicker_jax.reviewing import Edit, Item, Review, read_decisions, write_decisions
from robpicker_jax.reviewing.edits import Action
from robpicker_jax.system.errors import InputError

_FACES = {"undecided": (0, 0, 0, 0), "accepted": (0, 0.62, 0.45, 0.35), "rejected": (0.84, 0.37, 0, 0.45)}
"""Colour of a point's disc by state, RGBA; faint, since the density lies below it."""


class ReviewSession:
    """One tomogram under review in a viewer.

    Attributes:
        review: the review.
        layer: the layer of points.
        min_scores: smallest score of undecided picks, by class.
        label: the class of particles that are added.
    """

    def __init__(self, viewer: Any, opened: Opened) -> None:
        self.viewer, self.opened = viewer, opened
        self.review = Review(opened.given)
        self.min_scores: dict[str, float] = {}
        self.label = 1
        self._showing = False
        name = opened.given.name
        low, high = np.percentile(opened.density, (0.5, 99.5))
        viewer.add_image(opened.density, name=name, contrast_limits=(low, max(high, low + 1e-6)))
        self.layer = viewer.add_points(
            np.zeros((0, 3)),
            ndim=3,
            name=f"{name} picks",
            face_color="transparent",
            border_width=0.06,
            out_of_slice_display=True,
            metadata={"robpicker": name},
        )
        self.show()
        self.layer.events.data.connect(self._on_data)
        self._bind_keys()

    @property
    def selected(self) -> list[int]:
        """Indices of the selected particles."""
        return sorted(int(index) for index in self.layer.selected_data)

    def decide(self, do: Action, label: int | None = None) -> None:
        """Accept, reject, undecide or reclass what is selected."""
        for index in self.selected:
            self.review.do(Edit(do, index, label=label))
        self.show()

    def reclass(self, label: int) -> None:
        """Give what is selected another class, which particles that are added get from now on."""
        if 1 <= label <= len(self.opened.given.class_names):
            self.label = label
            self.decide("reclass", label)

    def suggest(self) -> None:
        """Do what the audit suggests for what is selected."""
        for index in self.selected:
            self.review.suggest(index)
        self.show()

    def add(self, position_zyx: Sequence[float]) -> None:
        """Add a particle of the present class."""
        z, y, x = map(float, position_zyx)
        self.review.do(Edit("add", label=self.label, at=(x, y, z)))
        self.show()
        self.layer.selected_data = {len(self.review.items) - 1}

    def undo(self) -> None:
        """Undo the last edit."""
        self.review.undo()
        self.show()

    def redo(self) -> None:
        """Do again what was undone last."""
        self.review.redo()
        self.show()

    def go(self, by: int) -> None:
        """Select the particle that is `by` further in the order of falling scores, of those that are shown."""
        shown = [index for index in self._ranked() if self.layer.shown[index]]
        if not shown:
            return
        here = self.selected[0] if self.selected else None
        at = shown.index(here) + by if here in shown else (0 if by > 0 else len(shown) - 1)
        chosen = shown[min(max(at, 0), len(shown) - 1)]
        self.layer.selected_data = {chosen}
        x, y, z = self.review.items[chosen].at
        self.viewer.dims.set_point(0, z)
        self.viewer.camera.center = (z, y, x)

    def set_min_score(self, score: float | None) -> None:
        """Leave undecided picks of lower scores out, of all classes; None: keep all."""
        names = self.opened.given.class_names
        self.min_scores = {} if score is None else dict.fromkeys(names, score)
        self.show()

    def show(self) -> None:
        """Bring the layer up to the review."""
        items, layer, given = self.review.items, self.layer, self.opened.given
        selected = {index for index in self.selected if index < len(items)}
        by_name = class_colours(given.class_names)
        colours = [BACKGROUND_COLOUR, *(by_name[name] for name in given.class_names)]
        radii = [float(np.mean(self.opened.radii_vox or [5.0])), *self.opened.radii_vox]
        labels = [item.label if item.label < len(colours) else 0 for item in items]
        self._showing = True
        try:
            layer.selected_data = set()
            layer.data = np.array([item.at[::-1] for item in items], np.float64).reshape(-1, 3)
            layer.features = self._features(items)
            if items:
                layer.size = np.array([2 * radii[label] for label in labels])
                layer.border_color = [colours[label] for label in labels]
                layer.face_color = np.array([_FACES[item.state] for item in items], np.float64)
                layer.shown = self._shown(items)
            layer.selected_data = selected
        finally:
            self._showing = False
        layer.refresh()

    def save(self, path: Path, fmt: str | None = None, *, accepted_only: bool = False) -> int:
        """Write the list that the decisions leave; how many particles it has.

        Raises:
            InputError: an unknown format, or one that needs a voxel size that is not known.
        """
        corrected = self.review.corrected(self.min_scores, accepted_only=accepted_only)
        if fmt is not None and fmt not in FORMATS:
            raise InputError(f"unknown format {fmt!r}", fix=f"one of {', '.join(FORMATS)}")
        given = self.opened.given
        if corrected.tomograms is None:
            corrected = corrected.with_(tomograms=np.full(len(corrected), given.name))
        size, shape = given.voxel_size_angstrom, given.shape_zyx
        options: dict[str, Any] = dict(REVIEWER) if format_of(path, fmt, "write").name == "copick" else {}
        write_annotations(path, corrected, fmt=fmt, voxel_size_angstrom=size, shape_zyx=shape, **options)
        return len(corrected)

    def save_decisions(self, path: Path) -> None:
        """Write the decisions, to go on with them later, here or on the page, or for `robpicker review --apply`."""
        write_decisions(path, "napari", [(self.review, self.min_scores)])

    def open_decisions(self, path: Path) -> None:
        """Take decisions from a file, in place of those made here.

        Raises:
            InputError: damaged, without this tomogram, or made on another list of it.
        """
        decisions = read_decisions(path, self.opened.given.class_names)
        entry = decisions.tomograms.get(self.opened.given.name)
        if entry is None:
            raise InputError(f"no decisions on {self.opened.given.name}", where=path, fix="open another file")
        self.review, self.min_scores = entry.review_of(self.opened.given), dict(entry.min_scores)
        self.show()

    def _features(self, items: Sequence[Item]) -> Mapping[str, Any]:
        given = self.opened.given
        names = ["unknown class", *given.class_names]
        added = len(items) - len(given.particles)
        scores = np.full(len(given.particles), np.nan) if given.particles.scores is None else given.particles.scores
        features: dict[str, Any] = {
            "class": [names[item.label] if item.label < len(names) else names[0] for item in items],
            "score": np.concatenate([scores, np.full(added, np.nan)]),
            "state": [item.state for item in items],
            "added": [item.added for item in items],
        }
        if given.suggestions is not None:
            features["kind"] = [entry.kind for entry in given.suggestions] + [""] * added
        return features

    def _shown(self, items: Sequence[Item]) -> np.ndarray:
        """Which points are drawn: those that somebody decided on, and those that reach the smallest score."""
        given = self.opened.given
        passing = np.ones(len(items), bool)
        if given.suggestions is None:
            passing[: len(given.particles)] = given.stays(self.min_scores)
        elif given.particles.scores is not None:  # of suspicions
            passing[: len(given.particles)] = given.particles.scores >= min(self.min_scores.values(), default=-np.inf)
        return np.asarray(passing | np.array([item.state != "undecided" for item in items], bool))

    def _ranked(self) -> list[int]:
        scores = np.asarray(self.layer.features["score"], np.float64)
        return [int(index) for index in np.argsort(-np.nan_to_num(scores, nan=np.inf), kind="stable")]

    def _on_data(self, event: Any) -> None:
        """Turn what napari's own tools did to the points into edits: added, moved and deleted ones."""
        action = getattr(event.action, "value", event.action)
        if self._showing or action not in ("added", "changed", "removed"):
            return
        n = len(self.review.items)
        if action == "added":
            for z, y, x in np.asarray(self.layer.data, np.float64)[n:].tolist():
                self.review.do(Edit("add", label=self.label, at=(x, y, z)))
        elif action == "removed":
            for index in sorted(int(index) % n for index in event.data_indices):
                self.review.do(Edit("reject", index))
        else:
            for index in sorted(int(index) % n for index in event.data_indices):
                z, y, x = map(float, self.layer.data[index])
                if (x, y, z) != self.review.items[index].at:
                    self.review.do(Edit("move", index, at=(x, y, z)))
        self.show()

    def _bind_keys(self) -> None:
        actions = {
            "a": lambda _: self.decide("accept"),
            "r": lambda _: self.decide("reject"),
            "u": lambda _: self.decide("undecide"),
            "s": lambda _: self.suggest() if self.opened.given.suggestions is not None else None,
            "n": lambda _: self.go(1),
            "p": lambda _: self.go(-1),
            "z": lambda _: self.undo(),
            "y": lambda _: self.redo(),
            "i": lambda _: self.add(self.viewer.cursor.position[-3:]),
            **{str(label): partial(_reclass, self, label) for label in range(1, 10)},
        }
        for key, action in actions.items():
            self.layer.bind_key(key, action, overwrite=True)


def _reclass(session: ReviewSession, label: int, _layer: Any) -> None:
    session.reclass(label)
