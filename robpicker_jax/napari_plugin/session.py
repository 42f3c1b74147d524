"""A review on napari's layers: an image, and a layer of points that shows the review and turns what is done to it into edits.

Points are z, y, x in voxels, one for each particle of the review in its order, rejected ones too. Their features are
`class`, `score`, `state`, `added` and, of an audit, `kind`. The layer's metadata hold the session, for `session_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import write_annotations
from robpicker_jax.annotations.copick_json import REVIEWER
from robpicker_jax.annotations.registry import FORMATS, format_of
from robpicker_jax.napari_plugin.keeping import Keeper, kept_name
from robpicker_jax.napari_plugin.opening import Opened
from robpicker_jax.reporting.style import BACKGROUND_COLOUR, class_colours
from robpicker_jax.reviewing import Edit, Item, Review, ReviewList, read_decisions, write_decisions
from robpicker_jax.reviewing.edits import Action
from robpicker_jax.system.errors import InputError

_FACES = {"undecided": (0, 0, 0, 0), "accepted": (0, 0.62, 0.45, 0.35), "rejected": (0.84, 0.37, 0, 0.45)}
"""Colour of a point's disc by state, RGBA; faint, since the density lies below it."""
_UNKNOWN_RADIUS_VOX = 5.0
_METADATA = "robpicker"
_AXES = (-3, -2, -1)  # z, y, x: those of a viewer's dimensions that a tomogram has


class ReviewSession:
    """One tomogram under review in a viewer.

    Attributes:
        review: the review.
        layer: the layer of points.
        image: the layer of the density.
        min_scores: smallest score of undecided picks, by class.
        label: the class of particles that are added.
        keeper: keeps the decisions, after every one of them.
        listeners: what is called after every change of the review, whatever made it.

    Args:
        viewer: napari's viewer, or its model without a window.
        opened: the tomogram.
        keep_in: folder in which decisions are kept, and from which those made before are taken up; None: nowhere.
    """

    def __init__(self, viewer: Any, opened: Opened, keep_in: Path | None = None) -> None:
        self.viewer, self.opened = viewer, opened
        self.keeper = Keeper(keep_in, opened.given)
        self.listeners: list[Callable[[], None]] = []
        self.label = 1
        self._showing = False
        before = self.keeper.read()
        self.review = Review(opened.given, () if before is None else before.edits)
        self.min_scores: dict[str, float] = {} if before is None else dict(before.min_scores)
        self._saved: tuple[list[Edit], dict[str, float]] = ([], {})
        self._radii = [float(np.mean(opened.radii_vox or [_UNKNOWN_RADIUS_VOX])), *opened.radii_vox]
        name = opened.given.name
        low, high = np.percentile(opened.density, (0.5, 99.5))
        self.image = viewer.add_image(
            opened.density,
            name=name,
            contrast_limits=(low, max(high, low + 1e-6)),
            projection_mode="none",  # the slice alone, not the mean of what lies within the margins of the picks
        )
        self.layer = viewer.add_points(
            np.zeros((0, 3)),
            ndim=3,
            name=f"{name} picks",
            face_color="transparent",
            border_width=0.06,
        )
        self.layer.metadata = {_METADATA: self}
        self._draw_sections()
        self.show()
        self.layer.events.data.connect(self._on_data)
        self._bind_keys()

    @property
    def selected(self) -> list[int]:
        """Indices of the selected particles."""
        return sorted(int(index) for index in self.layer.selected_data)

    @property
    def unsaved(self) -> bool:
        """Whether there are decisions that are in no file that was saved or opened."""
        state = self._state()
        return state not in (self._saved, ([], {}))

    def is_of(self, given: ReviewList) -> bool:
        """Whether it reviews this list."""
        return kept_name(given) == kept_name(self.opened.given)

    def take_over(self, other: ReviewSession) -> None:
        """Go on with the review of the same list in another session, whose layers this one replaces."""
        self.review = Review(self.opened.given, other.review.edits)
        self.review.undone = list(other.review.undone)
        self.min_scores, self.label, self._saved = dict(other.min_scores), other.label, other._saved
        self._changed()

    def close(self) -> None:
        """Take its layers out of the viewer."""
        for layer in (self.layer, self.image):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def decide(self, do: Action, label: int | None = None) -> None:
        """Accept, reject, undecide or reclass what is selected."""
        for index in self.selected:
            self.review.do(Edit(do, index, label=label))
        self._changed()

    def reclass(self, label: int) -> None:
        """Give what is selected another class, which particles that are added get from now on."""
        if 1 <= label <= len(self.opened.given.class_names):
            self.label = label
            self.decide("reclass", label)

    def suggest(self) -> None:
        """Do what the audit suggests for what is selected, but for particles that the review added.

        Raises:
            InputError: what is reviewed are picks.
        """
        for index in self.selected:
            if not self.review.items[index].added:
                self.review.suggest(index)
        self._changed()

    def add(self, position_zyx: Sequence[float]) -> None:
        """Add a particle of the present class."""
        z, y, x = map(float, position_zyx)
        self.review.do(Edit("add", label=self.label, at=(x, y, z)))
        self._changed()
        self.layer.selected_data = {len(self.review.items) - 1}

    def undo(self) -> None:
        """Undo the last edit."""
        self.review.undo()
        self._changed()

    def redo(self) -> None:
        """Do again what was undone last."""
        self.review.redo()
        self._changed()

    def undo_all(self) -> None:
        """Undo all edits, which can be done again one by one, and take the smallest scores back."""
        fresh = Review(self.opened.given)
        fresh.undone = [*self.review.undone, *reversed(self.review.edits)]
        self.review, self.min_scores = fresh, {}
        self._changed()

    def go(self, by: int) -> None:
        """Select the particle that is `by` further in the order of falling scores, of those that are shown."""
        shown = [index for index in self._ranked() if self.layer.shown[index]]
        if not shown:
            return
        here = self.selected[0] if self.selected else None
        at = shown.index(here) + by if here in shown else (0 if by > 0 else len(shown) - 1)
        chosen = shown[min(max(at, 0), len(shown) - 1)]
        self.layer.selected_data = {chosen}
        dims = self.viewer.dims
        dims.set_point(_AXES, self.review.items[chosen].at[::-1])
        # napari 0.9 moved the camera from the viewer to its scene.
        camera = getattr(self.viewer, "scene", self.viewer).camera
        camera.center = tuple(dims.point[axis] for axis in dims.displayed)

    def set_min_score(self, score: float | None) -> None:
        """Leave undecided picks of lower scores out, of all classes; None: keep all."""
        names = self.opened.given.class_names
        self.min_scores = {} if score is None else dict.fromkeys(names, score)
        self._changed()

    def show(self) -> None:
        """Bring the layer up to the review."""
        items, layer, given = self.review.items, self.layer, self.opened.given
        selected = {index for index in self.selected if index < len(items)}
        by_name = class_colours(given.class_names)
        colours = [BACKGROUND_COLOUR, *(by_name[name] for name in given.class_names)]
        labels = [item.label if item.label < len(colours) else 0 for item in items]
        self._showing = True
        try:
            layer.selected_data = set()
            layer.data = np.array([item.at[::-1] for item in items], np.float64).reshape(-1, 3)
            layer.features = self._features(items)
            if items:
                layer.size = np.array([2 * self._radii[label] for label in labels])
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
        self._saved = self._state()
        return len(corrected)

    def save_decisions(self, path: Path) -> None:
        """Write the decisions, to go on with them later, here or on the page, or for `robpicker review --apply`."""
        write_decisions(path, "napari", [(self.review, self.min_scores)])
        self._saved = self._state()

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
        self._saved = self._state()
        self._changed()

    def _state(self) -> tuple[list[Edit], dict[str, float]]:
        """What decisions are made of."""
        return list(self.review.edits), dict(self.min_scores)

    def _changed(self) -> None:
        """Show and keep what was decided, and tell those who listen."""
        self.show()
        self.keeper.write(self.review, self.min_scores)
        for listener in list(self.listeners):
            listener()

    def _draw_sections(self) -> None:
        """Draw each particle as the circle in which its sphere cuts the shown slice, whichever axis lies across it."""
        try:
            self.layer.projection_mode = "rescale_spherical"
        except ValueError:
            # Before 0.9 napari drew what reaches the slice without margins, as circles that shrink linearly with depth.
            self.layer.out_of_slice_display = True
            return
        # Since 0.9 a point is drawn only within the margins of the slice, which are none by default.
        dims, radius = self.viewer.dims, max(self._radii)
        for side in ("margin_left", "margin_right"):
            margins = list(getattr(dims, side))
            for axis in _AXES:
                margins[axis] = max(margins[axis], radius)
            setattr(dims, side, margins)

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
        self._changed()

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
            **{str(label): _reclassing(self, label) for label in range(1, 10)},
        }
        for key, action in actions.items():
            self.layer.bind_key(key, action, overwrite=True)


def session_of(layer: Any) -> ReviewSession | None:
    """The review that a layer shows; None of other layers, and of copies of one, which share its metadata."""
    session = None if layer is None else layer.metadata.get(_METADATA)
    return session if isinstance(session, ReviewSession) and session.layer is layer else None


def _reclassing(session: ReviewSession, label: int) -> Callable[[Any], None]:
    """What a digit does; a plain function, since napari asks whatever is bound to keys for its `__name__`."""
    return lambda _: session.reclass(label)
