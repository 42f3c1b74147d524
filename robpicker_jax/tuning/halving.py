"""Successive halving: many trials for a short while, the best of them longer (Jamieson and Talwalkar 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robpicker_jax.system.errors import InputError


def rungs(steps: int, least: int, eta: int) -> list[int]:
    """Training steps at which trials are compared: least, eta · least, … and at last all of them.

    Raises:
        InputError: numbers with which there is nothing to compare.
    """
    if eta < 2:
        raise InputError(f"must be 2 or more, got {eta}", where="--eta")
    if not 1 <= least <= steps:
        raise InputError(f"must lie between 1 and train.steps ({steps}), got {least}", where="--min-steps")
    found = []
    while least < steps:
        found.append(least)
        least *= eta
    return [*found, steps]


def survivors(scores: Mapping[int, float | None], eta: int) -> list[int]:
    """The trials that go on: the best of each `eta`, at least one; of equal scores the earlier. Failed ones do not.

    Args:
        scores: by trial; None where it failed.
        eta: one in how many goes on.
    """
    known = {trial: score for trial, score in scores.items() if score is not None}
    best = sorted(known, key=lambda trial: (-known[trial], trial))
    return sorted(best[: max(1, math.floor(len(scores) / eta))])
