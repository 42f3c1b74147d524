"""A list to review, the table of an audit, and an independent account of what edits leave of a list."""

from __future__ import annotations

from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.reviewing import Edit, ReviewList

CLASSES = ("ribosome", "apoferritin", 'it\'s <p97> & "co"')


def picks(n: int = 24, *, seed: int = 0, name: str = "TS_01", rotations: bool = False) -> ReviewList:
    """Picks with every column that lists keep, at positions with all their digits."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, len(CLASSES) + 1, n)
    particles = Particles(
        rng.uniform(3, 28, (n, 3)),
        labels,
        rotations=random_rotations(n, rng) if rotations else None,
        scores=rng.uniform(0.2, 1, n),
        cluster_sizes=rng.integers(20, 90, n),
        class_names=np.array(CLASSES)[labels - 1],
        tomograms=np.full(n, name),
    )
    return ReviewList(name, particles, CLASSES, None, 13.48, (32, 32, 32))


def audit() -> ReviewList:
    """Four annotations with one suspicion of each kind that concerns annotations, one without, and a missing particle."""
    kinds = ["false", "wrong_class", "displaced", "false", "missing"]
    labels = np.array([1, 1, 2, 2, 1])
    positions = np.arange(15.0).reshape(5, 3) + 0.125
    suggested = positions.copy()
    suggested[2] += 2.5
    extra: dict[str, Any] = {
        "kind": np.array(kinds),
        "suggested_class": np.array(CLASSES)[np.array([1, 2, 2, 2, 1]) - 1],
        **{f"suggested_{axis}_vox": suggested[:, k] for k, axis in enumerate("xyz")},
        "row": np.array([3, 1, 4, 2, 0]),
        **{kind: np.full(5, 0.1) for kind in ("false", "wrong_class", "displaced")},
    }
    rows = Particles(
        positions,
        labels,
        scores=[0.9, 0.8, 0.7, 0.05, 0.6],
        class_names=np.array(CLASSES)[labels - 1],
        tomograms=np.full(5, "TS_01"),
        extra=extra,
    )
    return ReviewList.of_audit("TS_01", rows, CLASSES, 13.48, (32, 32, 32))


def account(given: ReviewList, edits: list[Edit], least: float = -np.inf) -> list[tuple[int, tuple[float, ...]]]:
    """Label and position of every particle that the edits leave, by a plain reading of the rules, particle by particle."""
    count = len(given.particles) + sum(edit.do == "add" for edit in edits)
    added = [edit for edit in edits if edit.do == "add"]
    found = []
    for index in range(count):
        own = [edit for edit in edits if edit.do != "add" and edit.item == index]
        if index < len(given.particles):
            label, at = int(given.particles.labels[index]), tuple(given.particles.positions_vox[index].tolist())
            decided = None
        else:
            first = added[index - len(given.particles)]
            label, at, decided = first.label, first.at, True
        for edit in own:
            label = edit.label if edit.do == "reclass" else label
            at = edit.at if edit.do == "move" else at
            decided = {"reject": False, "undecide": None}.get(edit.do, True)
        if decided is None:
            decided = bool(index >= len(given.particles) or given.particles.scores[index] >= least)
            decided = decided and index < len(given.particles)
        if decided:
            found.append((label, at))
    return found


def content(particles: Particles) -> list[tuple[int, tuple[float, ...]]]:
    """Label and position of every particle."""
    return list(zip(particles.labels.tolist(), map(tuple, particles.positions_vox.tolist()), strict=True))
