"""Which picks hit, which are false, which particles were missed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.matching import assign_one_to_one, pairs_within
from robpicker_jax.reporting.data import SpeciesInfo, TomogramView


def match_picks(truth: Particles, picks: Particles, radii_vox: Sequence[float]) -> np.ndarray:
    """One-to-one matches of picks with true particles of their class, within that class's radius.

    For tomograms whose evaluation is not at hand; see `evaluation.evaluate` for the rules.

    Args:
        truth: n true particles.
        picks: m picks.
        radii_vox: radius of each class, class 1 first, voxels.

    Returns:
        int64 (m,), index of the matched true particle, -1 for none.
    """
    pairs = pairs_within(truth, picks, np.asarray(radii_vox, np.float64))
    return assign_one_to_one(pairs, len(picks))


def matches_of(view: TomogramView, species: Sequence[SpeciesInfo]) -> np.ndarray | None:
    """The view's own matches, else the report's; None without truth."""
    if view.truth is None or view.matches is not None:
        return view.matches if view.truth is not None else None
    return match_picks(view.truth, view.picks, [s.radius_vox for s in species])
