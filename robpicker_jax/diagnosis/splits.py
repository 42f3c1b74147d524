"""Splits: each tomogram in one of them, once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from robpicker_jax.diagnosis.findings import Finding, Severity
from robpicker_jax.diagnosis.observation import Observation

_ALIKE = 0.98  # correlation of thumbnails
_SAME_POSITION_VOX = 1.0
_SAME_SHARE = 0.8
_ENOUGH = 5
_FIX = "keep it in one split: meta, val and test must be new to the training"


def check_splits(observations: Sequence[Observation], *, needs_meta: bool = True) -> list[Finding]:
    """Train and, where the training uses it, meta have tomograms; no volume and no list of particles is there twice."""
    findings = []
    for split in ("train", "meta") if needs_meta else ("train",):
        if not any(o.tomogram.split == split for o in observations):
            fix = "put tomograms into train/"
            if split == "meta":
                fix = "put a carefully annotated tomogram into meta/, or train without it: train.variant: supervised"
            findings.append(Finding("error", "split_missing", f"no tomogram in {split}/", fix, (split,)))
    for first, second in combinations(observations, 2):
        alike = _alike(first, second)
        if alike is not None:
            findings.append(same_volume(first, second, alike))
        share = _shared_particles(first, second)
        if share >= _SAME_SHARE and alike is None:
            what = f"{share:.0%} of the particles of {first.name} and {second.name} are at the same positions"
            fix = f"check that each has its own list; of two versions of one tomogram, {_FIX[:23]}"
            where, evidence = (first.name, second.name), {"share": share}
            findings.append(Finding(_severity(first, second), "same_particles", what, fix, where, evidence))
    return findings


def same_volume(first: Observation, second: Observation, correlation: float) -> Finding:
    """The finding that two tomograms are one volume."""
    what = f"{first.name} and {second.name} are the same volume"
    where, evidence = (first.name, second.name), {"correlation": correlation}
    return Finding(_severity(first, second), "same_volume", what, _FIX, where, evidence)


def _severity(first: Observation, second: Observation) -> Severity:
    return "error" if first.tomogram.split != second.tomogram.split else "warning"


def _alike(first: Observation, second: Observation) -> float | None:
    """1 for equal hashes, else the correlation of the thumbnails where it is nearly ±1."""
    if first.measures is None or second.measures is None:
        return None
    if first.measures.digest == second.measures.digest:
        return 1.0
    a, b = first.measures.thumbnail, second.measures.thumbnail
    if a.shape != b.shape or first.header is None or second.header is None:
        return None
    correlation = float((a * b).sum())
    return correlation if abs(correlation) >= _ALIKE and first.header.shape_zyx == second.header.shape_zyx else None


def _shared_particles(first: Observation, second: Observation) -> float:
    """Share of the shorter list that has a particle of the other list at its position."""
    from scipy.spatial import cKDTree

    lists = [o.particles.positions_vox for o in (first, second) if o.particles is not None]
    if len(lists) < 2 or min(map(len, lists)) < _ENOUGH:
        return 0.0
    shorter, longer = sorted(lists, key=len)
    distances, _ = cKDTree(longer).query(shorter, distance_upper_bound=_SAME_POSITION_VOX)
    return float(np.isfinite(distances).mean())
