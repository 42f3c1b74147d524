"""One tomogram's picks against its true particles: which hit which, and which of them count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import in_mask
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.matching import Pairs, assign_one_to_one, greedy_matches, nearest_hits
from robpicker_jax.evaluation.published import (
    ClassCounts,
    first_counts,
    owners_by_distance,
    owners_in_map,
    pairs_of_any_class,
    single_counts,
)
from robpicker_jax.evaluation.rules import Counting


@dataclass(frozen=True)
class JudgedTomogram:
    """One tomogram's particles, and which of them count.

    Attributes:
        name: the tomogram.
        truth, picks: all true particles and picks, with labels from 1.
        pairs: candidate hits among those that count.
        truth_counts, pick_counts: bool, which of them count: not those outside the region, nor repeated picks under
            greedy counting.
        matches: int64 (picks,), index of the true particle each pick hits, -1 for none.
        counting: what a true positive is.
        own: the counts of a scorer that counts in its own way.
    """

    name: str
    truth: Particles
    picks: Particles
    pairs: Pairs
    truth_counts: NDArray[np.bool_]
    pick_counts: NDArray[np.bool_]
    matches: NDArray[np.int64]
    counting: Counting
    own: ClassCounts | None = None

    def counts(self, label: int) -> tuple[int, int, int, int]:
        """True, picked, true positives and found of one class."""
        if self.own is not None:
            true_number, picked_number, hit_number, found_number = self.own.counts[label - 1].tolist()
            return true_number, picked_number, hit_number, found_number
        picked = self.pick_counts & (self.picks.labels == label)
        true = self.truth_counts & (self.truth.labels == label)
        if self.counting in ("one_to_one", "greedy"):
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
    """Match picks with true particles.

    Args:
        name: the tomogram.
        truth, picks: its true particles and picks.
        pairs: candidate hits.
        counting: what a true positive is; not one of a scorer that counts in its own way.
        region: bool (z, y, x) or None, where particles count.
    """

    def match(among: Pairs) -> NDArray[np.int64]:
        if counting == "one_to_one":
            return assign_one_to_one(among, len(picks))
        if counting == "greedy":
            merit = np.zeros(len(picks)) if picks.scores is None else np.nan_to_num(picks.scores, nan=-np.inf)
            return greedy_matches(among, np.argsort(-merit, kind="stable"), len(picks))
        return nearest_hits(among, len(picks))

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
    if counting == "greedy":  # a pick that finds only particles that better ones have taken counts neither way
        repeated = np.zeros(len(picks), dtype=bool)
        repeated[pairs.picks] = True
        pick_counts &= ~(repeated & (matches < 0))
    return JudgedTomogram(name, truth, picks, pairs, truth_counts, pick_counts, matches, counting)


def judge_as_published(
    name: str,
    truth: Particles,
    picks: Particles,
    counting: Counting,
    n_classes: int,
    limits_vox: NDArray[np.float64] | None,
    instance_map: NDArray[np.integer] | None,
    region: NDArray[np.bool_] | None,
) -> JudgedTomogram:
    """Count as DeepFinder's scorer (`single`) or SHREC's (`first`) does.

    Args:
        name: the tomogram.
        truth, picks: its true particles and picks.
        counting: which scorer.
        n_classes: species.
        limits_vox: float64 (c,), largest distance of a hit of each class; for `single` they are all the same. None where
            the instance map decides.
        instance_map: integers (z, y, x), 0 or 1 + index of the true particle that owns the voxel, for `first`; or None.
        region: bool (z, y, x) or None, where particles count.
    """
    truth_counts, pick_counts = np.ones(len(truth), dtype=bool), np.ones(len(picks), dtype=bool)
    if instance_map is not None:
        owners = owners_in_map(picks, instance_map)
    else:
        assert limits_vox is not None
        owners = owners_by_distance(truth, picks, limits_vox)
    if region is not None:
        truth_counts = in_mask(truth.positions_vox, region)
        of_owner = truth_counts[owners] if len(truth) else np.zeros(len(picks), dtype=bool)
        pick_counts = np.where(owners >= 0, of_owner, in_mask(picks.positions_vox, region))
    true_index, pick_index = np.flatnonzero(truth_counts), np.flatnonzero(pick_counts)
    true_kept, picks_kept = truth.select(true_index), picks.select(pick_index)
    if counting == "single":
        assert limits_vox is not None
        pairs = pairs_of_any_class(true_kept, picks_kept, float(limits_vox[0]))
        own = single_counts(true_kept, picks_kept, pairs, n_classes)
    else:
        renumbered = np.append(np.cumsum(truth_counts) - 1, -1)  # the last one stands for no owner
        own = first_counts(true_kept, picks_kept, renumbered[owners[pick_index]], n_classes)
    matches = np.full(len(picks), -1, dtype=np.int64)
    matched = own.matches >= 0
    matches[pick_index[matched]] = true_index[own.matches[matched]]
    none = np.empty(0, np.int64)
    return JudgedTomogram(
        name, truth, picks, Pairs(none, none, np.empty(0)), truth_counts, pick_counts, matches, counting, own
    )
