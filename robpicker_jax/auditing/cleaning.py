"""The annotations with the suspicions carried out: false ones removed, others reclassed or moved, missing ones added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robpicker_jax.annotations.particles import Particles


def suspected(found: Particles, min_scores: Mapping[str, float]) -> Particles:
    """The rows whose score reaches that of their kind."""
    least = np.array([min_scores[str(kind)] for kind in found.extra["kind"]])
    scores = np.zeros(0) if found.scores is None else found.scores
    return found.select(scores >= least)


def cleaned(
    particles: Particles, found: Particles, min_scores: Mapping[str, float], class_names: Sequence[str]
) -> tuple[Particles, list[dict[str, Any]]]:
    """Carry out what is suggested with a score that is high enough.

    Args:
        particles: the n annotations of a tomogram.
        found: what is suspicious in it (`examine.suspicions`).
        min_scores: smallest score of each kind that is carried out.
        class_names: of label 1, 2, ….

    Returns:
        The remaining annotations in their order, all columns kept, and then the missing ones; and a record of every
        change, by falling score: `what` was done, to which `row` (from 1) of the list, `from` and `to`, its `score`.
    """
    labels, positions = particles.labels.copy(), particles.positions_vox.copy()
    keep = np.ones(len(particles), bool)
    label_of = {name: label for label, name in enumerate(class_names, start=1)}
    chosen, changes = suspected(found, min_scores), []
    target = suggested_positions(chosen)
    for index in range(len(chosen)):
        kind, row = str(chosen.extra["kind"][index]), int(chosen.extra["row"][index])
        name, other = str(chosen.extra["suggested_class"][index]), str(class_names[chosen.labels[index] - 1])
        before = None if kind == "missing" else _described(other, chosen.positions_vox[index])
        after = None if kind == "false" else _described(name, target[index])
        if kind == "false":
            keep[row - 1] = False
        elif kind == "wrong_class":
            labels[row - 1] = label_of[name]
        elif kind == "displaced":
            positions[row - 1] = target[index]
        score = float(chosen.scores[index])  # type: ignore[index]
        changes.append({"what": _WHAT[kind], "row": row or None, "from": before, "to": after, "score": score})
    names = particles.class_names
    if names is not None:
        changed = labels != particles.labels
        names = np.where(changed, np.asarray(class_names)[labels - 1], names)
    remaining = particles.with_(labels=labels, positions_vox=positions, class_names=names).select(keep)
    added = chosen.select(chosen.extra["kind"] == "missing")
    new = Particles(
        added.positions_vox,
        added.labels,
        scores=None if particles.scores is None else added.scores,
        class_names=None if names is None else added.class_names,
        tomograms=None if particles.tomograms is None else _tomogram(particles, added),
    )
    return (Particles.concatenate([remaining, new]) if len(new) else remaining), changes


def suggested_positions(found: Particles) -> np.ndarray:
    """Suggested positions of the rows, (n, 3) x y z in voxels."""
    return np.stack([np.asarray(found.extra[f"suggested_{axis}_vox"], np.float64) for axis in "xyz"], axis=1)


_WHAT = {"false": "removed", "wrong_class": "reclassed", "displaced": "moved", "missing": "added"}


def _described(name: str, position: np.ndarray) -> dict[str, Any]:
    return {"class": name, "position_xyz_vox": [round(float(value), 3) for value in position]}


def _tomogram(particles: Particles, added: Particles) -> np.ndarray | None:
    """What the list itself calls the tomogram, for the particles that are added to it."""
    names = particles.tomograms
    return added.tomograms if names is None or not len(names) else np.full(len(added), names[0])
