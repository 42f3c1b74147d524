"""What picks above each score threshold were worth on annotated tomograms: the counts that thresholds are chosen from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassCalibration:
    """Picks of one class against the score threshold.

    Attributes:
        thresholds: the distinct scores, falling.
        picked: picks that reach each threshold.
        hits: those of them that are right.
        true: particles there were.
    """

    thresholds: tuple[float, ...]
    picked: tuple[int, ...]
    hits: tuple[int, ...]
    true: int
