"""Decisions on picks, as somebody makes them who sees the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.reviewing import Edit, Review, ReviewList, write_decisions

NEAR_VOX = 3.0


def decided(given: ReviewList, truth: Particles, path: Path) -> tuple[int, int]:
    """Write decisions by which false picks are rejected and missed particles added; how many of each."""
    review, false, missed = reviewed(given, truth)
    write_decisions(path, "the loop", [(review, {})])
    return false, missed


def reviewed(given: ReviewList, truth: Particles) -> tuple[Review, int, int]:
    """A list after false picks were rejected and missed particles added, and how many of each."""
    review, found = Review(given), given.particles
    distances = np.linalg.norm(found.positions_vox[:, None] - truth.positions_vox[None], axis=2)
    distances[found.labels[:, None] != truth.labels[None]] = np.inf
    false = np.flatnonzero(distances.min(axis=1, initial=np.inf) > NEAR_VOX)
    missed = np.flatnonzero(distances.min(axis=0, initial=np.inf) > NEAR_VOX)
    for index in false.tolist():
        review.do(Edit("reject", index))
    for index in missed.tolist():
        x, y, z = truth.positions_vox[index].tolist()
        review.do(Edit("add", label=int(truth.labels[index]), at=(x, y, z)))
    return review, len(false), len(missed)


def is_right(corrected: Particles, truth: Particles) -> bool:
    """Whether every particle of a list is a true one of its class, and none is missing."""
    distances = np.linalg.norm(corrected.positions_vox[:, None] - truth.positions_vox[None], axis=2)
    distances[corrected.labels[:, None] != truth.labels[None]] = np.inf
    return bool(distances.min(axis=1).max() <= NEAR_VOX and distances.min(axis=0).max() <= NEAR_VOX)
