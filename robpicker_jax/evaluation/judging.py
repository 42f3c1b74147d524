"""One tomogram's picks against its true particles: which hit which, and which of them count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import in_mask
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.matching import Counting, Pairs, assign_one_to_one, nearest_hits


@dataclass(frozen=True)
class JudgedTomogram:
    """One tomogram's particles, and which of them count.

    Attributes:
        name: the tomogram.
        truth, picks: all true particles and picks, with labels from 1.
        pairs: candidate hits among those that count.
        truth_counts, pick_counts: bool, which of them count: not those outside the region.
        matches: int64 (picks,), index of the true particle each pick hits, -1 for none.
        counting: what a true positive is.
    """

    name: str
    truth: Particles
    picks: Particles
    pairs: Pairs
    truth_counts: NDArray[np.bool_]
    pick_counts: NDArray[np.bool_]
    matches: NDArray[np.int64]
    counting: Counting

    def counts(self, label: int) -> tuple[int, int, int, int]:
        """True, picked, true positives and found of one class."""
        picked = self.pick_counts & (self.picks.labels == label)
        true = self.truth_counts & (self.truth.labels == label)
        if self.counting == "one_to_one":
            found = hits = int((picked & (self.matches >= 0)).sum())
        else:
            found = np.unique(self.pairs.truths[true[self.pairs.truths]]).size
            hits = found if self.counting == "particles" else int((picked & (self.matches >= 0)).sum())
        return int(true.sum()), int(picked.sum()), hits, found


def judge(
    name: str,
    truth: Particles,
    picks: Particles,
    pairs: Pairs,
    counting: Counting,
    region: NDArray[np.bool_] | None,
) -> JudgedTomogram:
    def match(among: Pairs) -> NDArray[np.int64]:
        return assign_one_to_one(among, len(picks)) if counting == "one_to_one" else nearest_hits(among, len(picks))

    matches = match(pairs)
    truth_counts, pick_counts = np.ones(len(truth), dtype=bool), np.ones(len(picks), dtype=bool)
    if region is not None:
        truth_counts = in_mask(truth.positions_vox, region)
        # A pick goes with its particle: one beyond the border that hits a particle inside still counts, one inside
        # that hits a particle outside is neither right nor wrong.
        pick_counts = np.where(
            matches >= 0, truth_counts[matches] if len(truth) else False, in_mask(picks.positions_vox, region)
        )
        pairs = pairs.where(truth_counts[pairs.truths] & pick_counts[pairs.picks])
        matches = match(pairs)
    return JudgedTomogram(name, truth, picks, pairs, truth_counts, pick_counts, matches, counting)
